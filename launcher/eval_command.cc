#include "launcher/eval_command.h"

#include <algorithm>
#include <cmath>
#include <iostream>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "CLI/CLI.hpp"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"

#include "launcher/argument_error.h"
#include "launcher/evaluation.h"
#include "launcher/exit_codes.h"
#include "launcher/run_directory.h"
#include "launcher/training_checkpoint.h"
#include "launcher/world.h"
#include "runtime/base/log.h"
#include "runtime/base/status_macros.h"
#include "runtime/comm/plan_communicator.h"

namespace panthera {
namespace {

struct EvalArguments {
  std::string run;
  std::vector<std::string> data;
  std::optional<int64_t> step;
  int64_t sequences = 0;
  int64_t batch = 8;
  ParallelOptions parallel;
  DeviceChoice device = DeviceChoice::kAuto;
};

constexpr char kFooter[] =
    "Examples:\n"
    "  panthera eval runs/quickstart --data data/quickstart/validation\n"
    "  mpirun -np 2 panthera eval runs/quickstart/checkpoints/step_00000500 --data other.bin";

// The model with memory for evaluation, zeroed.
std::unique_ptr<ModelInstance> AllocateModel(const RunOptions& options, const World& world,
                                             int64_t batch, MemoryLedger& ledger) {
  MemoryLedger plan;
  PlanCommunicator data(world.mesh.data_rank, world.mesh.data_size);
  PlanCommunicator tensor(world.mesh.tensor_rank, world.mesh.tensor_size);
  const int64_t rows = batch * options.model.sequence_length;
  ModelInstance meta(options.model, options.optim.weights, {data, tensor},
                     Context::Plan(world.device, plan), rows);
  CHECK_OK(Evaluator(meta, batch).Run(nullptr, batch * world.mesh.data_size, data).status());
  return std::make_unique<ModelInstance>(
      options.model, options.optim.weights, world.axes(),
      std::make_unique<Context>(world.device, ledger, meta.context().arena().peak_bytes()), rows);
}

// Positions [0, 1), [1, 2), [2, 4), [4, 8), ...: how much a longer context helps.
void PrintByPosition(const Evaluation& evaluation) {
  const auto positions = static_cast<int64_t>(evaluation.loss_nats.size());
  std::cout << absl::StrFormat("%17s  %11s  %10s  %8s\n", "positions", "loss (nats)", "perplexity",
                               "accuracy");
  for (int64_t begin = 0; begin < positions;) {
    const int64_t end = std::min(positions, std::max<int64_t>(1, 2 * begin));
    const double loss = evaluation.MeanLoss(begin, end);
    std::cout << absl::StrFormat("%8d to %5d  %11.4f  %10.2f  %7.2f%%\n", begin, end - 1, loss,
                                 std::exp(loss), 100 * evaluation.Accuracy(begin, end));
    begin = end;
  }
}

absl::Status Evaluate(const EvalArguments& arguments, const MpiRuntime& runtime, World& world) {
  PosixFileSystem files;
  ASSIGN_OR_RETURN(const SavedModel saved,
                   OpenSavedModel(files, *world.host, arguments.run, arguments.step));
  const ModelOptions& model = saved.options.model;
  RETURN_IF_ERROR(CheckTensorParallel(model, world.mesh.tensor_size, "--tensor"));
  std::vector<DataSource> sources;
  for (const std::string& path : arguments.data) {
    sources.push_back({.path = path, .weight = 1});
  }
  absl::StatusOr<ValidationSet> set = ValidationSet::Open(
      sources, {.sequence_length = model.sequence_length, .vocab_size = model.vocab_size},
      arguments.sequences);
  RETURN_IF_ERROR(Agree(*world.host, set.status()));
  RETURN_IF_ERROR(Agree(*world.host, set->CheckVocabulary()));
  MemoryLedger ledger;
  const std::unique_ptr<ModelInstance> instance =
      AllocateModel(saved.options, world, arguments.batch, ledger);
  RETURN_IF_ERROR(AdviseOnDamage(
      LoadParameters(files, *world.host, *world.data_parallel, *instance, saved.checkpoint)));
  const absl::StatusOr<Evaluation> evaluation =
      Evaluator(*instance, arguments.batch).Run(&*set, set->size(), world.host_data_parallel());
  if (!evaluation.ok()) {
    // The other ranks may not know: they would wait for this one for ever.
    LOG(ERROR) << std::string(evaluation.status().message());
    runtime.Abort(kExitFailed);
  }
  if (world.mesh.rank() == 0) {
    const double loss = evaluation->MeanLoss();
    std::cout << saved.checkpoint.directory() << " on " << evaluation->sequences << " sequences of "
              << model.sequence_length << " tokens\n";
    PrintByPosition(*evaluation);
    std::cout << absl::StrFormat("loss %.4f nats, perplexity %.2f, next-token accuracy %.2f%%\n",
                                 loss, std::exp(loss), 100 * evaluation->Accuracy());
  }
  return absl::OkStatus();
}

absl::StatusOr<World> Connect(const EvalArguments& arguments, const MpiRuntime& runtime) {
  if (runtime.size() % arguments.parallel.tensor != 0) {
    return absl::InvalidArgumentError(absl::StrFormat(
        "--tensor %d does not divide the %d worker%s; use a divisor, or start a multiple of %d "
        "workers",
        arguments.parallel.tensor, runtime.size(), runtime.size() == 1 ? "" : "s",
        arguments.parallel.tensor));
  }
  // Little travels, once: ranks may share a GPU, and need no NCCL where they do not.
  return ConnectWorld(runtime, arguments.parallel,
                      {.kind = arguments.device, .sharing = DeviceSharing::kMpi},
                      ConnectHosts(runtime));
}

int RunEval(const EvalArguments& arguments) {
  const MpiRuntime runtime;
  SetLogRank(runtime.size() == 1 ? -1 : runtime.rank());
  ShareCores(runtime);
  absl::StatusOr<World> world = Connect(arguments, runtime);
  const absl::Status status = world.ok() ? Evaluate(arguments, runtime, *world) : world.status();
  if (status.ok()) {
    return kExitDone;
  }
  if (runtime.rank() == 0) {
    std::cerr << "panthera eval: " << std::string(status.message()) << std::endl;
  }
  return kExitRefused;
}

}  // namespace

void AddEvalCommand(CLI::App& app, int& exit_code) {
  CLI::App* command =
      app.add_subcommand("eval", "Loss, perplexity and accuracy of a checkpoint on token files");
  auto arguments = std::make_shared<EvalArguments>();
  command
      ->add_option("RUN", arguments->run,
                   "run directory (its newest checkpoint is taken) or checkpoint directory")
      ->type_name("")
      ->required();
  command->add_option("--data", arguments->data, "token files, as in [[data.train]]")
      ->type_name("FILE...")
      ->required();
  command->add_option("--step", arguments->step, "the checkpoint of this step")->type_name("N");
  command
      ->add_option("--sequences", arguments->sequences, "measures on at most this many; 0: on all")
      ->type_name("N")
      ->check(NumberOfAtLeast(0));
  command->add_option("--batch", arguments->batch, "sequences that a rank computes at a time")
      ->type_name("N")
      ->check(NumberOfAtLeast(1))
      ->capture_default_str();
  command
      ->add_option("--tensor", arguments->parallel.tensor,
                   "ranks that share each layer, for models that one cannot hold")
      ->type_name("N")
      ->check(NumberOfAtLeast(1))
      ->capture_default_str();
  command->add_option("--device", arguments->device, "what a rank computes on")
      ->type_name("auto|cpu|cuda")
      ->transform(CLI::CheckedTransformer(
          std::map<std::string, DeviceChoice>{{"auto", DeviceChoice::kAuto},
                                              {"cpu", DeviceChoice::kCpu},
                                              {"cuda", DeviceChoice::kCuda}}));
  command->footer(kFooter);
  command->callback([arguments, &exit_code] { exit_code = RunEval(*arguments); });
}

}  // namespace panthera
