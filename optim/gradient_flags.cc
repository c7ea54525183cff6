#include "optim/gradient_flags.h"

#include <algorithm>
#include <atomic>
#include <bit>

#include "optim/cuda_kernels.h"
#include "optim/shard_blocks.h"
#include "runtime/base/check.h"
#include "runtime/base/simd.h"
#include "runtime/math/op_times.h"
#include "runtime/math/rows.h"
#include "runtime/math/vector_ops.h"

namespace panthera {
namespace {

// All exponent bits are set in infinities and NaNs, and in nothing else.
PANTHERA_SIMD bool AllFinite(const float* row, int64_t count) {
  constexpr uint32_t kExponent = 0x7F800000U;
  uint32_t found = 0;
  for (int64_t i = 0; i < count; ++i) {
    found |= (std::bit_cast<uint32_t>(row[i]) & kExponent) == kExponent ? 1U : 0U;
  }
  return found == 0;
}

// Whether sum_r contributions[r] is finite in a block of this rank's shard.
bool SumIsFinite(const Tensor& contributions, const ShardBlock& block) {
  const int64_t ranks = contributions.size(0);
  const int64_t row = contributions.size(1);
  const Tensor flat = contributions.Reshape({ranks * row});
  bool finite = true;
  ForEachChunk(block.elements, [&](int64_t offset, int64_t count) {
    float sum[kChunkElements];
    const int64_t begin = block.shard_begin + offset;
    LoadRow(flat, begin, count, sum);
    for (int64_t rank = 1; rank < ranks; ++rank) {
      AddRow(flat, rank * row + begin, count, sum);
    }
    finite = finite && AllFinite(sum, count);
  });
  return finite;
}

}  // namespace

GradientFlags::GradientFlags(NonFinitePolicy policy, Context& ctx, const ParameterStore& store,
                             MeshAxes axes)
    : ctx_(ctx), store_(store), axes_(axes) {
  CHECK(policy != NonFinitePolicy::kAuto) << "options must be finished";
  if (policy == NonFinitePolicy::kStop) {
    return;
  }
  const int64_t params = store.num_params();
  const bool counts = policy == NonFinitePolicy::kTiger;
  const int64_t count_bytes = counts ? params * SizeOf(DType::kI32) : 0;
  memory_ = Buffer(ctx.device(), ctx.ledger(), MemoryCategory::kCommunication, "gradient flags",
                   count_bytes + params);
  flags_ = memory_.View({params}, DType::kU8, count_bytes);
  if (!counts) {
    return;
  }
  counts_ = memory_.View({params}, DType::kI32);
  places_.resize(static_cast<size_t>(params));
  int64_t largest = 0;
  for (int i = 0; i < store.num_groups(); ++i) {
    int64_t place = 0;
    for (const ParamId id : store.layout(GroupId{i}).params) {
      places_[static_cast<size_t>(id.index)] = place++;
    }
    largest = std::max(largest, place);
  }
  const int64_t ranks = int64_t{axes.tensor_size()} * axes.data().size();
  gathered_ = axes.data().Allocate(ctx.device(), ctx.ledger(), MemoryCategory::kCommunication,
                                   "gradient flags", ranks * largest * SizeOf(DType::kI32));
}

void GradientFlags::Clear() {
  SetZero(ctx_.compute(), flags_);
  SetZero(ctx_.compute(), counts_);
}

void GradientFlags::Mark(Stream& stream, GroupId group, const Tensor& contributions) {
  CHECK_GT(counts_.elements(), 0) << "only nonfinite = \"tiger\" marks groups";
  const GroupLayout& layout = store_.layout(group);
  CHECK_SHAPE(contributions, contributions.size(0), layout.shard_elements);
  const auto tensors = static_cast<int64_t>(layout.params.size());
  const int64_t slices = axes_.tensor_size();
  const int64_t ranks = axes_.data().size();
  const int64_t slice = axes_.tensor_rank();
  const Tensor all = gathered_.View({slices * ranks, tensors}, DType::kI32);
  const Tensor of_slice = all.Slice(slice * ranks, (slice + 1) * ranks);
  const int rank = axes_.data().rank();
  const Tensor own = of_slice.Slice(rank, rank + 1).Reshape({tensors});
  const OpTimer timer(ctx_, {Op::kFold}, {.bytes = Traffic({contributions})});
  SetZero(stream, own);
  if (ctx_.device().is_cuda()) {
    cuda::MarkNonFinite(stream, store_, group, contributions, own);
  } else if (ctx_.device().is_cpu()) {
    ForEachBlock(store_, group, [&](const ShardBlock& block) {
      if (!SumIsFinite(contributions, block)) {
        const int64_t place = places_[static_cast<size_t>(block.param.index)];
        // Blocks of one tensor may be in several threads' hands.
        std::atomic_ref<int32_t>(own.data<int32_t>()[place]).store(1);
      }
    });
  }
  axes_.data().AllGather(own, of_slice, stream);
  if (slices > 1) {
    axes_.tensor().AllGather(of_slice, all.Reshape({slices, ranks * tensors}), stream);
  }
  if (ctx_.device().is_cuda()) {
    cuda::MergeFlags(stream, layout.params, all, flags_, counts_);
  } else if (ctx_.device().is_cpu()) {
    MergeFlags(layout.params, all);
  }
}

void GradientFlags::MergeFlags(std::span<const ParamId> params, const Tensor& gathered) {
  const int64_t tensors = gathered.size(1);
  for (int64_t i = 0; i < tensors; ++i) {
    int32_t found = 0;
    for (int64_t rank = 0; rank < gathered.size(0); ++rank) {
      found |= gathered.data<int32_t>()[rank * tensors + i];
    }
    const int index = params[static_cast<size_t>(i)].index;
    flags_.data<uint8_t>()[index] = found != 0 ? 1 : 0;
    counts_.data<int32_t>()[index] += found != 0 ? 1 : 0;
  }
}

}  // namespace panthera
