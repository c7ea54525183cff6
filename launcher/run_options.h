// Everything that describes a run, in the sections of its configuration file.
#ifndef PANTHERA_LAUNCHER_RUN_OPTIONS_H_
#define PANTHERA_LAUNCHER_RUN_OPTIONS_H_

#include <cstdint>
#include <string>

#include "absl/status/status.h"
#include "absl/status/statusor.h"

#include "model/options.h"
#include "optim/options.h"
#include "runtime/base/fields.h"
#include "runtime/comm/mesh.h"
#include "runtime/data/options.h"

namespace panthera {

struct TrainOptions {
  int64_t steps = 0;
  int64_t global_batch = 0;
  int64_t micro_batch = 0;
  int64_t seed = 0;
  std::string run_dir;
  std::string start_from;
  int64_t stall_seconds = 1200;
  int64_t check_every = 100;

  void VisitFields(FieldVisitor& visit) {
    visit.Int({"steps", "optimizer steps of the whole run"}, steps, {1, int64_t{1} << 40});
    visit.Int({"global_batch", "sequences per optimizer step, over all ranks"}, global_batch,
              {1, 1 << 30});
    visit.Int({"micro_batch",
               "sequences that one data-parallel rank computes at a time; the number "
               "of micro-steps follows"},
              micro_batch, {1, 1 << 30});
    visit.Int({"seed", "of initial values and of stochastic rounding"}, seed, {});
    visit.Text({"run_dir", "folder of this run's checkpoints, logs and resolved configuration"},
               run_dir);
    visit.Text({"start_from",
                "folder of the weights that a new run begins with: a Hugging Face model (Llama or "
                "Mistral), or a checkpoint or run of Panthera; one that goes on does not read it; "
                "\"\": random ones"},
               start_from);
    visit.Int({"stall_seconds",
               "the job is ended (exit code 76) when no rank has made progress for so long; 0: "
               "never"},
              stall_seconds, {0, int64_t{7} * 86400});
    visit.Int({"check_every",
               "optimizer steps between looks for flipped bits, by hashes of weights and optimizer "
               "state that ranks compare, which end the run (exit code 5); they come before every "
               "save too; 0: never, not before saves either"},
              check_every, {});
  }
};

struct EvalOptions {
  int64_t every = 0;
  int64_t sequences = 0;

  void VisitFields(FieldVisitor& visit) {
    visit.Int({"every", "optimizer steps between measurements on data.validation; 0: never"}, every,
              {});
    visit.Int({"sequences", "sequences of a measurement; 0: all of data.validation"}, sequences,
              {});
  }
};

// From what a checkpoint is written.
enum class CheckpointStaging : uint8_t {
  kNone,  // the tensors themselves; training stands still meanwhile
  kCopy,  // a copy of them in host memory; training goes on
};
template <>
struct EnumNames<CheckpointStaging> {
  static constexpr const char* kNames[] = {"none", "copy"};
};

struct CheckpointOptions {
  int64_t every = 0;
  int64_t keep = 2;
  int64_t keep_every = 0;
  CheckpointStaging staging = CheckpointStaging::kCopy;

  void VisitFields(FieldVisitor& visit) {
    visit.Int({"every", "optimizer steps between checkpoints; 0: only at the end"}, every, {});
    visit.Int({"keep", "newest checkpoints that are kept"}, keep, {1});
    visit.Int({"keep_every", "checkpoints at multiples of this step are kept for good; 0: none"},
              keep_every, {});
    visit.Enum({"staging",
                "copy: a checkpoint is written beside training, from a copy in host memory of all "
                "that a rank saves; none: without that memory, while training stands still"},
               staging);
  }
};

struct LogOptions {
  int64_t every = 10;

  void VisitFields(FieldVisitor& visit) {
    visit.Int({"every", "optimizer steps between log lines"}, every, {1});
  }
};

enum class DeviceChoice : uint8_t {
  kAuto,  // kCuda where there is a GPU, else kCpu
  kCpu,
  kCuda,
};
template <>
struct EnumNames<DeviceChoice> {
  static constexpr const char* kNames[] = {"auto", "cpu", "cuda"};
};

// How data travels between workers of a host that has fewer GPUs than workers.
enum class DeviceSharing : uint8_t {
  kRefuse,  // not at all: every worker needs a GPU of its own
  kMpi,     // through host memory and MPI, also where there are enough GPUs
  kNccl,    // through NCCL, which does not support it; see comm/nccl_environment.h
};
template <>
struct EnumNames<DeviceSharing> {
  static constexpr const char* kNames[] = {"refuse", "mpi", "nccl"};
};

struct DeviceOptions {
  DeviceChoice kind = DeviceChoice::kAuto;
  DeviceSharing sharing = DeviceSharing::kRefuse;

  void VisitFields(FieldVisitor& visit) {
    visit.Enum({"kind", "what a worker computes on; auto: a GPU if there is one"}, kind);
    visit.Enum({"sharing",
                "workers of a host that outnumber its GPUs; refuse: do not start; mpi: share GPUs "
                "and exchange data through host memory; nccl: share GPUs through NCCL "
                "(experimental)"},
               sharing);
  }
};

// Visits the fields of a run, section by section.
class SectionVisitor : public FieldVisitor {
 public:
  virtual void BeginSection(const FieldInfo& info) = 0;
  virtual void EndSection() = 0;

  template <typename Options>
  void Section(const FieldInfo& info, Options& options) {
    BeginSection(info);
    options.VisitFields(*this);
    EndSection();
  }
};

struct RunOptions {
  ModelOptions model;
  OptimOptions optim;  // optim.schedule is the section [schedule]
  DataOptions data;
  ParallelOptions parallel;
  TrainOptions train;
  EvalOptions eval;
  CheckpointOptions checkpoint;
  LogOptions log;
  DeviceOptions device;

  void VisitSections(SectionVisitor& visit) {
    visit.Section({"model", "shape of the transformer"}, model);
    visit.Section({"optim", "update rule, and how weights and state are stored"}, optim);
    visit.Section({"schedule", "course of the learning rate"}, optim.schedule);
    visit.Section({"data", "what is learned from"}, data);
    visit.Section({"parallel", "how the ranks share the work"}, parallel);
    visit.Section({"train", "length, batch and place of the run"}, train);
    visit.Section({"eval", "loss on held-out data"}, eval);
    visit.Section({"checkpoint", "what is saved, and for how long"}, checkpoint);
    visit.Section({"log", "what is printed"}, log);
    visit.Section({"device", "where it computes"}, device);
  }

  // Fills in the values that stand for a derived one and checks what single ranges cannot: each
  // component, what components ask of each other, and the batch on `world_size` ranks. The error
  // names the keys and values that would work. parallel.data keeps its 0, so that the same options
  // serve any number of ranks. May be called again.
  absl::Status Finish(int world_size);
};

// The micro-steps k of an optimizer step: global_batch = k * micro_batch * data_ranks.
absl::StatusOr<int64_t> CountMicroSteps(const TrainOptions& train, int64_t data_ranks);

// Refuses more tensor-parallel ranks than a layer has parts: every rank must have one of each. The
// parts need not be equal. `model` must be finished. `count` is what the user changes to have
// fewer, such as "parallel.tensor".
absl::Status CheckTensorParallel(const ModelOptions& model, int64_t tensor_ranks,
                                 const char* count);

}  // namespace panthera

#endif  // PANTHERA_LAUNCHER_RUN_OPTIONS_H_
