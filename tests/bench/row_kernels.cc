// The ops that only move memory, in bf16. Bytes are those that no implementation can avoid.
#include <algorithm>
#include <cstdint>
#include <iterator>
#include <string>
#include <utility>
#include <vector>

#include "absl/container/flat_hash_set.h"

#include "model/ops/cross_entropy.h"
#include "model/ops/embedding.h"
#include "model/ops/residual.h"
#include "model/ops/rmsnorm.h"
#include "model/ops/rope.h"
#include "model/ops/swiglu.h"
#include "runtime/comm/reduce.h"
#include "runtime/math/word_hash.h"
#include "tests/bench/kernel_case.h"

namespace panthera::bench {
namespace {

using Kind = KernelCall::Output::Kind;
using Make = std::function<KernelCall(Context&, Operands&)>;

constexpr DType kType = DType::kBF16;
constexpr float kEps = 1e-5F;
// Ranks that a model's width and vocabulary are divided among, where an op sees one rank's slice.
constexpr int64_t kSlices = 8;

// `elements` of bf16, and `words` of four bytes.
double Bytes(int64_t elements, int64_t words = 0) {
  return static_cast<double>(elements * SizeOf(kType) + words * SizeOf(DType::kF32));
}

KernelCase Case(const std::string& kernel, const ModelShape& model, double bytes, Make make) {
  return {.kernel = kernel,
          .shape = model.name,
          .dtype = kType,
          .work = {.flops = 0, .bytes = bytes},
          .make = std::move(make)};
}

// A table, or what a rank has of it.
struct TableRows {
  VocabularySlice slice;
  int64_t count;

  // Those of `tokens` whose rows are here.
  std::vector<int32_t> Among(const std::vector<int32_t>& tokens) const {
    std::vector<int32_t> own;
    std::copy_if(tokens.begin(), tokens.end(), std::back_inserter(own), [this](int32_t token) {
      return token >= slice.first && token < slice.first + count;
    });
    return own;
  }
};
TableRows AllRows(const ModelShape& m) { return {{0, m.columns}, m.columns}; }
TableRows RowsOfARank(const ModelShape& m) {
  const int64_t count = m.columns / kSlices;
  return {{kSlices / 2 * count, m.columns}, count};
}

// Rows of tokens that are here are read, all are written.
KernelCase EmbeddingForwardCase(const std::string& kernel, const ModelShape& m,
                                const TableRows& rows) {
  const std::vector<int32_t> tokens = NoiseTokens(m.tokens, m.vocab_size, 1);
  const auto own = static_cast<int64_t>(rows.Among(tokens).size());
  return Case(kernel, m, Bytes((own + m.tokens) * m.width, m.tokens),
              [m, rows, tokens](Context& ctx, Operands& operands) -> KernelCall {
                const Tensor ids = operands.Tokens(tokens);
                const Tensor table = operands.Noise({rows.count, m.width}, kType);
                const Tensor out = operands.Poisoned({m.tokens, m.width}, kType);
                return {[&ctx, rows, ids, table, out] {
                          EmbeddingForward(ctx, ids, table, rows.slice, out);
                        },
                        {{out}}};
              });
}

KernelCase EmbeddingBackwardCase(const std::string& kernel, const ModelShape& m,
                                 const TableRows& rows) {
  const std::vector<int32_t> tokens = NoiseTokens(m.tokens, m.vocab_size, 2);
  const std::vector<int32_t> own = rows.Among(tokens);
  // Rows of tokens that occur are read and written in fp32.
  const absl::flat_hash_set<int32_t> distinct(own.begin(), own.end());
  const auto changed = static_cast<int64_t>(distinct.size());
  return Case(kernel, m,
              Bytes(static_cast<int64_t>(own.size()) * m.width, 2 * changed * m.width + m.tokens),
              [m, rows, tokens](Context& ctx, Operands& operands) -> KernelCall {
                const Tensor ids = operands.Tokens(tokens);
                const Tensor dout = operands.Noise({m.tokens, m.width}, kType);
                const Tensor dtable = operands.Zeros({rows.count, m.width}, DType::kF32);
                return {[&ctx, rows, ids, dout, dtable] {
                          EmbeddingBackward(ctx, ids, dout, rows.slice, {dtable, Accumulate::kAdd});
                        },
                        {{dtable, Kind::kChanged}}};
              });
}

KernelCase RmsNormCase(const ModelShape& m) {
  return Case(
      "rmsnorm_forward", m, Bytes(2 * m.tokens * m.width, m.tokens),
      [m](Context& ctx, Operands& operands) -> KernelCall {
        const Tensor x = operands.Noise({m.tokens, m.width}, kType);
        const Tensor gain = operands.Noise({m.width}, DType::kF32);
        const Tensor y = operands.Poisoned({m.tokens, m.width}, kType);
        const Tensor rstd = operands.Poisoned({m.tokens}, DType::kF32);
        return {[&ctx, x, gain, y, rstd] { RmsNorm(ctx, x, gain, kEps, y, rstd); }, {{y}, {rstd}}};
      });
}

KernelCase AddRmsNormCase(const ModelShape& m) {
  return Case("add_rmsnorm_forward", m, Bytes(4 * m.tokens * m.width, m.tokens),
              [m](Context& ctx, Operands& operands) -> KernelCall {
                const Tensor x = operands.Noise({m.tokens, m.width}, kType);
                const Tensor branch = operands.Noise({m.tokens, m.width}, kType);
                const Tensor gain = operands.Noise({m.width}, DType::kF32);
                const Tensor sum = operands.Poisoned({m.tokens, m.width}, kType);
                const Tensor y = operands.Poisoned({m.tokens, m.width}, kType);
                const Tensor rstd = operands.Poisoned({m.tokens}, DType::kF32);
                return {[&ctx, x, branch, gain, sum, y, rstd] {
                          AddRmsNorm(ctx, x, branch, gain, kEps, sum, y, rstd);
                        },
                        {{sum}, {y}, {rstd}}};
              });
}

KernelCase RmsNormBackwardCase(const ModelShape& m) {
  return Case("rmsnorm_backward", m, Bytes(4 * m.tokens * m.width, m.tokens),
              [m](Context& ctx, Operands& operands) -> KernelCall {
                const Tensor dy = operands.Noise({m.tokens, m.width}, kType);
                const Tensor x = operands.Noise({m.tokens, m.width}, kType);
                const Tensor dresidual = operands.Noise({m.tokens, m.width}, kType);
                const Tensor gain = operands.Noise({m.width}, DType::kF32);
                const Tensor rstd = operands.Noise({m.tokens}, DType::kF32);
                const Tensor dx = operands.Poisoned({m.tokens, m.width}, kType);
                const Tensor dgain = operands.Poisoned({m.width}, DType::kF32);
                return {[&ctx, dy, x, dresidual, gain, rstd, dx, dgain] {
                          RmsNormBackward(ctx, dy, x, gain, rstd, dresidual, dx,
                                          {dgain, Accumulate::kOverwrite});
                        },
                        {{dx}, {dgain}}};
              });
}

// The queries and keys of a layer, in place, as the model turns them; the tables are small.
KernelCase RotateCase(const ModelShape& m) {
  return Case("rope_forward", m, Bytes(4 * m.tokens * m.width),
              [m](Context& ctx, Operands& operands) -> KernelCall {
                const Shape shape{m.tokens / m.sequence, m.sequence, 2 * m.heads, m.head_width};
                const Tensor x = operands.Noise(shape, kType);
                const RotaryTable table{
                    operands.Noise({m.sequence, m.head_width / 2}, DType::kF32),
                    operands.Noise({m.sequence, m.head_width / 2}, DType::kF32)};
                return {[&ctx, x, table] { Rotate(ctx, Rotation::kForward, x, table, x); },
                        {{x, Kind::kChanged}}};
              });
}

KernelCase SwiGluCase(const ModelShape& m) {
  return Case("swiglu_forward", m, Bytes(3 * m.tokens * m.ffn_width),
              [m](Context& ctx, Operands& operands) -> KernelCall {
                const Tensor gate_up = operands.Noise({m.tokens, 2 * m.ffn_width}, kType);
                const Tensor out = operands.Poisoned({m.tokens, m.ffn_width}, kType);
                return {[&ctx, gate_up, out] { SwiGlu(ctx, gate_up, out); }, {{out}}};
              });
}

KernelCase SwiGluBackwardCase(const ModelShape& m) {
  return Case(
      "swiglu_backward", m, Bytes(5 * m.tokens * m.ffn_width),
      [m](Context& ctx, Operands& operands) -> KernelCall {
        const Tensor dout = operands.Noise({m.tokens, m.ffn_width}, kType);
        const Tensor gate_up = operands.Noise({m.tokens, 2 * m.ffn_width}, kType);
        const Tensor dgate_up = operands.Poisoned({m.tokens, 2 * m.ffn_width}, kType);
        return {[&ctx, dout, gate_up, dgate_up] { SwiGluBackward(ctx, dout, gate_up, dgate_up); },
                {{dgate_up}}};
      });
}

KernelCase CrossEntropyCase(const ModelShape& m) {
  const std::vector<int32_t> tokens = NoiseTokens(m.head_rows, m.vocab_size, 3);
  return Case("cross_entropy", m, Bytes(2 * m.head_rows * m.columns, 2 * m.head_rows),
              [m, tokens](Context& ctx, Operands& operands) -> KernelCall {
                const Tensor logits = operands.Noise({m.head_rows, m.columns}, kType);
                const Tensor targets = operands.Tokens(tokens);
                const Tensor losses = operands.Poisoned({m.head_rows}, DType::kF32);
                // Without a scale: what one call leaves behind are logits of the next.
                return {[&ctx, m, logits, targets, losses] {
                          CrossEntropy(ctx, logits, m.vocab_size, targets,
                                       CrossEntropyOutput::kLossAndGradient, 1, losses);
                        },
                        {{logits, Kind::kChanged}, {losses}}};
              });
}

// The logits that a rank has of its rows of the table.
int64_t ColumnsOfARank(const ModelShape& m) { return RowsOfARank(m).count; }

// Four numbers of eight bytes for each row.
constexpr int64_t kPartWords = 2 * kCrossEntropyPart;

KernelCase CrossEntropyPartCase(const ModelShape& m) {
  const std::vector<int32_t> tokens = NoiseTokens(m.head_rows, m.vocab_size, 3);
  return Case(
      "cross_entropy_part", m,
      Bytes(m.head_rows * ColumnsOfARank(m), m.head_rows * (1 + kPartWords)),
      [m, tokens](Context& ctx, Operands& operands) -> KernelCall {
        const int64_t columns = ColumnsOfARank(m);
        const Tensor logits = operands.Noise({m.head_rows, columns}, kType);
        const Tensor targets = operands.Tokens(tokens);
        const Tensor parts = operands.Poisoned({m.head_rows, kCrossEntropyPart}, DType::kF64);
        return {[&ctx, m, columns, logits, targets, parts] {
                  CrossEntropyPart(ctx, logits, RowsOfARank(m).slice, columns, targets, parts);
                },
                {{parts}}};
      });
}

// The parts of one rank are those of its logits; what the others have is zero.
KernelCase CrossEntropyFromPartsCase(const ModelShape& m) {
  const std::vector<int32_t> tokens = NoiseTokens(m.head_rows, m.vocab_size, 3);
  return Case(
      "cross_entropy_from_parts", m,
      Bytes(2 * m.head_rows * ColumnsOfARank(m), m.head_rows * (2 + kSlices * kPartWords)),
      [m, tokens](Context& ctx, Operands& operands) -> KernelCall {
        const int64_t columns = ColumnsOfARank(m);
        const VocabularySlice slice = RowsOfARank(m).slice;
        const Tensor logits = operands.Noise({m.head_rows, columns}, kType);
        const Tensor targets = operands.Tokens(tokens);
        const Tensor losses = operands.Poisoned({m.head_rows}, DType::kF32);
        const Tensor parts = operands.Zeros({kSlices, m.head_rows, kCrossEntropyPart}, DType::kF64);
        CrossEntropyPart(ctx, logits, slice, columns, targets,
                         parts.Slice(0, 1).Reshape({m.head_rows, kCrossEntropyPart}));
        return {[&ctx, columns, slice, logits, targets, parts, losses] {
                  CrossEntropyFromParts(ctx, logits, slice, columns, targets, parts,
                                        CrossEntropyOutput::kLossAndGradient, 1, losses);
                },
                {{logits, Kind::kChanged}, {losses}}};
      });
}

KernelCase AddCase(const ModelShape& m) {
  return Case("residual_add", m, Bytes(3 * m.tokens * m.width),
              [m](Context& ctx, Operands& operands) -> KernelCall {
                const Tensor a = operands.Noise({m.tokens, m.width}, kType);
                const Tensor b = operands.Noise({m.tokens, m.width}, kType);
                const Tensor out = operands.Poisoned({m.tokens, m.width}, kType);
                return {[&ctx, a, b, out] { Add(ctx, a, b, out); }, {{out}}};
              });
}

// The activations of one of kSlices ranks of a tensor-parallel group: what all of them have of it
// is summed.
KernelCase SumRowsCase(const ModelShape& m) {
  const int64_t rows = m.tokens / kSlices;
  return Case("sum_rows", m, Bytes((kSlices + 1) * rows * m.width),
              [m, rows](Context& ctx, Operands& operands) -> KernelCall {
                const Tensor contributions = operands.Noise({kSlices, rows, m.width}, kType);
                const Tensor out = operands.Poisoned({rows, m.width}, kType);
                return {[&ctx, contributions, out] {
                          SumRows(contributions, 1, Accumulate::kOverwrite, out, ctx.compute());
                        },
                        {{out}}};
              });
}

// Of the weights of the embedding; between steps.
KernelCase HashCase(const ModelShape& m) {
  return Case(
      "hash_words", m, Bytes(m.columns * m.width),
      [m](Context& ctx, Operands& operands) -> KernelCall {
        const Tensor x = operands.Noise({m.columns, m.width}, kType);
        const Tensor sum = operands.Zeros({1}, DType::kI64);
        return {[&ctx, x, sum] { HashWords(ctx.compute(), x, 0, sum); }, {{sum, Kind::kChanged}}};
      });
}

}  // namespace

std::vector<KernelCase> RowKernels(const ModelShape& model) {
  return {EmbeddingForwardCase("embedding_forward", model, AllRows(model)),
          EmbeddingForwardCase("embedding_slice_forward", model, RowsOfARank(model)),
          EmbeddingBackwardCase("embedding_backward", model, AllRows(model)),
          EmbeddingBackwardCase("embedding_slice_backward", model, RowsOfARank(model)),
          RmsNormCase(model),
          AddRmsNormCase(model),
          RmsNormBackwardCase(model),
          RotateCase(model),
          SwiGluCase(model),
          SwiGluBackwardCase(model),
          CrossEntropyCase(model),
          CrossEntropyPartCase(model),
          CrossEntropyFromPartsCase(model),
          AddCase(model),
          SumRowsCase(model),
          HashCase(model)};
}

KernelCase DeviceCopy(int64_t bytes) {
  return {.kernel = "copy",
          .shape = std::to_string(bytes >> 20) + " MiB",
          .dtype = DType::kBF16,
          .work = {.flops = 0, .bytes = 2 * static_cast<double>(bytes)},
          .make = [bytes](Context& ctx, Operands& operands) -> KernelCall {
            const Tensor from = operands.Noise({bytes / SizeOf(kType)}, kType);
            const Tensor to = operands.Poisoned({bytes / SizeOf(kType)}, kType);
            return {[&ctx, from, to] { Copy(ctx.compute(), from, to); }, {{to}}};
          }};
}

}  // namespace panthera::bench
