#include "launcher/training_checkpoint.h"

#include <utility>

#include "absl/strings/str_cat.h"

#include "launcher/config_text.h"
#include "launcher/version.h"
#include "model/hugging_face.h"
#include "model/hugging_face_config.h"
#include "runtime/base/status_macros.h"
#include "runtime/checkpoint/parameter_pieces.h"

namespace panthera {
namespace {

TensorSet& SetNamed(std::vector<TensorSet>& sets, const std::string& name) {
  for (TensorSet& set : sets) {
    if (set.name == name) {
      return set;
    }
  }
  sets.push_back({.name = name, .pieces = {}, .derived = {}});
  return sets.back();
}

// One set per kind of optimizer state.
std::vector<TensorSet> StateSets(const Trainer& trainer, const ParameterStore& params, int rank,
                                 PieceUse use) {
  std::vector<TensorSet> sets;
  trainer.optimizer().ForEachState([&](const char* name, GroupId group, const Tensor& shard) {
    AppendShardPieces(params, group, shard, rank, use, SetNamed(sets, name).pieces);
  });
  return sets;
}

// This rank's rows of the embedding table, if it has any.
const TensorPiece* FindTable(const ModelInstance& instance, const TensorSet& weights) {
  for (const TensorPiece& piece : weights.pieces) {
    if (piece.name == instance.params().spec(instance.model().embedding()).name) {
      return &piece;
    }
  }
  return nullptr;
}

Tensor AllocateSwappedHead(Arena& arena, const TensorPiece& table) {
  return arena.Allocate(table.data.shape(), table.data.dtype(), "swapped head");
}

// The output matrix that other programs expect of a model whose head is the swapped table, computed
// in the arena, which is empty between steps, from this rank's rows of the table.
void AppendSwappedHead(ModelInstance& instance, TensorSet& weights) {
  const TensorPiece* table = FindTable(instance, weights);
  if (table == nullptr) {
    return;
  }
  Context& ctx = instance.context();
  const Tensor head = AllocateSwappedHead(ctx.arena(), *table);
  weights.pieces.push_back(SwappedHeadPiece(ctx, TensorPiece(*table), head));
  weights.derived.push_back(kHeadName);
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
  const int rank = world.mesh.rank();
  const Arena::Scope scope(instance.context().arena());
  CheckpointContents contents;
  contents.step = step;
  contents.program = absl::StrCat("panthera ", kVersion);
  contents.sets = WeightSets(instance.params(), rank, PieceUse::kSave);
  if (options.model.tie == Tie::kSwapHalves) {
    AppendSwappedHead(instance, SetNamed(contents.sets, "model"));
  }
  for (TensorSet& set : StateSets(trainer, instance.params(), rank, PieceUse::kSave)) {
    contents.sets.push_back(std::move(set));
  }
  contents.small_files = std::move(small_files);
  instance.context().compute().Synchronize();
  return SaveCheckpoint(
      files, *world.host, options.train.run_dir, contents,
      {.keep_newest = options.checkpoint.keep, .keep_every = options.checkpoint.keep_every});
}

void PlanSave(const RunOptions& options, ModelInstance& instance) {
  if (options.model.tie != Tie::kSwapHalves) {
    return;
  }
  const Arena::Scope scope(instance.context().arena());
  // What all ranks have whole needs no memory for a save, whichever rank it is.
  std::vector<TensorSet> sets = WeightSets(instance.params(), /*rank=*/0, PieceUse::kSave);
  const TensorPiece* table = FindTable(instance, SetNamed(sets, "model"));
  if (table != nullptr) {
    AllocateSwappedHead(instance.context().arena(), *table);
  }
}

absl::Status LoadTraining(FileSystem& files, World& world, Trainer& trainer,
                          const Checkpoint& checkpoint) {
  ModelInstance& instance = trainer.instance();
  RETURN_IF_ERROR(LoadParameters(files, *world.host, *world.data_parallel, instance, checkpoint));
  for (TensorSet& set : StateSets(trainer, instance.params(), world.mesh.rank(), PieceUse::kLoad)) {
    RETURN_IF_ERROR(LoadPieces(files, *world.host, checkpoint, set.name, set.pieces));
  }
  return absl::OkStatus();
}

absl::Status LoadParameters(FileSystem& files, HostGroup& host, Communicator& data_parallel,
                            ModelInstance& instance, const Checkpoint& checkpoint) {
  ParameterStore& params = instance.params();
  for (TensorSet& set : WeightSets(params, host.rank(), PieceUse::kLoad)) {
    RETURN_IF_ERROR(LoadPieces(files, host, checkpoint, set.name, set.pieces));
  }
  Context& ctx = instance.context();
  params.Publish(data_parallel, ctx.compute(), ctx.exchange());
  return absl::OkStatus();
}

}  // namespace panthera
