#include "tests/bench/bench_models.h"

#include "absl/strings/str_cat.h"

namespace panthera::bench {

absl::StatusOr<RunOptions> BenchModel(const std::string& name) {
  RunOptions options;
  ModelOptions& model = options.model;
  model.sequence_length = 512;
  model.tie = Tie::kTied;
  options.train.global_batch = 8;
  if (name == "10m") {
    model.vocab_size = 8192;
    model.width = 256;
    model.layers = 10;
    model.heads = 4;
    model.ffn_width = 704;
    options.train.micro_batch = 8;
  } else if (name == "124m") {
    model.vocab_size = 50304;
    model.width = 768;
    model.layers = 12;
    model.heads = 12;
    model.ffn_width = 2048;
    options.train.micro_batch = 4;
  } else {
    return absl::InvalidArgumentError(
        absl::StrCat("no model is called ", name, "; there are 10m and 124m"));
  }
  return options;
}

}  // namespace panthera::bench
