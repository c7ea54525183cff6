#include "runtime/comm/reduce.h"

#include <algorithm>
#include <cstddef>
#include <vector>

#include "runtime/base/check.h"
#include "runtime/base/dtype.h"
#include "runtime/base/parallel_for.h"
#include "runtime/base/simd.h"
#include "runtime/comm/cuda_kernels.h"
#include "runtime/math/rows.h"

namespace panthera {
namespace {

// Sums of this many columns stay in the first-level cache while the rows go by.
constexpr int64_t kBlock = 1024;
constexpr int64_t kGrain = 16 * kBlock;

PANTHERA_SIMD void StoreScaled(const float* sum, int64_t count, float scale, float* out) {
  for (int64_t i = 0; i < count; ++i) {
    out[i] = scale * sum[i];
  }
}

PANTHERA_SIMD void StoreScaled(const float* sum, int64_t count, float scale, BF16* out) {
  for (int64_t i = 0; i < count; ++i) {
    out[i] = static_cast<BF16>(scale * sum[i]);
  }
}

PANTHERA_SIMD void AddScaled(const float* sum, int64_t count, float scale, float* out) {
  for (int64_t i = 0; i < count; ++i) {
    out[i] += scale * sum[i];
  }
}

// sum[i] = the sum over rows of element begin + i.
void SumColumns(const Tensor& rows, int64_t begin, int64_t count, float* sum) {
  const int64_t num_rows = rows.size(0);
  const int64_t width = rows.elements() / num_rows;
  LoadRow(rows, begin, count, sum);
  for (int64_t r = 1; r < num_rows; ++r) {
    AddRow(rows, r * width + begin, count, sum);
  }
}

// All ranks' values, one row for each rank. Empty on kMeta.
template <typename T>
std::vector<T> GatherRows(Communicator& comm, std::span<const T> values, Stream& stream) {
  const int64_t count = static_cast<int64_t>(values.size());
  const Shape shape{comm.size(), count};
  if (stream.device().is_meta()) {
    const Tensor all(nullptr, shape, DTypeOf<T>::value, stream.device());
    comm.AllGather(all.Slice(comm.rank(), comm.rank() + 1), all, stream);
    return {};
  }
  CHECK(stream.device().is_cpu()) << stream.device();
  std::vector<T> rows(static_cast<size_t>(shape.elements()));
  std::copy(values.begin(), values.end(), rows.begin() + comm.rank() * count);
  const Tensor all(rows.data(), shape, DTypeOf<T>::value, stream.device());
  comm.AllGather(all.Slice(comm.rank(), comm.rank() + 1), all, stream);
  return rows;
}

// values[i] = combine(...combine(combine(v_0[i], v_1[i]), v_2[i])...).
template <typename T, typename Combine>
void AllReduceAlong(Communicator& comm, std::span<T> values, Stream& stream,
                    const Combine& combine) {
  const std::vector<T> rows = GatherRows<T>(comm, values, stream);
  if (rows.empty()) {
    return;
  }
  for (size_t i = 0; i < values.size(); ++i) {
    T result = rows[i];
    for (size_t r = 1; r < static_cast<size_t>(comm.size()); ++r) {
      result = combine(result, rows[r * values.size() + i]);
    }
    values[i] = result;
  }
}

// Along both axes.
template <typename T, typename Combine>
void AllReduce(const MeshAxes& axes, std::span<T> values, Stream& stream, const Combine& combine) {
  AllReduceAlong(axes.data(), values, stream, combine);
  if (axes.tensor_size() > 1) {
    AllReduceAlong(axes.tensor(), values, stream, combine);
  }
}

}  // namespace

void SumRows(const Tensor& contributions, float scale, Accumulate accumulate, Tensor out,
             Stream& stream) {
  CHECK_GE(contributions.shape().rank(), 1);
  CHECK_GE(contributions.size(0), 1);
  CHECK_EQ(contributions.elements(), contributions.size(0) * out.elements())
      << contributions.shape() << " into " << out.shape();
  CHECK(contributions.dtype() == DType::kF32 || contributions.dtype() == DType::kBF16)
      << contributions.dtype();
  CHECK(out.dtype() == DType::kF32 ||
        (out.dtype() == DType::kBF16 && accumulate == Accumulate::kOverwrite))
      << out.dtype();
  CHECK_EQ(contributions.device(), stream.device());
  CHECK_EQ(out.device(), stream.device());
  if (stream.device().is_meta() || out.elements() == 0) {
    return;
  }
  if (stream.device().is_cuda()) {
    cuda::SumRows(contributions, scale, accumulate, out, stream);
    return;
  }
  ParallelFor(out.elements(), kGrain, [&](int64_t begin, int64_t end) {
    float sum[kBlock];
    for (int64_t block = begin; block < end; block += kBlock) {
      const int64_t count = std::min(kBlock, end - block);
      SumColumns(contributions, block, count, sum);
      if (accumulate == Accumulate::kAdd) {
        AddScaled(sum, count, scale, out.data<float>() + block);
      } else {
        DispatchFloat(out.dtype(), [&]<typename Out>() {
          StoreScaled(sum, count, scale, out.data<Out>() + block);
        });
      }
    }
  });
}

void AllReduceSum(const MeshAxes& axes, std::span<double> values, Stream& stream) {
  AllReduce(axes, values, stream, [](double a, double b) { return a + b; });
}

void AllReduceOr(const MeshAxes& axes, std::span<uint8_t> flags, Stream& stream) {
  AllReduce(axes, flags, stream, [](uint8_t a, uint8_t b) { return static_cast<uint8_t>(a | b); });
  if (!stream.device().is_meta()) {
    for (uint8_t& flag : flags) {
      flag = flag != 0 ? 1 : 0;
    }
  }
}

}  // namespace panthera
