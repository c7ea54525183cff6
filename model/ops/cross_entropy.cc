#include "model/ops/cross_entropy.h"

#include <algorithm>
#include <cmath>
#include <limits>

#include "model/ops/cuda_kernels.h"
#include "runtime/base/check.h"
#include "runtime/base/parallel_for.h"
#include "runtime/base/simd.h"
#include "runtime/math/op_times.h"
#include "runtime/math/rows.h"

namespace panthera {
namespace {

// A block of logits as floats, in `scratch` unless they are floats already.
const float* Widened(const float* logits, int64_t /*count*/, float* /*scratch*/) { return logits; }

const float* Widened(const BF16* logits, int64_t count, float* scratch) {
  LoadRow(logits, count, scratch);
  return scratch;
}

PANTHERA_SIMD float MaxOfBlock(const float* logits, int64_t count) {
  return MaxOf(count, [&](int64_t v) PANTHERA_INLINE { return logits[v]; });
}

PANTHERA_SIMD double SumExpOfBlock(const float* logits, int64_t count, float max) {
  return SumTerms(count, [&](int64_t v) PANTHERA_INLINE { return Exp(logits[v] - max); });
}

template <typename T>
float Max(const T* logits, int64_t count) {
  float scratch[kSumBlock];
  float max = -std::numeric_limits<float>::infinity();
  for (int64_t begin = 0; begin < count; begin += kSumBlock) {
    const int64_t size = std::min(kSumBlock, count - begin);
    max = std::max(max, MaxOfBlock(Widened(logits + begin, size, scratch), size));
  }
  return max;
}

// sum_v exp(logits[v] - max)
template <typename T>
double SumExp(const T* logits, int64_t count, float max) {
  float scratch[kSumBlock];
  double sum = 0;
  for (int64_t begin = 0; begin < count; begin += kSumBlock) {
    const int64_t size = std::min(kSumBlock, count - begin);
    sum += SumExpOfBlock(Widened(logits + begin, size, scratch), size, max);
  }
  return sum;
}

// logits[v] <- factor * exp(logits[v] - max)
template <typename T>
PANTHERA_INLINE inline void ToScaledExp(T* logits, int64_t count, float max, float factor) {
  PANTHERA_INDEPENDENT
  for (int64_t v = 0; v < count; ++v) {
    logits[v] = static_cast<T>(factor * Exp(static_cast<float>(logits[v]) - max));
  }
}
PANTHERA_SIMD void ScaledExp(float* logits, int64_t count, float max, float factor) {
  ToScaledExp(logits, count, max, factor);
}
PANTHERA_SIMD void ScaledExp(BF16* logits, int64_t count, float max, float factor) {
  ToScaledExp(logits, count, max, factor);
}

template <typename T>
float LossOfRow(T* logits, int64_t vocab_size, int64_t stride, int64_t target,
                CrossEntropyOutput output, float gradient_scale) {
  const float max = Max(logits, vocab_size);
  const float shifted = static_cast<float>(logits[target]) - max;
  // Apart from the target, so that loss and gradient keep their digits when it is almost certain.
  const double others =
      SumExp(logits, target, max) + SumExp(logits + target + 1, vocab_size - target - 1, max);
  const double sum = others + std::exp(static_cast<double>(shifted));
  const double loss = std::log(sum) - static_cast<double>(shifted);
  if (output == CrossEntropyOutput::kLossAndGradient) {
    const double factor = static_cast<double>(gradient_scale) / sum;
    ScaledExp(logits, vocab_size, max, static_cast<float>(factor));
    logits[target] = static_cast<T>(static_cast<float>(-factor * others));
    std::fill(logits + vocab_size, logits + stride, static_cast<T>(0.0F));
  }
  return static_cast<float>(loss);
}

template <typename T>
bool TargetIsFirstLargest(const T* logits, int64_t vocab_size, int64_t target) {
  const float value = static_cast<float>(logits[target]);
  return Max(logits, target) < value && Max(logits + target + 1, vocab_size - target - 1) <= value;
}

void CheckLogits(const Tensor& logits, int64_t vocab_size, const Tensor& targets) {
  CHECK_EQ(logits.shape().rank(), 2);
  CHECK_GE(vocab_size, 1);
  CHECK_LE(vocab_size, logits.size(1));
  CHECK_SHAPE(targets, logits.size(0));
  CHECK_EQ(targets.dtype(), DType::kI32);
}

int64_t TargetAt(const Tensor& targets, int64_t row, int64_t vocab_size) {
  const int64_t target = targets.data<int32_t>()[row];
  CHECK_GE(target, 0);
  CHECK_LT(target, vocab_size);
  return target;
}

}  // namespace

void CrossEntropy(Context& ctx, Tensor logits, int64_t vocab_size, const Tensor& targets,
                  CrossEntropyOutput output, float gradient_scale, Tensor losses) {
  const double passes = output == CrossEntropyOutput::kLossAndGradient ? 2 : 1;
  const OpTimer timer(ctx, {Op::kCrossEntropy}, {.bytes = passes * Traffic({logits})});
  CheckLogits(logits, vocab_size, targets);
  CHECK_SHAPE(losses, logits.size(0));
  CHECK_EQ(losses.dtype(), DType::kF32);
  if (ctx.device().is_meta()) {
    return;
  }
  if (ctx.device().is_cuda()) {
    cuda::CrossEntropy(ctx.compute(), logits, vocab_size, targets, output, gradient_scale, losses);
    return;
  }
  const int64_t stride = logits.size(1);
  DispatchFloat(logits.dtype(), [&]<typename T>() {
    ParallelFor(logits.size(0), RowGrain(stride), [&](int64_t begin, int64_t end) {
      for (int64_t i = begin; i < end; ++i) {
        losses.data<float>()[i] =
            LossOfRow(logits.data<T>() + i * stride, vocab_size, stride,
                      TargetAt(targets, i, vocab_size), output, gradient_scale);
      }
    });
  });
}

void TopOne(Context& ctx, const Tensor& logits, int64_t vocab_size, const Tensor& targets,
            Tensor correct) {
  const OpTimer timer(ctx, {Op::kCrossEntropy}, {.bytes = Traffic({logits})});
  CheckLogits(logits, vocab_size, targets);
  CHECK_SHAPE(correct, logits.size(0));
  CHECK_EQ(correct.dtype(), DType::kI32);
  if (ctx.device().is_meta()) {
    return;
  }
  if (ctx.device().is_cuda()) {
    cuda::TopOne(ctx.compute(), logits, vocab_size, targets, correct);
    return;
  }
  const int64_t stride = logits.size(1);
  DispatchFloat(logits.dtype(), [&]<typename T>() {
    ParallelFor(logits.size(0), RowGrain(stride), [&](int64_t begin, int64_t end) {
      for (int64_t i = begin; i < end; ++i) {
        const bool hit = TargetIsFirstLargest(logits.data<T>() + i * stride, vocab_size,
                                              TargetAt(targets, i, vocab_size));
        correct.data<int32_t>()[i] = hit ? 1 : 0;
      }
    });
  });
}

}  // namespace panthera
