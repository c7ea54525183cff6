#include "launcher/evaluation.h"

#include <numeric>

#include "runtime/base/status_macros.h"
#include "runtime/comm/reduce.h"
#include "runtime/math/host_mirror.h"
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
      tokens_(instance.model().options().sequence_length),
      // The next batch is read while a GPU works on one.
      batches_(instance.context(), "evaluation batch", sequences, tokens_, /*ahead=*/2),
      memory_(instance.context().device(), instance.context().ledger(), MemoryCategory::kData,
              "evaluation sums", 2 * tokens_ * SizeOf(DType::kF64)),
      sums_(memory_.View({2, tokens_}, DType::kF64)) {}

absl::Status Evaluator::RunBatch(const ValidationSet* set, int64_t first, int64_t count) {
  Context& ctx = instance_.context();
  const Arena::Scope scope(ctx.arena());
  ASSIGN_OR_RETURN(const Batch batch,
                   batches_.Load(ctx, count, [&](const Tensor& tokens, const Tensor& targets) {
                     return set->Fill(first, tokens, targets);
                   }));
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
    const int64_t count = end - first >= batches_.sequences() ? batches_.sequences() : 1;
    RETURN_IF_ERROR(RunBatch(set, first, count));
    after_batch();
    first += count;
  }
  return absl::OkStatus();
}

absl::StatusOr<Evaluation> Evaluator::Run(const ValidationSet* set, int64_t count,
                                          Communicator& host_data_parallel,
                                          absl::FunctionRef<void()> after_batch) {
  Context& ctx = instance_.context();
  SetZero(ctx, sums_);
  const int64_t ranks = host_data_parallel.size();
  const int64_t begin = count * host_data_parallel.rank() / ranks;
  const int64_t end = count * (host_data_parallel.rank() + 1) / ranks;
  if (ctx.device().is_meta()) {
    RETURN_IF_ERROR(RunBatches(nullptr, 0, batches_.sequences() + 1, after_batch));
  } else {
    RETURN_IF_ERROR(RunBatches(set, begin, end, after_batch));
  }
  std::vector<double> sums = ReadToHost<double>(ctx, sums_);
  Stream host(ctx.device().is_meta() ? ctx.device() : Device{});
  AllReduceSum(host_data_parallel, sums, host);
  return Evaluation{.loss_nats = {sums.begin(), sums.begin() + tokens_},
                    .correct = {sums.begin() + tokens_, sums.end()},
                    .sequences = count};
}

}  // namespace panthera
