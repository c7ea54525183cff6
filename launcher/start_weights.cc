#include "launcher/start_weights.h"

#include <algorithm>
#include <string>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"

#include "launcher/config_changes.h"
#include "launcher/run_directory.h"
#include "model/hugging_face.h"
#include "runtime/base/check.h"
#include "runtime/base/log.h"
#include "runtime/base/status_macros.h"
#include "runtime/checkpoint/weight_import.h"

namespace panthera {
namespace {

constexpr char kTableName[] = "model.embed_tokens.weight";
constexpr int64_t kBlockBytes = int64_t{1} << 20;

absl::Status NamingTheKey(const absl::Status& status) {
  return status.ok()
             ? status
             : absl::Status(status.code(), absl::StrCat("train.start_from: ", status.message()));
}

// `options` with everything in [model] that decides what the weights mean as `source` has it.
RunOptions WithModelOf(const WeightSource& source, RunOptions options) {
  ModelOptions& model = options.model;
  const ModelOptions& other = source.model;
  model.vocab_size = other.vocab_size;
  model.width = other.width;
  model.layers = other.layers;
  model.heads = other.heads;
  model.kv_heads = other.kv_heads;
  model.head_width = other.head_width;
  model.ffn_width = other.ffn_width;
  model.attention_window = other.attention_window;
  model.rope_base = other.rope_base;
  model.norm_epsilon = other.norm_epsilon;
  const bool may_be_swapped = model.tie == Tie::kSwapHalves && other.tie == Tie::kNone;
  model.tie = may_be_swapped ? model.tie : other.tie;
  return options;
}

absl::Status CheckSameModel(const WeightSource& source, const RunOptions& options) {
  std::vector<std::string> differences;
  for (const ConfigChange& change : CompareConfigs(WithModelOf(source, options), options)) {
    differences.push_back(absl::StrCat(change.key, " = ", change.after, ", there ", change.before));
  }
  if (differences.empty()) {
    return absl::OkStatus();
  }
  return absl::FailedPreconditionError(
      absl::StrCat("train.start_from: ", source.weights.directory(), " holds another model (",
                   absl::StrJoin(differences, "; "), "); set these keys as there"));
}

// Compares rows [begin, end) of the output matrix with those of the table, which have their halves
// exchanged.
absl::Status CompareSwappedRows(FileSystem& files, const WeightFiles& weights, int64_t begin,
                                int64_t end) {
  const StoredTensor& table = *weights.Find(kTableName);
  const StoredTensor& head = *weights.Find(kHeadName);
  const auto error = [&](int64_t row) {
    return absl::FailedPreconditionError(
        absl::StrCat("train.start_from: ", weights.PathOf(head), ": row ", row, " of ", kHeadName,
                     " is not that of ", kTableName, " with its halves exchanged, as model.tie = ",
                     "\"swap_halves\" wants it; set model.tie = \"none\""));
  };
  if (table.tensor.dtype != head.tensor.dtype) {
    return error(0);
  }
  const int64_t width = table.tensor.shape[1];
  const int64_t row_bytes = width * SizeOf(table.tensor.dtype);
  const int64_t most_rows = std::max<int64_t>(1, kBlockBytes / row_bytes);
  // One for each tensor, which may lie in different files.
  WeightReader table_reader(files, weights);
  WeightReader head_reader(files, weights);
  std::vector<std::byte> rows;
  std::vector<std::byte> swapped;
  for (int64_t row = begin; row < end; row += most_rows) {
    const int64_t count = std::min(most_rows, end - row);
    rows.resize(static_cast<size_t>(count * row_bytes));
    swapped.resize(rows.size());
    RETURN_IF_ERROR(table_reader.Read(table, row * width, rows));
    RETURN_IF_ERROR(head_reader.Read(head, row * width, swapped));
    for (int64_t i = 0; i < count; ++i) {
      const auto first = rows.begin() + i * row_bytes;
      const auto other = swapped.begin() + i * row_bytes;
      const int64_t half = row_bytes / 2;
      if (!std::equal(first, first + half, other + half) ||
          !std::equal(first + half, first + row_bytes, other)) {
        return error(row + i);
      }
    }
  }
  return absl::OkStatus();
}

}  // namespace

absl::StatusOr<WeightSource> OpenStartWeights(FileSystem& files, HostGroup& host,
                                              const RunOptions& options) {
  absl::StatusOr<WeightSource> source = OpenWeightSource(files, host, options.train.start_from);
  RETURN_IF_ERROR(NamingTheKey(source.status()));
  RETURN_IF_ERROR(Agree(host, CheckSameModel(*source, options)));
  if (options.model.tie == Tie::kSwapHalves) {
    const int64_t rows = options.model.vocab_size;
    RETURN_IF_ERROR(
        Agree(host, CompareSwappedRows(files, source->weights, rows * host.rank() / host.size(),
                                       rows * (host.rank() + 1) / host.size())));
  }
  if (host.rank() == 0 && options.model.sequence_length > source->model.sequence_length) {
    LOG(WARNING) << "train.start_from: " << source->weights.directory() << " was made for at most "
                 << source->model.sequence_length << " tokens; this run has sequences of "
                 << options.model.sequence_length;
  }
  return source;
}

absl::Status LoadStartWeights(FileSystem& files, World& world, ModelInstance& instance,
                              const WeightSource& source) {
  absl::Status loaded = ImportShards(files, source.weights, instance.params());
  if (source.weights.checkpoint().has_value()) {
    loaded = AdviseOnDamage(loaded);
  }
  RETURN_IF_ERROR(Agree(*world.host, NamingTheKey(loaded)));
  Context& ctx = instance.context();
  instance.params().Publish(*world.data_parallel, ctx.compute(), ctx.exchange());
  return absl::OkStatus();
}

}  // namespace panthera
