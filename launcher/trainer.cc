#include "launcher/trainer.h"

#include <cmath>
#include <utility>

#include "launcher/embedding_rows.h"
#include "launcher/gemm_rate.h"
#include "launcher/training_checkpoint.h"
#include "model/init.h"
#include "optim/schedule.h"
#include "runtime/base/status_macros.h"
#include "runtime/comm/reduce.h"
#include "runtime/math/gemm.h"
#include "runtime/math/gemm_tuning.h"
#include "runtime/math/host_mirror.h"
#include "runtime/math/op_times.h"
#include "runtime/math/vector_ops.h"

namespace panthera {

absl::StatusOr<StepResult> Trainer::TrainStep(int64_t step, const DataLoader* data) {
  Context& ctx = instance_.context();
  ParameterStore& params = instance_.params();
  const int64_t targets = options_.train.micro_batch * options_.model.sequence_length;
  const float gradient_scale = 1.0F / static_cast<float>(targets);
  const Tensor loss_sum = loss_sum_.View({1}, DType::kF64);

  SetZero(ctx, loss_sum);
  seen_rows_.Clear();
  for (int64_t micro = 0; micro < micro_steps_; ++micro) {
    const Arena::Scope scope(ctx.arena());
    world_.Beat();
    ASSIGN_OR_RETURN(const Batch batch, LoadBatch(step, micro, data));
    seen_rows_.Mark(batch.tokens);
    const Tensor losses = ctx.arena().Allocate({targets}, DType::kF32, "losses");
    gradients_.BeginMicroStep(micro, micro_steps_);
    instance_.model().LossAndGradient(ctx, params, batch, gradient_scale, losses, gradients_);
    gradients_.FinishMicroStep();
    AddSum(ctx, losses, loss_sum);
  }

  gradients_.Judge(loss_sum, tokens_per_step());
  seen_rows_.Gather();
  optimizer_->Step(ctx,
                   {.step = step,
                    .learning_rate = LearningRate(options_.optim.learning_rate, step),
                    .table_learning_rate = LearningRate(options_.optim.table.learning_rate, step),
                    .gradients = gradients_.gradient_shards(),
                    .gradient_scale = gradients_.gradient_scale(),
                    .left_out = gradients_.left_out(),
                    .shrinks = gradients_.shrinks(),
                    .rows = seen_rows_.rows(),
                    .rounding_key = static_cast<uint64_t>(options_.train.seed)});
  optimizer_->Publish(ctx);
  ASSIGN_OR_RETURN(const StepReport report, gradients_.Report());
  return StepResult{report, LearningRate(options_.optim.learning_rate, step)};
}

Trainer::Trainer(const RunOptions& options, World& world, std::unique_ptr<Context> context)
    : options_(options),
      world_(world),
      micro_steps_(*CountMicroSteps(options.train, world.mesh.data_size)),
      instance_(options.model, options.optim.weights, world.axes(), std::move(context),
                options.train.micro_batch * options.model.sequence_length,
                options.optim.low_bits()),
      optimizer_(
          CreateOptimizer(options.optim, instance_.context(), instance_.params(), world.axes())),
      gradients_(options.optim, instance_.context(), instance_.params(), world.axes(), *optimizer_),
      seen_rows_(options.optim.lazy_rows, instance_.params().spec(instance_.model().embedding()),
                 instance_.context(), world.axes()),
      staging_(AllocateStaging(options, instance_, *optimizer_)),
      evaluator_(instance_, options.train.micro_batch),
      // A whole step, so that nothing in it waits for the GPU.
      batches_(instance_.context(), "batch", options.train.micro_batch,
               options.model.sequence_length, micro_steps_),
      loss_sum_(instance_.context().device(), instance_.context().ledger(), MemoryCategory::kData,
                "loss", SizeOf(DType::kF64)) {
  if (options.train.check_every > 0) {
    replica_check_.emplace(instance_.context(), instance_.params(), *optimizer_, world.host_axes());
  }
}

StepPlan Trainer::Plan(const RunOptions& options, World& plan_world, Device target) {
  MemoryLedger ledger;
  Trainer trainer(options, plan_world, Context::Plan(target, ledger));
  ModelInstance& instance = trainer.instance();
  Communicator& data_parallel = *plan_world.data_parallel;
  Communicator& tensor_parallel = *plan_world.tensor_parallel;
  const AxisBytes sent_before = {data_parallel.bytes_sent(), tensor_parallel.bytes_sent()};
  CHECK_OK(trainer.TrainStep(0, nullptr).status());
  StepPlan plan;
  plan.sent = {data_parallel.bytes_sent() - sent_before.data,
               tensor_parallel.bytes_sent() - sent_before.tensor};
  CHECK_OK(trainer.Evaluate(nullptr, options.train.micro_batch * data_parallel.size()).status());
  MeasureEmbedding(instance, 0, plan_world.host_tensor_parallel());
  PlanSave(options, instance);
  MeasureGemmRate(instance.context(), options.model, instance.dtype(), plan_world.host_axes());
  plan.products = instance.context().gemm().planned_products();
  TuneProducts(instance.context(), plan.products);
  plan.arena_bytes = instance.context().arena().peak_bytes();
  plan.arena_peak = instance.context().arena().peak_allocations();
  plan.memory = ledger;
  return plan;
}

void Trainer::InitializeParameters() {
  InitializeShards(instance_.params(), options_.train.seed);
  Context& ctx = instance_.context();
  instance_.params().Publish(*world_.data_parallel, ctx.compute(), ctx.exchange());
}

absl::StatusOr<Batch> Trainer::LoadBatch(int64_t step, int64_t micro, const DataLoader* data) {
  const OpTimer timer(instance_.context(), {Op::kData}, {});
  const int64_t place = micro * world_.mesh.data_size + world_.mesh.data_rank;
  const int64_t first = step * options_.train.global_batch + place * options_.train.micro_batch;
  return batches_.Load(instance_.context(), options_.train.micro_batch,
                       [&](const Tensor& tokens, const Tensor& targets) {
                         return data->Fill(first, tokens, targets);
                       });
}

double Trainer::LearningRate(double peak, int64_t step) const {
  return peak * ScheduleFactor(options_.optim.schedule, step, options_.train.steps);
}

absl::StatusOr<Evaluation> Trainer::Evaluate(const ValidationSet* set, int64_t sequences) {
  return evaluator_.Run(set, sequences, world_.host_data_parallel(), [this] { world_.Beat(); });
}

bool Trainer::HoldsOnlyFiniteNumbers() {
  Context& ctx = instance_.context();
  const ParameterStore& params = instance_.params();
  const Arena::Scope scope(ctx.arena());
  const Tensor largest = ctx.arena().Allocate({1}, DType::kF32, "largest magnitude");
  uint8_t found = 0;
  const auto look_at = [&](const Tensor& tensor) {
    MaxAbs(ctx, tensor, largest);
    found |= std::isfinite(ReadToHost<float>(ctx, largest)[0]) ? uint8_t{0} : uint8_t{1};
  };
  for (int i = 0; i < params.num_groups(); ++i) {
    const WeightShard shard = params.shard(GroupId{i});
    look_at(shard.values);
    if (shard.master.has_value()) {
      look_at(*shard.master);
    }
  }
  optimizer_->ForEachState([&](const char*, GroupId, const Tensor& shard) { look_at(shard); });
  Stream host{Device{}};
  AllReduceOr(world_.host_axes(), {&found, 1}, host);
  return found == 0;
}

int64_t Trainer::tokens_per_step() const {
  return options_.train.global_batch * options_.model.sequence_length;
}

}  // namespace panthera
