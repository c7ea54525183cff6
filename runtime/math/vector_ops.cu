#include "runtime/math/vector_ops.h"

#include <cstdint>

#include "runtime/base/shape.h"
#include "runtime/device/block_sum.cuh"
#include "runtime/device/launch.cuh"
#include "runtime/device/pack.cuh"
#include "runtime/device/shared_memory.cuh"
#include "runtime/math/cuda_kernels.h"

namespace panthera::cuda {
namespace {

constexpr unsigned kThreads = 256;

__device__ int64_t GlobalThread() {
  return static_cast<int64_t>(blockIdx.x) * kThreads + threadIdx.x;
}

LaunchShape OneThreadEach(int64_t count) {
  return {GridOf(CeilDiv(count, int64_t{kThreads})), dim3(kThreads)};
}

// One block of kAddSumLanes threads.
template <typename T>
__global__ void __launch_bounds__(kAddSumLanes)
    AddSumKernel(const T* x, int64_t count, double* sum) {
  PANTHERA_SHARED_ARRAY(double, scratch, kMostWarps);
  double lane = 0;
  for (int64_t i = threadIdx.x; i < count; i += kAddSumLanes) {
    lane += static_cast<double>(x[i]);
  }
  const double total = BlockSum(lane, scratch);
  if (threadIdx.x == 0) {
    sum[0] += total;
  }
}

template <typename T>
__global__ void AddColumnSumsKernel(const T* x, int64_t rows, int64_t columns, double* sums) {
  const int64_t column = GlobalThread();
  if (column >= columns) {
    return;
  }
  double sum = sums[column];
  for (int64_t row = 0; row < rows; ++row) {
    sum += static_cast<double>(x[row * columns + column]);
  }
  sums[column] = sum;
}

// Packs that a thread looks at, so that loads overlap and few blocks meet at the one result.
constexpr int64_t kMaxAbsPacks = 8;

// `largest` is a bit pattern that is 0 at first. As integers, the patterns of magnitudes have the
// order of the magnitudes, every NaN above infinity, and their largest depends on no order.
template <typename T, int kPack>
__global__ void MaxAbsKernel(const T* x, int64_t packs, unsigned* largest) {
  PANTHERA_SHARED_ARRAY(unsigned, scratch, kMostWarps);
  using Elements = Pack<T, kPack>;
  const auto larger = [](unsigned a, unsigned b) { return a > b ? a : b; };
  const int64_t first = static_cast<int64_t>(blockIdx.x) * (kThreads * kMaxAbsPacks) + threadIdx.x;
  unsigned mine = 0;
#pragma unroll
  for (int64_t step = 0; step < kMaxAbsPacks; ++step) {
    const int64_t index = first + step * kThreads;
    if (index < packs) {
      const Elements value = Elements::Load(x + index * kPack);
#pragma unroll
      for (int i = 0; i < kPack; ++i) {
        mine = larger(mine, __float_as_uint(value.values[i]) & 0x7FFFFFFFU);
      }
    }
  }
#pragma unroll
  for (int offset = kWarpThreads / 2; offset > 0; offset /= 2) {
    mine = larger(mine, __shfl_xor_sync(kWholeWarp, mine, offset));
  }
  mine = CombineWarps(mine, scratch, larger);
  if (threadIdx.x == 0) {
    atomicMax(largest, mine);
  }
}

// kPack: elements of `out`; a pack of `in` has as many or half as many.
template <int kPack>
__global__ void RoundToBf16Kernel(const float* in, int64_t packs, BF16* out) {
  constexpr int kLoaded = kPack < 4 ? kPack : 4;
  const int64_t index = GlobalThread();
  if (index >= packs) {
    return;
  }
  Pack<BF16, kPack> rounded;
#pragma unroll
  for (int begin = 0; begin < kPack; begin += kLoaded) {
    const auto loaded = Pack<float, kLoaded>::Load(in + index * kPack + begin);
#pragma unroll
    for (int i = 0; i < kLoaded; ++i) {
      rounded.values[begin + i] = loaded.values[i];
    }
  }
  rounded.Store(out + index * kPack);
}

template <int kPack>
__global__ void ScaleKernel(float factor, int64_t packs, float* x) {
  using Elements = Pack<float, kPack>;
  const int64_t index = GlobalThread();
  if (index >= packs) {
    return;
  }
  Elements value = Elements::Load(x + index * kPack);
#pragma unroll
  for (int i = 0; i < kPack; ++i) {
    value.values[i] *= factor;
  }
  value.Store(x + index * kPack);
}

// Calls function.operator()<T>() with the type of a tensor of numbers to add.
template <typename Function>
void DispatchSummand(DType dtype, Function&& function) {
  if (dtype == DType::kI32) {
    function.template operator()<int32_t>();
  } else {
    function.template operator()<float>();
  }
}

}  // namespace

void AddSum(Stream& stream, const Tensor& x, Tensor sum) {
  DispatchSummand(x.dtype(), [&]<typename T>() {
    Launch(stream, {dim3(1), dim3(static_cast<unsigned>(kAddSumLanes))}, &AddSumKernel<T>,
           x.data<T>(), x.elements(), sum.data<double>());
  });
}

void AddColumnSums(Stream& stream, const Tensor& x, Tensor sums) {
  DispatchSummand(x.dtype(), [&]<typename T>() {
    Launch(stream, OneThreadEach(x.size(1)), &AddColumnSumsKernel<T>, x.data<T>(), x.size(0),
           x.size(1), sums.data<double>());
  });
}

void MaxAbs(Stream& stream, const Tensor& x, Tensor largest) {
  SetZeroAsync(stream.handle(), largest.bytes_data(), largest.bytes());
  if (x.elements() == 0) {
    return;
  }
  DispatchPack(x.dtype(), IsPackable(x.elements(), x), [&]<typename T, int kPack>() {
    const int64_t packs = x.elements() / kPack;
    Launch(stream, {GridOf(CeilDiv(packs, kThreads * kMaxAbsPacks)), dim3(kThreads)},
           &MaxAbsKernel<T, kPack>, x.data<T>(), packs,
           reinterpret_cast<unsigned*>(largest.data<float>()));
  });
}

void RoundToBf16(Stream& stream, const Tensor& in, Tensor out) {
  const auto launch = [&](auto kernel, int64_t pack) {
    const int64_t packs = in.elements() / pack;
    Launch(stream, OneThreadEach(packs), kernel, in.data<float>(), packs, out.data<BF16>());
  };
  if (IsPackable(in.elements(), in, out)) {
    launch(&RoundToBf16Kernel<8>, 8);
  } else {
    launch(&RoundToBf16Kernel<1>, 1);
  }
}

void Scale(Stream& stream, float factor, Tensor x) {
  const auto launch = [&](auto kernel, int64_t pack) {
    const int64_t packs = x.elements() / pack;
    Launch(stream, OneThreadEach(packs), kernel, factor, packs, x.data<float>());
  };
  if (IsPackable(x.elements(), x)) {
    launch(&ScaleKernel<4>, 4);
  } else {
    launch(&ScaleKernel<1>, 1);
  }
}

}  // namespace panthera::cuda
