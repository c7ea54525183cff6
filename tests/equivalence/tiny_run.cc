#include "tests/equivalence/tiny_run.h"

#include <algorithm>
#include <utility>

#include <gtest/gtest.h>

#include "runtime/base/philox.h"
#include "runtime/data/megatron_writer.h"
#include "runtime/math/context.h"
#include "runtime/math/host_mirror.h"
#include "tests/support/host_shard.h"

namespace panthera::testing {
namespace {

constexpr int64_t kVocabulary = 23;

// A text with a pattern: mostly the token before times three plus one, sometimes any.
std::vector<int32_t> PatternedText(int64_t tokens) {
  std::vector<int32_t> text;
  int64_t token = 1;
  for (int64_t i = 0; i < tokens; ++i) {
    const Philox draw = Philox4x32(5, static_cast<uint64_t>(i), 0);
    token = draw.value[0] % 4 == 0 ? static_cast<int64_t>(draw.value[1] % kVocabulary)
                                   : (3 * token + 1) % kVocabulary;
    text.push_back(static_cast<int32_t>(token));
  }
  return text;
}

void WriteText(const std::string& stem, int64_t tokens) {
  absl::StatusOr<MegatronWriter> writer = MegatronWriter::Create(stem, kVocabulary);
  CHECK_OK(writer.status());
  CHECK_OK(writer->Append(PatternedText(tokens)));
  CHECK_OK(writer->EndDocument());
  CHECK_OK(writer->Publish());
}

void CopySegments(const ParameterStore& params, GroupId group, const std::string& suffix,
                  const std::vector<float>& shard, Tensors& tensors) {
  for (const ShardSegment& segment : params.segments(group)) {
    const ParamSpec& spec = params.spec(segment.param);
    std::vector<float>& tensor = tensors[spec.name + suffix];
    tensor.resize(static_cast<size_t>(spec.logical_shape().elements()));
    const ElementMap map = spec.logical_elements();
    for (int64_t i = 0; i < segment.elements; ++i) {
      tensor[static_cast<size_t>(map(segment.param_begin + i))] =
          shard[static_cast<size_t>(segment.shard_begin + i)];
    }
  }
}

// Forwards to a group that somebody else owns.
class BorrowedHostGroup final : public HostGroup {
 public:
  explicit BorrowedHostGroup(HostGroup& group) : group_(group) {}

  int rank() const override { return group_.rank(); }
  int size() const override { return group_.size(); }
  std::vector<std::string> AllGather(const std::string& bytes) override {
    return group_.AllGather(bytes);
  }
  std::string Broadcast(const std::string& bytes, int root) override {
    return group_.Broadcast(bytes, root);
  }

 private:
  HostGroup& group_;
};

}  // namespace

TinyRun::TinyRun(int64_t steps) {
  WriteText(directory() + "/train", 4000);
  WriteText(directory() + "/validation", 400);
  options.model.vocab_size = kVocabulary;
  options.model.width = 16;
  options.model.layers = 2;
  options.model.heads = 2;
  options.model.kv_heads = 1;
  options.model.ffn_width = 24;
  options.model.sequence_length = 16;
  options.model.init_deviation = 0.1;
  options.optim.learning_rate = 1e-2;
  options.optim.schedule.warmup_steps = 2;
  options.data.train = {{.path = directory() + "/train", .weight = 1}};
  options.data.validation = {{.path = directory() + "/validation", .weight = 1}};
  options.train.steps = steps;
  options.train.global_batch = 12;
  options.train.micro_batch = 1;
  options.train.run_dir = directory() + "/run";
}

void TinyRun::UseShortTexts() {
  WriteText(directory() + "/short_0", 500);
  WriteText(directory() + "/short_1", 300);
  options.data.train = {{.path = directory() + "/short_0", .weight = 0.7},
                        {.path = directory() + "/short_1", .weight = 0.3}};
}

DataLoader TinyRun::OpenData() const {
  absl::StatusOr<DataLoader> data = DataLoader::Open(
      options.data.train,
      {.sequence_length = options.model.sequence_length, .vocab_size = options.model.vocab_size},
      options.data.seed);
  CHECK_OK(data.status());
  return *std::move(data);
}

World WorldOf(RankWorld& ranks, Device device, int tensor) {
  World world;
  world.device = device;
  const absl::StatusOr<Mesh> mesh = Mesh::Create({.tensor = tensor}, ranks.rank(), ranks.size());
  CHECK_OK(mesh.status());
  world.mesh = *mesh;
  world.host = std::make_unique<BorrowedHostGroup>(ranks.host());
  world.data_parallel = ranks.Split(mesh->tensor_rank);
  world.tensor_parallel = ranks.Split(mesh->data_rank);
  return world;
}

std::unique_ptr<Trainer> NewTrainer(RunOptions options, World& world, MemoryLedger& ledger) {
  CHECK_OK(options.Finish(world.mesh.world_size()));
  absl::StatusOr<World> plan_world =
      PlanWorld(options.parallel, world.mesh.world_size(), world.mesh.tensor_rank);
  CHECK_OK(plan_world.status());
  const StepPlan plan = Trainer::Plan(options, *plan_world, world.device);
  auto trainer = std::make_unique<Trainer>(
      options, world, std::make_unique<Context>(world.device, ledger, plan.arena_bytes));
  trainer->InitializeParameters();
  return trainer;
}

void CopyShards(Trainer& trainer, Tensors& tensors) {
  Context& ctx = trainer.instance().context();
  const ParameterStore& params = trainer.instance().params();
  for (int g = 0; g < params.num_groups(); ++g) {
    HostShard host(params.shard({g}));
    host.Fetch(ctx.compute());
    std::vector<float> values(static_cast<size_t>(params.layout({g}).shard_elements));
    ReadWeights(host.shard(), 0, static_cast<int64_t>(values.size()), values.data());
    CopySegments(params, {g}, "", values, tensors);
  }
  trainer.optimizer().ForEachState([&](const char* name, GroupId group, const Tensor& shard) {
    std::vector<float> values;
    DispatchFloat(shard.dtype(), [&]<typename T>() {
      for (const T value : ReadToHost<T>(ctx, shard)) {
        values.push_back(static_cast<float>(value));
      }
    });
    CopySegments(params, group, std::string("|") + name, values, tensors);
  });
}

}  // namespace panthera::testing
