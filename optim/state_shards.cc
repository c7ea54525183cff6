#include "optim/state_shards.h"

#include "optim/update_rules.h"
#include "runtime/base/simd.h"

namespace panthera {
namespace {

PANTHERA_SIMD void StoreBf16(const float* in, int64_t count, BF16* out) {
  for (int64_t i = 0; i < count; ++i) {
    out[i] = BF16(FlushTiny(in[i]));
  }
}

PANTHERA_SIMD void StoreFp32(const float* in, int64_t count, float* out) {
  for (int64_t i = 0; i < count; ++i) {
    out[i] = FlushTiny(in[i]);
  }
}

PANTHERA_SIMD void BlendInPlace(float keep, float take, const float* gradient, int64_t count,
                                float* momentum) {
  for (int64_t i = 0; i < count; ++i) {
    momentum[i] = Blend(keep, momentum[i], take, gradient[i]);
  }
}

PANTHERA_SIMD void Shrink(float centre, float factor, int64_t count, float* theta) {
  for (int64_t i = 0; i < count; ++i) {
    theta[i] = ShrinkTowards(centre, factor, theta[i]);
  }
}

PANTHERA_SIMD double SquaresOfRow(const float* in, int64_t count) {
  return SumTerms(count, [in](int64_t i) PANTHERA_INLINE { return in[i] * in[i]; });
}

}  // namespace

StateShards::StateShards(Context& ctx, const ParameterStore& store, std::span<const GroupId> groups,
                         MemoryCategory category, const char* name, DType dtype)
    : name_(name) {
  for (const GroupId group : groups) {
    const int64_t elements = store.layout(group).shard_elements;
    buffers_.emplace_back(ctx.device(), ctx.ledger(), category, name, elements * SizeOf(dtype));
    shards_.emplace(group, buffers_.back().View({elements}, dtype));
  }
}

void StateShards::ForEach(Optimizer::StateVisitor visit) const {
  for (const auto& [group, shard] : shards_) {
    visit(name_, group, shard);
  }
}

DType StateDType(MomentumStorage storage) {
  return storage == MomentumStorage::kBf16 ? DType::kBF16 : DType::kF32;
}

void StoreState(const Tensor& tensor, int64_t begin, int64_t count, const float* in) {
  if (tensor.dtype() == DType::kBF16) {
    StoreBf16(in, count, tensor.data<BF16>() + begin);
  } else {
    StoreFp32(in, count, tensor.data<float>() + begin);
  }
}

void BlendRow(float keep, float take, const float* gradient, int64_t count, float* momentum) {
  BlendInPlace(keep, take, gradient, count, momentum);
}

void ShrinkRow(float centre, float factor, int64_t count, float* theta) {
  Shrink(centre, factor, count, theta);
}

double SumOfSquares(const float* in, int64_t count) { return SquaresOfRow(in, count); }

}  // namespace panthera
