#include "model/ops/cross_entropy.h"

#include <algorithm>
#include <cmath>
#include <limits>

#include "model/ops/cross_entropy_part.h"
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

// Some or all columns of a row of logits.
template <typename T>
struct Columns {
  T* logits;
  int64_t vocab_size;
  int64_t stride;
  TargetPlace target;
};

// sum exp(logits[v] - max) over all columns but the target's. Apart from it, so that loss and
// gradient keep their digits when the target is almost certain.
template <typename T>
double SumExpOfOthers(const Columns<T>& row, float max) {
  const int64_t next = row.target.before + (row.target.is_here ? 1 : 0);
  return SumExp(row.logits, row.target.before, max) +
         SumExp(row.logits + next, row.vocab_size - next, max);
}

// What the whole row says, wherever its columns are: its largest logit, that of the target less the
// largest, and the sum over all others.
struct RowSums {
  float max;
  float shifted;
  double others;
};

// The loss of the row, and the gradient of these columns of it.
template <typename T>
float Finish(const RowSums& sums, const Columns<T>& row, CrossEntropyOutput output,
             float gradient_scale) {
  const double sum = sums.others + std::exp(static_cast<double>(sums.shifted));
  const double loss = std::log(sum) - static_cast<double>(sums.shifted);
  if (output == CrossEntropyOutput::kLossAndGradient) {
    const double factor = static_cast<double>(gradient_scale) / sum;
    ScaledExp(row.logits, row.vocab_size, sums.max, static_cast<float>(factor));
    if (row.target.is_here) {
      row.logits[row.target.before] = static_cast<T>(static_cast<float>(-factor * sums.others));
    }
    std::fill(row.logits + row.vocab_size, row.logits + row.stride, static_cast<T>(0.0F));
  }
  return static_cast<float>(loss);
}

template <typename T>
RowSums SumsOfRow(const Columns<T>& row) {
  const float max = Max(row.logits, row.vocab_size);
  return {.max = max,
          .shifted = static_cast<float>(row.logits[row.target.before]) - max,
          .others = SumExpOfOthers(row, max)};
}

RowSums SumsOfRow(const CrossEntropyParts& parts, int64_t row) {
  const CrossEntropyPartOfRow all = parts.LogitsOf(row);
  const double largest = all.Largest();
  double others = 0;
  for (int64_t rank = 0; rank < parts.ranks; ++rank) {
    const CrossEntropyPartOfRow part = parts.At(rank, row);
    others += part.sum * std::exp(part.Largest() - largest);
  }
  return {.max = static_cast<float>(largest),
          .shifted = static_cast<float>(all.target) - static_cast<float>(largest),
          .others = others};
}

template <typename T>
CrossEntropyPartOfRow PartOf(const Columns<T>& row) {
  const auto& [before, is_here] = row.target;
  const int64_t next = before + (is_here ? 1 : 0);
  CrossEntropyPartOfRow part;
  part.before = static_cast<double>(Max(row.logits, before));
  part.after = static_cast<double>(Max(row.logits + next, row.vocab_size - next));
  if (is_here) {
    part.target = static_cast<double>(static_cast<float>(row.logits[before]));
  }
  const double largest = part.Largest();
  // Nothing but -infinity is less by infinity than 0, too, and a NaN stays one.
  const double origin = largest == CrossEntropyPartOfRow::kNone ? 0 : largest;
  part.sum = SumExpOfOthers(row, static_cast<float>(origin));
  return part;
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

void CheckSlice(const Tensor& logits, const VocabularySlice& slice, int64_t vocab_size,
                const Tensor& targets) {
  CHECK_EQ(logits.shape().rank(), 2);
  CHECK_GE(vocab_size, 0);
  CHECK_LE(vocab_size, logits.size(1));
  CHECK_GE(slice.first, 0);
  CHECK_LE(slice.first + vocab_size, slice.vocabulary);
  CHECK_SHAPE(targets, logits.size(0));
  CHECK_EQ(targets.dtype(), DType::kI32);
}

CrossEntropyParts PartsIn(const Tensor& parts) {
  return {parts.data<double>(), parts.size(0), parts.size(1)};
}

void CheckParts(const Tensor& parts, int64_t rows) {
  CHECK_EQ(parts.shape().rank(), 3);
  CHECK_GE(parts.size(0), 1);
  CHECK_SHAPE(parts, parts.size(0), rows, kCrossEntropyPart);
  CHECK_EQ(parts.dtype(), DType::kF64);
}

int32_t TargetAt(const Tensor& targets, int64_t row, int64_t vocabulary) {
  const int32_t target = targets.data<int32_t>()[row];
  CHECK_GE(target, 0);
  CHECK_LT(target, vocabulary);
  return target;
}

template <typename T>
Columns<T> RowOf(const Tensor& logits, int64_t row, const VocabularySlice& slice,
                 int64_t vocab_size, const Tensor& targets) {
  const int64_t stride = logits.size(1);
  return {logits.data<T>() + row * stride, vocab_size, stride,
          PlaceOf(TargetAt(targets, row, slice.vocabulary), slice.first, vocab_size)};
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
  DispatchFloat(logits.dtype(), [&]<typename T>() {
    ParallelFor(logits.size(0), RowGrain(logits.size(1)), [&](int64_t begin, int64_t end) {
      for (int64_t i = begin; i < end; ++i) {
        const auto row = RowOf<T>(logits, i, {0, vocab_size}, vocab_size, targets);
        losses.data<float>()[i] = Finish(SumsOfRow(row), row, output, gradient_scale);
      }
    });
  });
}

void CrossEntropyPart(Context& ctx, const Tensor& logits, const VocabularySlice& slice,
                      int64_t vocab_size, const Tensor& targets, Tensor parts) {
  const OpTimer timer(ctx, {Op::kCrossEntropy}, {.bytes = Traffic({logits, parts})});
  CheckSlice(logits, slice, vocab_size, targets);
  CHECK_SHAPE(parts, logits.size(0), kCrossEntropyPart);
  CHECK_EQ(parts.dtype(), DType::kF64);
  if (ctx.device().is_meta()) {
    return;
  }
  if (ctx.device().is_cuda()) {
    cuda::CrossEntropyPart(ctx.compute(), logits, slice.first, vocab_size, targets, parts);
    return;
  }
  DispatchFloat(logits.dtype(), [&]<typename T>() {
    ParallelFor(logits.size(0), RowGrain(logits.size(1)), [&](int64_t begin, int64_t end) {
      for (int64_t i = begin; i < end; ++i) {
        PartOf(RowOf<T>(logits, i, slice, vocab_size, targets))
            .Store(parts.data<double>() + i * kCrossEntropyPart);
      }
    });
  });
}

void CrossEntropyFromParts(Context& ctx, Tensor logits, const VocabularySlice& slice,
                           int64_t vocab_size, const Tensor& targets, const Tensor& parts,
                           CrossEntropyOutput output, float gradient_scale, Tensor losses) {
  const double passes = output == CrossEntropyOutput::kLossAndGradient ? 2 : 0;
  const OpTimer timer(ctx, {Op::kCrossEntropy},
                      {.bytes = passes * Traffic({logits}) + Traffic({parts})});
  CheckSlice(logits, slice, vocab_size, targets);
  CheckParts(parts, logits.size(0));
  CHECK_SHAPE(losses, logits.size(0));
  CHECK_EQ(losses.dtype(), DType::kF32);
  if (ctx.device().is_meta()) {
    return;
  }
  if (ctx.device().is_cuda()) {
    cuda::CrossEntropyFromParts(ctx.compute(), logits, slice.first, vocab_size, targets, parts,
                                output, gradient_scale, losses);
    return;
  }
  const CrossEntropyParts all = PartsIn(parts);
  DispatchFloat(logits.dtype(), [&]<typename T>() {
    ParallelFor(logits.size(0), RowGrain(logits.size(1)), [&](int64_t begin, int64_t end) {
      for (int64_t i = begin; i < end; ++i) {
        losses.data<float>()[i] =
            Finish(SumsOfRow(all, i), RowOf<T>(logits, i, slice, vocab_size, targets), output,
                   gradient_scale);
      }
    });
  });
}

void TopOneFromParts(Context& ctx, const Tensor& parts, Tensor correct) {
  const OpTimer timer(ctx, {Op::kCrossEntropy}, {.bytes = Traffic({parts})});
  CHECK_EQ(correct.shape().rank(), 1);
  CheckParts(parts, correct.size(0));
  CHECK_EQ(correct.dtype(), DType::kI32);
  if (ctx.device().is_meta()) {
    return;
  }
  if (ctx.device().is_cuda()) {
    cuda::TopOneFromParts(ctx.compute(), parts, correct);
    return;
  }
  const CrossEntropyParts all = PartsIn(parts);
  for (int64_t i = 0; i < correct.size(0); ++i) {
    correct.data<int32_t>()[i] = all.TargetIsFirstLargest(i) ? 1 : 0;
  }
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
