// Sums over ranks. Communicators only move bytes; all arithmetic between ranks is here, in rank
// order, so that every communicator, device and thread count gives the same bits.
#ifndef PANTHERA_RUNTIME_COMM_REDUCE_H_
#define PANTHERA_RUNTIME_COMM_REDUCE_H_

#include <cstdint>
#include <span>

#include "runtime/comm/communicator.h"
#include "runtime/comm/mesh_axes.h"
#include "runtime/device/stream.h"
#include "runtime/device/tensor.h"
#include "runtime/math/gemm.h"

namespace panthera {

// The sum over rows: out[i] = scale * (((c[0][i] + c[1][i]) + c[2][i]) + ... + c[R-1][i]) with
// kOverwrite; out[i] += the same with kAdd.
//
//   contributions  [R, ...], R >= 1, fp32 or bf16
//   out            fp32, or bf16 with kOverwrite; as many elements as one row, not overlapping
//                  contributions
//
// Every addition and the product are rounded to fp32 once, and the scaled sum to bf16, to nearest
// even, where `out` is that: the same bits on every device. On a GPU the work is enqueued on
// `stream`.
void SumRows(const Tensor& contributions, float scale, Accumulate accumulate, Tensor out,
             Stream& stream);

// The following two are for a few host numbers per step, on a stream of the CPU: an all-gather,
// then a loop in rank order, along the data axis and then, if there is one, along the tensor axis.
// All ranks of the mesh pass the same count and get the same bits. On a stream of kMeta they count
// the traffic and leave the values alone. May block on the peers.

// values[i] = (((v_0[i] + v_1[i]) + v_2[i]) + ...), v_r being rank r's values, on either axis.
void AllReduceSum(const MeshAxes& axes, std::span<double> values, Stream& stream);
// flags[i] = 1 if any rank's flag i is not 0, else 0.
void AllReduceOr(const MeshAxes& axes, std::span<uint8_t> flags, Stream& stream);

}  // namespace panthera

#endif  // PANTHERA_RUNTIME_COMM_REDUCE_H_
