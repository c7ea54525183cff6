// Attention in the shapes of models, and over lengths, head widths and schemes. Work counts the
// pairs that see each other: four operations per column forward, ten backward.
#include <algorithm>
#include <cmath>
#include <cstdint>
#include <string>
#include <vector>

#include "absl/strings/str_format.h"

#include "model/ops/attention.h"
#include "tests/bench/kernel_case.h"

namespace panthera::bench {
namespace {

constexpr DType kType = DType::kBF16;
constexpr int64_t kUnbounded = AttentionBand::kUnbounded;

enum class Scheme : uint8_t { kCausal, kWindow, kReRope };

struct AttentionShape {
  std::string name;
  int64_t batch;
  int64_t tokens;
  int64_t heads;
  int64_t width;
  Scheme scheme = Scheme::kCausal;
  // Of kWindow its size, of kReRope the distance from which on positions stand still.
  int64_t distance = 0;
};

// Pairs of a query and a key that it sees, of one head of one sequence.
int64_t Pairs(const AttentionShape& shape) {
  const int64_t window =
      shape.scheme == Scheme::kWindow ? std::min(shape.distance, shape.tokens) : shape.tokens;
  return window * (window + 1) / 2 + (shape.tokens - window) * window;
}

double ProductFlops(const AttentionShape& shape) {
  return 2 * static_cast<double>(shape.batch * shape.heads * shape.width) *
         static_cast<double>(Pairs(shape));
}

// The tensors of a layer's attention, and its bands. Rotations stand in the backward pass, which
// undoes them.
struct Problem {
  Problem(const AttentionShape& shape, Context& ctx, Operands& operands)
      : scale(1 / std::sqrt(static_cast<float>(shape.width))),
        v(operands.Noise({shape.batch, shape.tokens, shape.heads, shape.width}, kType)),
        out(operands.Poisoned(v.shape(), kType)),
        lse(operands.Poisoned({shape.batch, shape.heads, shape.tokens}, DType::kF32)) {
    const RotaryTable table = Table(shape, 1, ctx, operands);
    const auto heads = [&] { return operands.Noise(v.shape(), kType); };
    AttentionBand near{.q = heads(), .k = heads(), .q_rotation = table, .k_rotation = table};
    if (shape.scheme == Scheme::kCausal) {
      bands = {near};
      return;
    }
    near.end = shape.distance;
    bands = {near};
    if (shape.scheme == Scheme::kReRope) {
      bands.push_back({.q = heads(),
                       .k = heads(),
                       .begin = shape.distance,
                       .end = kUnbounded,
                       .q_rotation = Table(shape, 0, ctx, operands)});
    }
  }

  static RotaryTable Table(const AttentionShape& shape, double step, Context& ctx,
                           Operands& operands) {
    const Device cpu{DeviceKind::kCpu, 0};
    const Shape size{shape.tokens, shape.width / 2};
    const int64_t bytes = size.elements() * SizeOf(DType::kF32);
    const Buffer cos(cpu, ctx.ledger(), MemoryCategory::kData, "cos", bytes);
    const Buffer sin(cpu, ctx.ledger(), MemoryCategory::kData, "sin", bytes);
    const RotaryTable host{cos.View(size, DType::kF32), sin.View(size, DType::kF32)};
    FillRotaryTable(static_cast<double>(shape.distance) * (1 - step), step, 10000, host);
    return {operands.CopyOf(host.cos), operands.CopyOf(host.sin)};
  }

  float scale;
  Tensor v;
  Tensor out;
  Tensor lse;
  std::vector<AttentionBand> bands;
};

KernelCase ForwardCase(const AttentionShape& shape) {
  return {.kernel = "attention_forward",
          .shape = shape.name,
          .dtype = kType,
          .work = {.flops = 2 * ProductFlops(shape), .bytes = 0},
          .make = [shape](Context& ctx, Operands& operands) -> KernelCall {
            const Problem x(shape, ctx, operands);
            return {[&ctx, x] { AttentionForward(ctx, x.bands, x.v, x.scale, x.out, x.lse); },
                    {{x.out}, {x.lse}}};
          }};
}

KernelCase BackwardCase(const AttentionShape& shape) {
  return {.kernel = "attention_backward",
          .shape = shape.name,
          .dtype = kType,
          .work = {.flops = 5 * ProductFlops(shape), .bytes = 0},
          .make = [shape](Context& ctx, Operands& operands) -> KernelCall {
            const Problem x(shape, ctx, operands);
            AttentionForward(ctx, x.bands, x.v, x.scale, x.out, x.lse);
            const Tensor dout = operands.Noise(x.v.shape(), kType);
            const Tensor dq = operands.Poisoned(x.v.shape(), kType);
            const Tensor dk = operands.Poisoned(x.v.shape(), kType);
            const Tensor dv = operands.Poisoned(x.v.shape(), kType);
            return {[&ctx, x, dout, dq, dk, dv] {
                      AttentionBackward(ctx, dout, x.bands, x.v, x.out, x.lse, x.scale, dq, dk, dv);
                    },
                    {{dq}, {dk}, {dv}}};
          }};
}

std::vector<KernelCase> Sweep(const std::vector<int64_t>& lengths,
                              const std::vector<int64_t>& widths, int64_t tokens, int64_t columns,
                              int64_t window) {
  std::vector<KernelCase> cases;
  for (const int64_t width : widths) {
    for (const int64_t length : lengths) {
      AttentionShape shape{.name = absl::StrFormat("S=%d D=%d causal", length, width),
                           .batch = tokens / length,
                           .tokens = length,
                           .heads = columns / width,
                           .width = width};
      cases.push_back(ForwardCase(shape));
      cases.push_back(BackwardCase(shape));
      shape.scheme = Scheme::kReRope;
      shape.distance = length / 4;
      shape.name = absl::StrFormat("S=%d D=%d rerope", length, width);
      cases.push_back(ForwardCase(shape));
      cases.push_back(BackwardCase(shape));
      if (length <= window) {
        continue;
      }
      shape.scheme = Scheme::kWindow;
      shape.distance = window;
      shape.name = absl::StrFormat("S=%d D=%d window%d", length, width, window);
      cases.push_back(ForwardCase(shape));
      cases.push_back(BackwardCase(shape));
    }
  }
  return cases;
}

}  // namespace

std::vector<KernelCase> AttentionKernels(const ModelShape& model) {
  const AttentionShape shape{.name = model.name,
                             .batch = model.tokens / model.sequence,
                             .tokens = model.sequence,
                             .heads = model.heads,
                             .width = model.head_width};
  return {ForwardCase(shape), BackwardCase(shape)};
}

std::vector<KernelCase> AttentionSweep() {
  return Sweep({1024, 2048, 4096, 8192}, {64, 128}, 16384, 2048, 1024);
}

std::vector<KernelCase> DryAttentionSweep() { return Sweep({64, 32}, {64}, 64, 64, 32); }

}  // namespace panthera::bench
