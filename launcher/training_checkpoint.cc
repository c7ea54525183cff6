#include "launcher/training_checkpoint.h"

#include <utility>

#include "absl/strings/str_cat.h"

#include "launcher/config_text.h"
#include "launcher/version.h"
#include "model/hugging_face.h"
#include "model/hugging_face_config.h"
#include "runtime/base/check.h"
#include "runtime/base/status_macros.h"
#include "runtime/checkpoint/parameter_pieces.h"
#include "runtime/checkpoint/precision_change.h"

namespace panthera {
namespace {

// A set for each kind of optimizer state.
std::vector<SavedShard> StateShards(const Optimizer& optimizer) {
  std::vector<SavedShard> shards;
  optimizer.ForEachState([&](const char* name, GroupId group, const Tensor& shard) {
    shards.push_back({name, group, shard});
  });
  return shards;
}

// Everything that the next step depends on.
std::vector<SavedShard> AllShards(const ParameterStore& params, const Optimizer& optimizer) {
  std::vector<SavedShard> shards = WeightShards(params);
  for (SavedShard& state : StateShards(optimizer)) {
    shards.push_back(std::move(state));
  }
  return shards;
}

// This rank's rows of the embedding table, if it has any.
std::optional<TensorPiece> FindTable(const ModelInstance& instance, int rank) {
  const ParameterStore& params = instance.params();
  const ParamId embedding = instance.model().embedding();
  const GroupId group = params.group_of(embedding);
  std::vector<TensorPiece> pieces;
  AppendShardPieces(params, group, params.shard(group).values, rank, PieceUse::kSave, pieces);
  return pieces.empty() ? std::nullopt : std::optional(pieces.front());
}

Tensor AllocateSwappedHead(Arena& arena, const TensorPiece& table) {
  return arena.Allocate(table.data.shape(), table.data.dtype(), "swapped head");
}

// This rank's rows of the output matrix that other programs expect of a model whose head is the
// swapped table, computed in the arena, which is empty between steps.
std::optional<TensorPiece> SwappedHead(ModelInstance& instance, int rank) {
  const std::optional<TensorPiece> table = FindTable(instance, rank);
  if (!table.has_value()) {
    return std::nullopt;
  }
  Context& ctx = instance.context();
  return SwappedHeadPiece(ctx, *table, AllocateSwappedHead(ctx.arena(), *table));
}

// What a checkpoint holds of this rank, but for the small files: views of the tensors and the
// arena, or with `staging` of their copies there. Blocks until the device is done.
CheckpointContents Contents(ModelInstance& instance, const Optimizer& optimizer,
                            const RunOptions& options, int64_t step, int rank,
                            const SaveStaging* staging) {
  Context& ctx = instance.context();
  std::vector<SavedShard> shards = AllShards(instance.params(), optimizer);
  if (staging != nullptr) {
    shards = staging->CopyShards(ctx, std::move(shards));
  }
  CheckpointContents contents;
  contents.step = step;
  contents.program = absl::StrCat("panthera ", kVersion);
  contents.sets = SetsOf(instance.params(), shards, rank, PieceUse::kSave);
  if (options.model.tie == Tie::kSwapHalves) {
    if (std::optional<TensorPiece> head = SwappedHead(instance, rank); head.has_value()) {
      if (staging != nullptr) {
        head->data = staging->CopyDerived(ctx, head->data);
      }
      TensorSet& weights = contents.sets.front();
      CHECK_EQ(weights.name, "model");
      weights.pieces.push_back(*std::move(head));
      weights.derived.emplace_back(kHeadName);
    }
  }
  ctx.compute().Synchronize();
  return contents;
}

}  // namespace

absl::StatusOr<std::vector<SmallFile>> CheckpointSmallFiles(const RunOptions& options,
                                                            const Tokenizer* tokenizer,
                                                            const RunState& state) {
  TextMarks marks;
  std::vector<SmallFile> files;
  if (tokenizer != nullptr) {
    marks.end = tokenizer->eos_id();
    for (TokenizerFile& file : HuggingFaceTokenizerFiles(*tokenizer)) {
      files.push_back({.name = std::move(file.name), .contents = std::move(file.contents)});
    }
  }
  files.push_back({kModelConfigName,
                   HuggingFaceConfigJson(options.model, ValueDType(options.optim.weights), marks)});
  files.push_back({kCheckpointConfigName, PrintConfig(options)});
  files.push_back({kCheckpointStateName, RunStateJson(state)});
  return files;
}

absl::Status SaveTraining(FileSystem& files, World& world, Trainer& trainer,
                          const RunOptions& options, std::vector<SmallFile> small_files,
                          int64_t step) {
  ModelInstance& instance = trainer.instance();
  const Arena::Scope scope(instance.context().arena());
  CheckpointContents contents = Contents(instance, trainer.optimizer(), options, step,
                                         world.mesh.rank(), /*staging=*/nullptr);
  contents.small_files = std::move(small_files);
  return SaveCheckpoint(files, *world.host, options.train.run_dir, contents,
                        RetentionOf(options.checkpoint));
}

CheckpointContents CopyTraining(const World& world, Trainer& trainer, const RunOptions& options,
                                int64_t step) {
  CHECK(trainer.staging() != nullptr);
  ModelInstance& instance = trainer.instance();
  const Arena::Scope scope(instance.context().arena());
  return Contents(instance, trainer.optimizer(), options, step, world.mesh.rank(),
                  trainer.staging());
}

RetentionOptions RetentionOf(const CheckpointOptions& options) {
  return {.keep_newest = options.keep, .keep_every = options.keep_every};
}

std::optional<SaveStaging> AllocateStaging(const RunOptions& options, ModelInstance& instance,
                                           const Optimizer& optimizer) {
  if (options.checkpoint.staging == CheckpointStaging::kNone) {
    return std::nullopt;
  }
  const ParameterStore& params = instance.params();
  const GroupId table = params.group_of(instance.model().embedding());
  return std::optional<SaveStaging>(
      std::in_place, instance.context(), AllShards(params, optimizer),
      options.model.tie == Tie::kSwapHalves ? params.shard(table).values.bytes() : 0);
}

void PlanSave(const RunOptions& options, ModelInstance& instance) {
  if (options.model.tie != Tie::kSwapHalves) {
    return;
  }
  const Arena::Scope scope(instance.context().arena());
  // What all ranks have whole needs no memory for a save, whichever rank it is.
  if (const std::optional<TensorPiece> table = FindTable(instance, /*rank=*/0); table.has_value()) {
    AllocateSwappedHead(instance.context().arena(), *table);
  }
}

absl::Status LoadTraining(FileSystem& files, World& world, Trainer& trainer,
                          const Checkpoint& checkpoint) {
  ModelInstance& instance = trainer.instance();
  RETURN_IF_ERROR(LoadParameters(files, *world.host, *world.data_parallel, instance, checkpoint));
  return LoadStates(files, *world.host, checkpoint, instance.params(),
                    StateShards(trainer.optimizer()));
}

absl::Status LoadParameters(FileSystem& files, HostGroup& host, Communicator& data_parallel,
                            ModelInstance& instance, const Checkpoint& checkpoint) {
  ParameterStore& params = instance.params();
  RETURN_IF_ERROR(LoadWeights(files, host, checkpoint, params));
  Context& ctx = instance.context();
  params.Publish(data_parallel, ctx.compute(), ctx.exchange());
  return absl::OkStatus();
}

}  // namespace panthera
