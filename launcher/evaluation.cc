#include "launcher/evaluation.h"

#include <algorithm>
#include <numeric>

#include "runtime/base/status_macros.h"
#include "runtime/comm/reduce.h"
#include "runtime/math/vector_ops.h"

namespace panthera {
namespace {

double MeanOver(const std::vector<double>& sums, int64_t begin, int64_t end, int64_t sequences) {
  const double sum = std::accumulate(sums.begin() + begin, sums.begin() + end, 0.0);
  return sum / (static_cast<double>(end - begin) * static_cast<double>(sequences));
}

}  // namespace

double Evaluation::MeanLoss(int64_t begin, int64_t end) const {
  return MeanOver(loss_nats, begin, end, sequences);
}

double Evaluation::Accuracy(int64_t begin, int64_t end) const {
  return MeanOver(correct, begin, end, sequences);
}

Evaluator::Evaluator(ModelInstance& instance, int64_t sequences)
    : instance_(instance),
      sequences_(sequences),
      tokens_(instance.model().options().sequence_length) {
  Context& ctx = instance.context();
  const Shape batch{sequences, tokens_};
  const int64_t batch_bytes = batch.elements() * SizeOf(DType::kI32);
  const int64_t sums_bytes = 2 * tokens_ * SizeOf(DType::kF64);
  memory_ = Buffer(ctx.device(), ctx.ledger(), MemoryCategory::kData, "evaluation batch",
                   sums_bytes + 2 * batch_bytes);
  sums_ = memory_.View({2, tokens_}, DType::kF64);
  batch_tokens_ = memory_.View(batch, DType::kI32, sums_bytes);
  batch_targets_ = memory_.View(batch, DType::kI32, sums_bytes + batch_bytes);
}

absl::Status Evaluator::RunBatch(const ValidationSet* set, int64_t first, int64_t count) {
  Context& ctx = instance_.context();
  const Arena::Scope scope(ctx.arena());
  const Batch batch{batch_tokens_.Slice(0, count), batch_targets_.Slice(0, count)};
  if (!ctx.device().is_meta()) {
    RETURN_IF_ERROR(set->Fill(first, batch.tokens, batch.targets));
  }
  const Tensor losses = ctx.arena().Allocate({count * tokens_}, DType::kF32, "losses");
  const Tensor correct = ctx.arena().Allocate({count * tokens_}, DType::kI32, "correct");
  instance_.model().Loss(ctx, instance_.params(), batch, losses, correct);
  AddColumnSums(ctx, losses.Reshape({count, tokens_}), sums_.Slice(0, 1).Reshape({tokens_}));
  AddColumnSums(ctx, correct.Reshape({count, tokens_}), sums_.Slice(1, 2).Reshape({tokens_}));
  return absl::OkStatus();
}

absl::Status Evaluator::RunBatches(const ValidationSet* set, int64_t begin, int64_t end,
                                   absl::FunctionRef<void()> after_batch) {
  for (int64_t first = begin; first < end;) {
    const int64_t count = end - first >= sequences_ ? sequences_ : 1;
    RETURN_IF_ERROR(RunBatch(set, first, count));
    after_batch();
    first += count;
  }
  return absl::OkStatus();
}

absl::StatusOr<Evaluation> Evaluator::Run(const ValidationSet* set, int64_t count,
                                          Communicator& data_parallel,
                                          absl::FunctionRef<void()> after_batch) {
  Context& ctx = instance_.context();
  SetZero(ctx, sums_);
  const int64_t begin = count * data_parallel.rank() / data_parallel.size();
  const int64_t end = count * (data_parallel.rank() + 1) / data_parallel.size();
  if (ctx.device().is_meta()) {
    RETURN_IF_ERROR(RunBatches(nullptr, 0, sequences_ + 1, after_batch));
  } else {
    RETURN_IF_ERROR(RunBatches(set, begin, end, after_batch));
  }
  std::vector<double> sums(static_cast<size_t>(2 * tokens_));
  if (!ctx.device().is_meta()) {
    std::copy_n(sums_.data<double>(), sums.size(), sums.begin());
  }
  AllReduceSum(data_parallel, sums, ctx.compute());
  return Evaluation{.loss_nats = {sums.begin(), sums.begin() + tokens_},
                    .correct = {sums.begin() + tokens_, sums.end()},
                    .sequences = count};
}

}  // namespace panthera
