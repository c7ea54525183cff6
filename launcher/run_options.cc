#include "launcher/run_options.h"

#include <cstddef>
#include <string>
#include <vector>

#include "absl/strings/str_format.h"
#include "absl/strings/str_join.h"

#include "optim/schedule.h"
#include "runtime/base/status_macros.h"

namespace panthera {
namespace {

constexpr size_t kMaxSuggestions = 8;

// The largest divisors of n, in rising order.
std::vector<int64_t> LargestDivisors(int64_t n) {
  std::vector<int64_t> small;
  std::vector<int64_t> large;
  for (int64_t d = 1; d * d <= n; ++d) {
    if (n % d == 0) {
      small.push_back(d);
      if (d != n / d) {
        large.push_back(n / d);
      }
    }
  }
  small.insert(small.end(), large.rbegin(), large.rend());
  if (small.size() > kMaxSuggestions) {
    small.erase(small.begin(), small.end() - kMaxSuggestions);
  }
  return small;
}

absl::Status CheckSources(const std::vector<DataSource>& sources, const char* list) {
  for (size_t i = 0; i < sources.size(); ++i) {
    if (sources[i].path.empty()) {
      return absl::InvalidArgumentError(
          absl::StrFormat("%s[%d].path is missing: name a token file", list, i));
    }
  }
  return absl::OkStatus();
}

absl::Status CheckData(const DataOptions& data, const EvalOptions& eval) {
  if (data.train.empty()) {
    return absl::InvalidArgumentError(
        "data.train is empty: add a [[data.train]] table with the `path` of a token file");
  }
  RETURN_IF_ERROR(CheckSources(data.train, "data.train"));
  RETURN_IF_ERROR(CheckSources(data.validation, "data.validation"));
  if (eval.every > 0 && data.validation.empty()) {
    return absl::InvalidArgumentError(absl::StrFormat(
        "eval.every = %d needs data to measure on: add a [[data.validation]] table, "
        "or set eval.every = 0",
        eval.every));
  }
  return absl::OkStatus();
}

absl::Status CheckCheckpoints(const CheckpointOptions& checkpoint) {
  if (checkpoint.keep_every == 0) {
    return absl::OkStatus();
  }
  if (checkpoint.every == 0 || checkpoint.keep_every % checkpoint.every != 0) {
    return absl::InvalidArgumentError(
        absl::StrFormat("checkpoint.keep_every = %d is not a multiple of checkpoint.every = %d, so "
                        "there would be no checkpoint to keep; make it one",
                        checkpoint.keep_every, checkpoint.every));
  }
  return absl::OkStatus();
}

// A tied table is the output matrix as well, and softmax gives each of its rows a gradient in every
// step: no row is unseen.
absl::Status FinishLazyRows(const ModelOptions& model, OptimOptions& optim) {
  const bool is_tied = model.tie != Tie::kNone;
  if (optim.lazy_rows == LazyRows::kAuto) {
    const bool goes_by_sign = optim.ForTable().algorithm != Algorithm::kAdamW;
    optim.lazy_rows = goes_by_sign && !is_tied ? LazyRows::kChange : LazyRows::kOff;
  }
  if (is_tied && optim.lazy_rows != LazyRows::kOff) {
    return absl::InvalidArgumentError(absl::StrFormat(
        "optim.lazy_rows = \"%s\" would keep rows back that have a gradient in every step, because "
        "model.tie = \"%s\" makes the embedding the output matrix too: set optim.lazy_rows = "
        "\"off\" or model.tie = \"none\"",
        EnumName(optim.lazy_rows), EnumName(model.tie)));
  }
  return absl::OkStatus();
}

}  // namespace

absl::Status CheckTensorParallel(const ModelOptions& model, int64_t tensor_ranks,
                                 const char* count) {
  const struct {
    const char* what;
    int64_t value;
  } dimensions[] = {
      {"model.heads", model.heads},
      {"model.kv_heads x model.head_width", model.kv_heads * model.head_width},
      {"model.ffn_width", model.ffn_width},
      {"model.vocab_size", model.vocab_size},
  };
  for (const auto& dimension : dimensions) {
    if (dimension.value < tensor_ranks) {
      return absl::InvalidArgumentError(absl::StrFormat(
          "%s = %d cannot be shared among %d tensor-parallel ranks; use a %s of at most %d",
          dimension.what, dimension.value, tensor_ranks, count, dimension.value));
    }
  }
  return absl::OkStatus();
}

absl::StatusOr<int64_t> CountMicroSteps(const TrainOptions& train, int64_t data_ranks) {
  const int64_t batch = train.global_batch;
  if (batch % data_ranks == 0 && batch / data_ranks % train.micro_batch == 0) {
    return batch / data_ranks / train.micro_batch;
  }
  const int64_t unit = train.micro_batch * data_ranks;
  std::string remedy = absl::StrFormat("use a global_batch that is a multiple of %d", unit);
  if (batch % data_ranks == 0) {
    absl::StrAppendFormat(&remedy, ", or micro_batch %s",
                          absl::StrJoin(LargestDivisors(batch / data_ranks), ", "));
  } else if (batch % train.micro_batch == 0) {
    absl::StrAppendFormat(&remedy, ", or start %s data-parallel ranks",
                          absl::StrJoin(LargestDivisors(batch / train.micro_batch), ", "));
  }
  return absl::InvalidArgumentError(
      absl::StrFormat("train.global_batch = %d does not divide into train.micro_batch = %d x %d "
                      "data-parallel ranks: %s",
                      batch, train.micro_batch, data_ranks, remedy));
}

absl::Status RunOptions::Finish(int world_size) {
  RETURN_IF_ERROR(model.Finish());
  RETURN_IF_ERROR(optim.Finish());
  RETURN_IF_ERROR(FinishLazyRows(model, optim));
  RETURN_IF_ERROR(ValidateSchedule(optim.schedule, train.steps));
  RETURN_IF_ERROR(CheckData(data, eval));
  RETURN_IF_ERROR(CheckCheckpoints(checkpoint));
  if (train.run_dir.empty()) {
    return absl::InvalidArgumentError(
        "train.run_dir is missing: name the folder for checkpoints and logs, such as "
        "\"runs/first\"");
  }
  ASSIGN_OR_RETURN(const Mesh mesh, Mesh::Create(parallel, /*rank=*/0, world_size));
  RETURN_IF_ERROR(CheckTensorParallel(model, mesh.tensor_size, "parallel.tensor"));
  return CountMicroSteps(train, mesh.data_size).status();
}

}  // namespace panthera
