#ifndef PANTHERA_MODEL_OPS_ATTENTION_H_
#define PANTHERA_MODEL_OPS_ATTENTION_H_

#include <cstdint>
#include <limits>
#include <optional>
#include <span>

#include "model/ops/heads.h"
#include "model/ops/rope.h"
#include "runtime/device/tensor.h"
#include "runtime/math/context.h"

namespace panthera {

// A range of distances between a query and a key, with the queries and keys that are compared at
// these distances. Query row r stands at position i = Tk - Tq + r, so that the last query sees the
// last key; key row j stands at j. Schemes of attention are lists of bands:
//
//   causal              {0, unbounded}
//   sliding window W    {0, W}
//   ReRoPE with w       {0, w} with rotated q and k, {w, unbounded} with q all turned to position w
//                       and k not at all (Su 2023, https://kexue.fm/archives/9708)
struct AttentionBand {
  static constexpr int64_t kUnbounded = std::numeric_limits<int64_t>::max();

  Heads q;  // [B, Tq, H, D], rotated
  Heads k;  // [B, Tk, K, D], rotated
  // A query at i sees keys j with begin <= i - j < end.
  int64_t begin = 0;
  int64_t end = kUnbounded;
  // How q and k were rotated: Tq and Tk rows. Needed by the backward pass only, which undoes it;
  // none if they were not.
  std::optional<RotaryTable> q_rotation = std::nullopt;
  std::optional<RotaryTable> k_rotation = std::nullopt;
};

// Grouped-query attention (Ainslie et al. 2023, arXiv:2305.13245) with one softmax over all bands.
// Query head h reads key/value head h / (H/K); s below runs over the bands' visible keys.
//
//   s[i,j]  = scale * <q_band[i], k_band[j]>   of the band that holds i - j
//   out[i]  = sum_j exp(s[i,j] - lse[i]) * v[j],   lse[i] = log(sum_j exp(s[i,j]))
//   v [B, Tk, K, D], out [B, Tq, H, D]  the type of q and k   lse [B, H, Tq] kF32
//
// Bands come in ascending order, the first begins at 0 and each next where the one before ends;
// Tq <= Tk. out and lse are overwritten and overlap no input.
//
// Works through the query rows in blocks, for each block over the keys that it can see (Dao et al.
// 2022, arXiv:2205.14135, with the row of scores held at once): products with fp32 sums, softmax in
// fp32, probabilities rounded to the compute type for their product with v. Threads share the work
// by (b, key/value head); no sum depends on their number. Arena scratch: for every thread,
// proportional to Tk, never to Tq * Tk; none on a GPU.
void AttentionForward(Context& ctx, std::span<const AttentionBand> bands, const Heads& v,
                      float scale, Heads out, Tensor lse);

// Gradients of q and k before rotation, and of v, with P = exp(s - lse), the sum over all bands:
//
//   dv[j] = sum_i P[i,j] * dout[i]
//   ds[i,j] = P[i,j] * (<dout[i], v[j]> - <dout[i], out[i]>)
//   dq[i] = sum_bands Rq_i^-1 (scale * sum_j ds[i,j] * k_band[j])
//   dk[j] = sum_bands Rk_j^-1 (scale * sum_i ds[i,j] * q_band[i])
//   dout, dq  [B, Tq, H, D]   dk, dv  [B, Tk, K, D]  the type of q and k   out, lse  from forward
//
// dk and dv are summed over the H/K query heads in head order, in fp32. dq, dk and dv are
// overwritten and may be columns of one matrix. dq may be the q of a band, dk the k of a band and
// dv may be v; otherwise they overlap no input. Scratch and threads as above; on a GPU 4 B H Tq
// bytes, and room for dq where it overlaps the q of a band, which a plan does not see.
void AttentionBackward(Context& ctx, const Heads& dout, std::span<const AttentionBand> bands,
                       const Heads& v, const Heads& out, const Tensor& lse, float scale, Heads dq,
                       Heads dk, Heads dv);

}  // namespace panthera

#endif  // PANTHERA_MODEL_OPS_ATTENTION_H_
