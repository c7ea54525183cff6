#include "tests/optim/small_training.h"

#include <bit>
#include <limits>
#include <optional>
#include <string>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include <gmock/gmock.h>

#include "runtime/base/check.h"
#include "runtime/math/host_mirror.h"

namespace panthera::testing {

OptimOptions TrainingOptions(Algorithm algorithm, Accumulation accumulate, WeightStorage weights,
                             MomentumStorage momentum) {
  OptimOptions options;
  options.algorithm = algorithm;
  options.accumulate = accumulate;
  options.weights = weights;
  options.momentum = momentum;
  options.lazy_rows = LazyRows::kOff;
  CHECK_OK(options.Finish());
  return options;
}

namespace {

// The tokens of this rank's parts of a micro-step. 7 of the 13 rows are nobody's: part * micro is
// one of 0, 1, 2, 3, 4, 6.
void MarkTokens(int step, int64_t micro, int64_t first_part, int64_t parts, Worker& worker,
                SeenRows& seen) {
  std::vector<int32_t> tokens;
  for (int64_t part = first_part; part < first_part + parts; ++part) {
    tokens.push_back(static_cast<int32_t>((5 * step + part * micro) % kTableRows));
  }
  const Buffer memory(worker.ctx.device(), worker.ctx.ledger(), MemoryCategory::kData, "tokens",
                      parts * SizeOf(DType::kI32));
  const Tensor on_device = memory.View({parts}, DType::kI32);
  Copy(worker.ctx.compute(), Tensor(tokens.data(), {parts}, DType::kI32, Device{}), on_device);
  seen.Mark(on_device);
  worker.ctx.compute().Synchronize();
}

}  // namespace

float NoPoison(int /*step*/, int64_t /*micro*/, int64_t /*part*/, ParamId /*id*/,
               int64_t /*element*/) {
  return 0;
}

Poison PoisonFor(const OptimOptions& options) {
  if (options.nonfinite == NonFinitePolicy::kStop) {
    return NoPoison;
  }
  return [](int step, int64_t micro, int64_t part, ParamId id, int64_t i) {
    const bool bad =
        (step == 1 && id.index == 3 && micro == 0 && part == 3 && i == 2000) ||
        (step == 1 && id.index == 0 && micro == 1 && part == 0 && i == kTableRows * 37 - 1) ||
        (step == 2 && id.index == 5 && micro == kMicroSteps - 1 && part == 1 && i == 3);
    return bad ? std::numeric_limits<float>::infinity() : 0.0F;
  };
}

bool SameBits(const Outcome& a, const Outcome& b) {
  return a.weights == b.weights && a.state1 == b.state1 && a.state2 == b.state2 &&
         a.tensors == b.tensors && a.masked == b.masked && a.skipped == b.skipped &&
         a.found == b.found;
}

Outcome SmallTraining::EmptyOutcome() {
  ParameterStore store;
  AddSmallModel(store);
  Outcome outcome;
  outcome.weights = outcome.state1 = outcome.state2 = EmptyElements(store);
  return outcome;
}

Outcome SmallTraining::Run(int steps) {
  Outcome outcome = EmptyOutcome();
  RunRanks(ranks_ * tensor_ranks, [&](RankWorld& world) { RunOn(world, steps, outcome); });
  return outcome;
}

void SmallTraining::RunOn(RankWorld& world, int steps, Outcome& outcome) const {
  std::optional<MeshWorld> mesh;
  if (tensor_ranks > 1) {
    mesh.emplace(world, tensor_ranks);
  }
  const MeshAxes axes = mesh.has_value() ? mesh->axes() : world.communicator();
  SyncedWorker worker(device_, world.ledger(), axes, options_);
  SeenRows seen(options_.lazy_rows, worker.store.spec(*worker.store.Find("embed")), worker.ctx,
                axes);
  worker.SetWeights(weights);
  worker.store.Publish(worker.comm, worker.ctx.compute(), worker.ctx.exchange());
  for (int step = 0; step < steps; ++step) {
    Step(step, worker, seen, world, outcome);
  }
  const std::string replica = worker.ReplicaBytes();
  const std::vector<float> vectors =
      ReadToHost<float>(worker.ctx, worker.store.group_values(kVectors));
  const std::string bytes(reinterpret_cast<const char*>(vectors.data()),
                          vectors.size() * sizeof(float));
  EXPECT_THAT(world.host().AllGather(bytes), ::testing::Each(bytes));
  // Ranks write different elements, but of replicated groups the same ones.
  for (int rank = 0; rank < world.size(); ++rank) {
    if (rank == world.rank()) {
      worker.CopyWeights(outcome.weights);
      // A parameter has one of the two.
      worker.CopyState("momentum", outcome.state1);
      worker.CopyState("moment1", outcome.state1);
      worker.CopyState("moment2", outcome.state2);
      outcome.replicas.push_back(replica);
    }
    world.Meet();
  }
}

void SmallTraining::Step(int step, SyncedWorker& worker, SeenRows& seen, RankWorld& world,
                         Outcome& outcome) const {
  const int data_rank = world.rank() / tensor_ranks;
  const int64_t first = data_rank * int64_t{kParts} / ranks_;
  const int64_t last = (data_rank + 1) * int64_t{kParts} / ranks_;
  seen.Clear();
  for (int64_t micro = 0; micro < micro_steps; ++micro) {
    MarkTokens(step, micro, first, last - first, worker, seen);
    worker.Backward(micro, micro_steps, [&](ParamId id, int64_t i) {
      float sum = 0;
      for (int64_t part = first; part < last; ++part) {
        const auto seed = static_cast<uint64_t>(100 * step + 10 * micro + part);
        sum += SmallInteger(seed, id, i) + poison_(step, micro, part, id, i);
      }
      // The mean over ranks, exactly: their number is a power of two.
      sum *= static_cast<float>(ranks_);
      return ShareOf(sum, worker, world.rank() % tensor_ranks, id, i);
    });
  }
  worker.Judge(loss);
  seen.Gather();
  StepInput input;
  input.step = step;
  input.learning_rate = learning_rate;
  input.table_learning_rate = 0.003;
  input.gradients = worker.sync.gradient_shards();
  input.gradient_scale = worker.sync.gradient_scale();
  input.left_out = worker.sync.left_out();
  input.shrinks = worker.sync.shrinks();
  input.rows = seen.rows();
  worker.optimizer->Step(worker.ctx, input);
  worker.optimizer->Publish(worker.ctx);
  Report(step, worker, world, outcome);
}

float SmallTraining::ShareOf(float whole, const Worker& worker, int tensor_rank, ParamId id,
                             int64_t element) const {
  if (worker.store.group_of(id) != kVectors) {
    return whole;
  }
  const auto share = [&](int rank) {
    return SmallInteger(9000 + static_cast<uint64_t>(rank), id, element);
  };
  if (tensor_rank < tensor_ranks - 1) {
    return share(tensor_rank);
  }
  for (int rank = 0; rank < tensor_ranks - 1; ++rank) {
    whole -= share(rank);
  }
  return whole;
}

void SmallTraining::Report(int step, SyncedWorker& worker, RankWorld& world,
                           Outcome& outcome) const {
  const StepReport report = worker.sync.Report().value();
  const NonFiniteReport& nonfinite = report.nonfinite;
  // Every rank has the same report.
  std::vector<int> tensors;
  for (const ParamId id : nonfinite.tensors) {
    tensors.push_back(id.index);
  }
  const std::string text =
      absl::StrCat(nonfinite.found, ",", nonfinite.skipped, ",", nonfinite.masked_gradients, ",",
                   absl::StrJoin(tensors, ","), ",", std::bit_cast<uint64_t>(report.loss_nats), ",",
                   std::bit_cast<uint64_t>(report.gradient_norm));
  EXPECT_THAT(world.host().AllGather(text), ::testing::Each(text)) << "step " << step;
  if (world.rank() == 0) {
    outcome.norms.push_back(report.gradient_norm);
    outcome.losses.push_back(report.loss_nats);
    outcome.tensors.push_back(tensors);
    outcome.masked.push_back(nonfinite.masked_gradients);
    outcome.skipped.push_back(nonfinite.skipped);
    outcome.found.push_back(nonfinite.found);
  }
}

}  // namespace panthera::testing
