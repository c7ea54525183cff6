#include "launcher/trainer.h"

#include <cmath>
#include <span>
#include <utility>

#include "launcher/gemm_rate.h"
#include "launcher/training_checkpoint.h"
#include "model/init.h"
#include "optim/grad_clip.h"
#include "optim/schedule.h"
#include "runtime/base/status_macros.h"
#include "runtime/comm/reduce.h"
#include "runtime/math/op_times.h"
#include "runtime/math/vector_ops.h"

namespace panthera {

absl::StatusOr<StepResult> Trainer::TrainStep(int64_t step, const DataLoader* data) {
  Context& ctx = instance_.context();
  ParameterStore& params = instance_.params();
  const float gradient_scale = 1.0F / static_cast<float>(batch_.tokens.elements());

  SetZero(ctx, loss_sum_);
  for (int64_t micro = 0; micro < micro_steps_; ++micro) {
    const Arena::Scope scope(ctx.arena());
    world_.Beat();
    RETURN_IF_ERROR(LoadBatch(step, micro, data, batch_));
    const Tensor losses = ctx.arena().Allocate({batch_.tokens.elements()}, DType::kF32, "losses");
    gradients_.BeginMicroStep(micro, micro_steps_);
    instance_.model().LossAndGradient(ctx, params, batch_, gradient_scale, losses, gradients_);
    gradients_.FinishMicroStep();
    AddSum(ctx, losses, loss_sum_);
  }

  StepResult result = Result(step);
  result.nonfinite = gradients_.LeaveOutNonFinite(result.loss_nats);
  optimizer_->Step(ctx,
                   {.step = step,
                    .learning_rate = result.learning_rate,
                    .gradients = gradients_.gradient_shards(),
                    .gradient_scale = ClipScale(result.gradient_norm, options_.optim.clip_norm),
                    .left_out = gradients_.left_out(),
                    .shrinks = gradients_.shrinks(),
                    .rounding_key = static_cast<uint64_t>(options_.train.seed)});
  const OpTimer timer(ctx, {Op::kPublish}, {});
  params.Publish(*world_.data_parallel, ctx.compute());
  return result;
}

Trainer::Trainer(const RunOptions& options, World& world, std::unique_ptr<Context> context)
    : options_(options),
      world_(world),
      micro_steps_(*CountMicroSteps(options.train, world.mesh.data_size)),
      instance_(options.model, options.optim.weights, *world.data_parallel, std::move(context)),
      optimizer_(CreateOptimizer(options.optim, instance_.context(), instance_.params(),
                                 *world.data_parallel)),
      gradients_(options.optim, instance_.context(), instance_.params(), *world.data_parallel,
                 *optimizer_),
      evaluator_(instance_, options.train.micro_batch) {
  Context& ctx = instance_.context();
  const Shape shape{options.train.micro_batch, options.model.sequence_length};
  const int64_t sum_bytes = SizeOf(DType::kF64);
  const int64_t batch_bytes = shape.elements() * SizeOf(DType::kI32);
  memory_ = Buffer(ctx.device(), ctx.ledger(), MemoryCategory::kData, "batch",
                   sum_bytes + 2 * batch_bytes);
  loss_sum_ = memory_.View({1}, DType::kF64);
  batch_ = {.tokens = memory_.View(shape, DType::kI32, sum_bytes),
            .targets = memory_.View(shape, DType::kI32, sum_bytes + batch_bytes)};
}

StepPlan Trainer::Plan(const RunOptions& options, World& plan_world, Device target) {
  MemoryLedger ledger;
  Trainer trainer(options, plan_world, Context::Plan(target, ledger));
  ModelInstance& instance = trainer.instance();
  Communicator& data_parallel = *plan_world.data_parallel;
  const int64_t sent_before = data_parallel.bytes_sent();
  CHECK_OK(trainer.TrainStep(0, nullptr).status());
  StepPlan plan;
  plan.bytes_sent = data_parallel.bytes_sent() - sent_before;
  CHECK_OK(trainer.Evaluate(nullptr, options.train.micro_batch * data_parallel.size()).status());
  PlanSave(options, instance, data_parallel.rank());
  MeasureGemmRate(instance.context(), options.model, instance.dtype(), data_parallel);
  plan.arena_bytes = instance.context().arena().peak_bytes();
  plan.arena_peak = instance.context().arena().peak_allocations();
  plan.memory = ledger;
  return plan;
}

void Trainer::InitializeParameters() {
  InitializeShards(instance_.params(), options_.train.seed);
  instance_.params().Publish(*world_.data_parallel, instance_.context().compute());
}

absl::Status Trainer::LoadBatch(int64_t step, int64_t micro, const DataLoader* data,
                                const Batch& batch) {
  if (instance_.context().device().is_meta()) {
    return absl::OkStatus();
  }
  const OpTimer timer(instance_.context(), {Op::kData}, {});
  const int64_t place = micro * world_.mesh.data_size + world_.mesh.data_rank;
  const int64_t first = step * options_.train.global_batch + place * options_.train.micro_batch;
  return data->Fill(first, batch.tokens, batch.targets);
}

StepResult Trainer::Result(int64_t step) const {
  double loss_sum = loss_sum_.device().is_meta() ? 0 : loss_sum_.data<double>()[0];
  Stream stream(loss_sum_.device());
  AllReduceSum(*world_.data_parallel, std::span(&loss_sum, 1), stream);
  const double factor = ScheduleFactor(options_.optim.schedule, step, options_.train.steps);
  return {.loss_nats = loss_sum / static_cast<double>(tokens_per_step()),
          .gradient_norm = gradients_.gradient_norm(),
          .learning_rate = options_.optim.learning_rate * factor,
          .nonfinite = {}};
}

absl::StatusOr<Evaluation> Trainer::Evaluate(const ValidationSet* set, int64_t sequences) {
  return evaluator_.Run(set, sequences, *world_.data_parallel, [this] { world_.Beat(); });
}

bool Trainer::HoldsOnlyFiniteNumbers() {
  Context& ctx = instance_.context();
  const ParameterStore& params = instance_.params();
  uint8_t found = 0;
  const auto look_at = [&](const Tensor& tensor) {
    float largest = 0;
    MaxAbs(ctx, tensor, {&largest, {1}, DType::kF32, ctx.device()});
    found |= std::isfinite(largest) ? uint8_t{0} : uint8_t{1};
  };
  for (int i = 0; i < params.num_groups(); ++i) {
    const WeightShard shard = params.shard(GroupId{i});
    look_at(shard.values);
    if (shard.master.has_value()) {
      look_at(*shard.master);
    }
  }
  optimizer_->ForEachState([&](const char*, GroupId, const Tensor& shard) { look_at(shard); });
  AllReduceOr(*world_.data_parallel, {&found, 1}, ctx.compute());
  return found == 0;
}

int64_t Trainer::tokens_per_step() const {
  return options_.train.global_batch * options_.model.sequence_length;
}

}  // namespace panthera
