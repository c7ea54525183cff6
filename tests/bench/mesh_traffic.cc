#include "tests/bench/mesh_traffic.h"

#include <cstdint>
#include <vector>

#include "absl/strings/str_cat.h"

#include "runtime/base/status_macros.h"

namespace panthera::bench {
namespace {

// A sum of squares is taken over each of these.
constexpr int64_t kBlockElements = 1024;

int64_t CeilOf(int64_t number, int64_t divisor) { return (number + divisor - 1) / divisor; }

// One rank's shard of a group of matrices (each [rows, columns]) that R ranks share: each matrix
// begins a block, and each shard is whole blocks.
struct Shard {
  int64_t blocks;
  int64_t elements;
};
Shard ShardOf(const std::vector<int64_t>& matrices, int64_t block_elements, int64_t ranks) {
  int64_t blocks = 0;
  for (const int64_t elements : matrices) {
    blocks += CeilOf(elements, block_elements);
  }
  const int64_t own = CeilOf(blocks, ranks);
  return {own, own * block_elements};
}

absl::Status CheckSuits(const RunOptions& options, const Mesh& mesh) {
  const OptimOptions& optim = options.optim;
  if (optim.algorithm != Algorithm::kTiger || optim.accumulate != Accumulation::kMomentum ||
      optim.publish != PublishMode::kWeights || optim.nonfinite != NonFinitePolicy::kTiger ||
      optim.table.optimizer != TableOptimizer::kSame || optim.table_rms != TableRms::kRow) {
    return absl::InvalidArgumentError("the formulas are those of Tiger with its defaults");
  }
  const ModelOptions& model = options.model;
  const int64_t tokens = options.train.micro_batch * model.sequence_length;
  for (const int64_t size : {model.kv_heads, model.ffn_width, model.vocab_size, tokens}) {
    if (size % mesh.tensor_size != 0) {
      return absl::InvalidArgumentError(
          absl::StrCat(mesh.tensor_size, " ranks get no equal parts of ", size));
    }
  }
  return absl::OkStatus();
}

// To each other rank on the data axis, in `k` micro-steps: of each group the part of its gradient
// that the other owns, in the type of the weights; all gradients of gains (fp32); a flag (4 bytes)
// for each tensor. Once: a sum of squares (8 bytes) for each block of gradients, and of weights but
// for the embedding; the loss (8 bytes); where rows are lazy, a bit for each token in whole words;
// and the new weights of its shard.
int64_t ToDataRank(const RunOptions& options, const Mesh& mesh, int64_t k, int64_t gains,
                   int64_t tensors) {
  const ModelOptions& model = options.model;
  const int64_t t = mesh.tensor_size;
  const int64_t ranks = mesh.data_size;
  const int64_t weight_bytes = options.optim.weights == WeightStorage::kFp32 ? 4 : 2;
  const int64_t table = model.vocab_size / t * model.width;
  const int64_t queries = model.heads / t * model.head_width * model.width;
  const int64_t keys = model.kv_heads / t * model.head_width * model.width;
  const int64_t features = model.ffn_width / t * model.width;
  const Shard embedding = ShardOf({table}, model.width, ranks);
  const Shard block =
      ShardOf({queries, keys, keys, queries, features, features, features}, kBlockElements, ranks);
  const Shard head = model.tie == Tie::kNone ? ShardOf({table}, kBlockElements, ranks) : Shard{};
  const int64_t shard = embedding.elements + model.layers * block.elements + head.elements;
  const int64_t weight_sums = model.layers * block.blocks + head.blocks;
  const int64_t seen_rows =
      options.optim.lazy_rows == LazyRows::kOff ? 0 : 4 * CeilOf(model.vocab_size, 32);
  return k * (weight_bytes * shard + 4 * gains + 4 * tensors) +
         8 * (weight_sums + embedding.blocks) + 8 * weight_sums + 8 + seen_rows +
         weight_bytes * shard;
}

// To each neighbour on the tensor axis: [m, C] in the type of the weights, m = N / t, for each
// all-gather and reduce-scatter - of a block 4 forward, 4 more if that is repeated, and 6 backward;
// one after the embedding and one before its gradient; the rows of the head and of their gradients
// - and 4 doubles for each of N tokens; the gradients of gains (fp32); the flags of the ranks
// beside it; once a step two sums (8 bytes) for each tensor.
int64_t ToNeighbour(const RunOptions& options, const Mesh& mesh, int64_t k, int64_t gains,
                    int64_t tensors) {
  const ModelOptions& model = options.model;
  const int64_t weight_bytes = options.optim.weights == WeightStorage::kFp32 ? 4 : 2;
  const int64_t tokens = options.train.micro_batch * model.sequence_length;
  const int64_t rows = tokens / mesh.tensor_size * model.width * weight_bytes;
  const int64_t of_a_block = model.recompute == Recompute::kBlock ? 4 + 4 + 6 : 4 + 6;
  return k * ((model.layers * of_a_block + 2 + 2) * rows + tokens * 4 * 8 + 4 * gains +
              4 * mesh.data_size * tensors) +
         2 * 8 * tensors;
}

}  // namespace

absl::StatusOr<AxisBytes> TrafficByFormula(const RunOptions& options, const Mesh& mesh) {
  RETURN_IF_ERROR(CheckSuits(options, mesh));
  ASSIGN_OR_RETURN(const int64_t k, CountMicroSteps(options.train, mesh.data_size));
  const ModelOptions& model = options.model;
  const int64_t norms = 2 * model.layers + 1;
  // Each begins a block.
  const int64_t gains = norms * CeilOf(model.width, kBlockElements) * kBlockElements;
  const int64_t tensors = 7 * model.layers + 1 + (model.tie == Tie::kNone ? 1 : 0) + norms;
  return AxisBytes{(mesh.data_size - 1) * ToDataRank(options, mesh, k, gains, tensors),
                   (mesh.tensor_size - 1) * ToNeighbour(options, mesh, k, gains, tensors)};
}

}  // namespace panthera::bench
