#ifndef PANTHERA_MODEL_OPS_ROPE_H_
#define PANTHERA_MODEL_OPS_ROPE_H_

#include <cstdint>

#include "model/ops/heads.h"
#include "runtime/device/tensor.h"
#include "runtime/math/context.h"

namespace panthera {

// Rotary position embedding (Su et al. 2021, arXiv:2104.09864), with the pairs that Llama
// checkpoints in the Hugging Face format use: feature c turns with feature c + D/2.
//
// A table holds cosine and sine of position(t) * base^(-2c/D) for row t and pair c < D/2.
struct RotaryTable {
  Tensor cos;  // [T, D/2] kF32
  Tensor sin;  // [T, D/2] kF32

  // The table of rows [begin, end): how a decoder takes the positions it is at.
  RotaryTable Rows(int64_t begin, int64_t end) const {
    return {cos.Slice(begin, end), sin.Slice(begin, end)};
  }
};

// Fills a table in CPU memory for position(t) = first + step * t. A step of 1 is RoPE; 0 gives one
// position to all (the far keys and queries of ReRoPE), 1/k a slower clock (Leaky ReRoPE). Angles
// are computed in double and rounded once.
void FillRotaryTable(double first, double step, double base, RotaryTable table);

enum class Rotation : uint8_t { kForward, kInverse };

// For every head and pair c < D/2, with cos and sin of row t, negative sin with kInverse:
//
//   out[b,t,h,c]       = x[b,t,h,c] * cos - x[b,t,h,c + D/2] * sin
//   out[b,t,h,c + D/2] = x[b,t,h,c + D/2] * cos + x[b,t,h,c] * sin
//   x, out  heads of width D and one float type   table of T rows
//
// out is overwritten and may be x. The inverse is also the gradient of the rotation.
void Rotate(Context& ctx, Rotation rotation, const Heads& x, const RotaryTable& table, Heads out);

}  // namespace panthera

#endif  // PANTHERA_MODEL_OPS_ROPE_H_
