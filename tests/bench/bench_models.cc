#include "tests/bench/bench_models.h"

#include <algorithm>
#include <iterator>

#include "absl/strings/str_cat.h"

namespace panthera::bench {

namespace {

struct Sizes {
  const char* name;
  int64_t vocab_size;
  int64_t width;
  int64_t layers;
  int64_t heads;
  int64_t ffn_width;
  Tie tie;
  StepShape step;
};

constexpr Sizes kModels[] = {
    {"10m", 8192, 256, 10, 4, 704, Tie::kTied, {512, 8, 8}},
    {"124m", 50304, 768, 12, 12, 2048, Tie::kTied, {512, 8, 4}},
    {"1.3b", 50304, 2048, 24, 16, 5504, Tie::kNone, {2048, 16, 16}},
    {"7b", 50304, 4096, 32, 32, 11008, Tie::kNone, {2048, 8, 8}},
};

}  // namespace

absl::StatusOr<RunOptions> BenchModel(const std::string& name, const StepShape& step) {
  const auto* const found = std::find_if(std::begin(kModels), std::end(kModels),
                                         [&](const Sizes& sizes) { return sizes.name == name; });
  if (found == std::end(kModels)) {
    return absl::InvalidArgumentError(
        absl::StrCat("no model is called ", name, "; there are 10m, 124m, 1.3b and 7b"));
  }
  const auto chosen = [](int64_t asked, int64_t own) { return asked > 0 ? asked : own; };
  RunOptions options;
  ModelOptions& model = options.model;
  model.vocab_size = found->vocab_size;
  model.width = found->width;
  model.layers = found->layers;
  model.heads = found->heads;
  model.ffn_width = found->ffn_width;
  model.tie = found->tie;
  model.sequence_length = chosen(step.sequence_length, found->step.sequence_length);
  options.train.global_batch = chosen(step.sequences, found->step.sequences);
  options.train.micro_batch =
      std::min(chosen(step.micro_batch, found->step.micro_batch), options.train.global_batch);
  return options;
}

}  // namespace panthera::bench
