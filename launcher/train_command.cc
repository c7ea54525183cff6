#include "launcher/train_command.h"

#include <algorithm>
#include <chrono>
#include <iostream>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "CLI/CLI.hpp"
#include "absl/cleanup/cleanup.h"
#include "absl/strings/str_cat.h"

#include "launcher/config_arguments.h"
#include "launcher/config_file.h"
#include "launcher/device_choice.h"
#include "launcher/exit_codes.h"
#include "launcher/progress.h"
#include "launcher/stop_request.h"
#include "launcher/training_run.h"
#include "launcher/watchdog.h"
#include "launcher/watched_calls.h"
#include "launcher/world.h"
#include "runtime/base/log.h"
#include "runtime/base/status_macros.h"
#include "runtime/device/cuda_device.h"

namespace panthera {
namespace {

struct TrainArguments {
  ConfigArguments config;
  bool fresh = false;
};

constexpr char kFooter[] =
    "Examples:\n"
    "  panthera train configs/quickstart.toml\n"
    "  mpirun -np 2 panthera train configs/quickstart.toml --set train.steps=200\n"
    "  srun panthera train configs/llama_1b_8gpu.toml\n"
    "\n"
    "Started again with the same configuration, a run goes on from its newest checkpoint.\n"
    "SIGUSR1 and SIGTERM save at the end of the step and stop with exit code 75.\n"
    "Exit codes: 0 done, 2 refused with nothing changed, 3 too much not finite, 4 failed in the "
    "middle,\n"
    "5 bits of weights or optimizer state flipped by themselves, 70 a rank or the launcher was "
    "lost,\n"
    "75 stopped by a signal after saving, 76 no rank made progress for train.stall_seconds.";

absl::StatusOr<RunOptions> ReadOptions(const TrainArguments& arguments, HostGroup& host) {
  RunOptions options;
  RETURN_IF_ERROR(
      LoadSharedConfig(host, arguments.config.path, arguments.config.overrides, options));
  RETURN_IF_ERROR(options.Finish(host.size()));
  return options;
}

// Tells the user where it computes if that may not be what was expected.
void NoteDevice(const TrainArguments& arguments, DeviceChoice choice, const World& world) {
  if (world.mesh.rank() != 0 || choice == DeviceChoice::kCpu) {
    return;
  }
  const absl::StatusOr<int> gpus = CountCudaDevices();
  // A build without CUDA says "unimplemented", and its users expect the CPU.
  if (gpus.status().code() == absl::StatusCode::kFailedPrecondition) {
    LOG(INFO) << "computing on the CPU: " << std::string(gpus.status().message());
  } else if (world.device.is_cuda() && world.mesh.world_size() == 1) {
    std::vector<std::string> command = {"train", arguments.config.path};
    for (const std::string& setting : arguments.config.overrides) {
      command.insert(command.end(), {"--set", absl::StrCat("'", setting, "'")});
    }
    const std::string hint = MoreGpusHint(*gpus, command);
    if (!hint.empty()) {
      LOG(INFO) << hint;
    }
  }
}

// A message that every rank has, printed once.
int Refuse(const MpiRuntime& runtime, const absl::Status& status) {
  if (runtime.rank() == 0) {
    std::cerr << "panthera train: " << std::string(status.message()) << std::endl;
  }
  return kExitRefused;
}

// Whether a rank has been asked to stop; the same answer on every rank.
bool AskedToStop(HostGroup& host) {
  const std::vector<int> signals = AllGatherValue(host, RequestedStopSignal());
  return std::any_of(signals.begin(), signals.end(), [](int signal) { return signal != 0; });
}

int Train(const TrainArguments& arguments) {
  // First of all: a signal that comes while the job starts must not be lost.
  ListenForStopSignals();
  Progress progress;
  Watchdog watchdog(progress, std::chrono::seconds(TrainOptions().stall_seconds));
  const MpiRuntime runtime;
  SetLogRank(runtime.size() == 1 ? -1 : runtime.rank());
  ShareCores(runtime);
  const absl::Cleanup leave = [&] {
    progress.Enter(Phase::kEnding);
    watchdog.Leave();
  };
  std::unique_ptr<HostGroup> host = WatchCalls(ConnectHosts(runtime), progress);
  progress.Enter(Phase::kReadingConfiguration);
  absl::StatusOr<RunOptions> options = ReadOptions(arguments, *host);
  if (!options.ok()) {
    return Refuse(runtime, options.status());
  }
  watchdog.Join(*host, std::chrono::seconds(options->train.stall_seconds));
  absl::StatusOr<World> world =
      ConnectWorld(runtime, options->parallel, options->device, std::move(host));
  if (!world.ok()) {
    return Refuse(runtime, world.status());
  }
  NoteDevice(arguments, options->device.kind, *world);
  world->progress = &progress;
  for (std::unique_ptr<Communicator>* ranks :
       {&world->data_parallel, &world->tensor_parallel, &world->data_parallel_on_host,
        &world->tensor_parallel_on_host}) {
    if (*ranks != nullptr) {
      *ranks = WatchCalls(std::move(*ranks), progress);
    }
  }
  const StartMode start = arguments.fresh ? StartMode::kFresh : StartMode::kResume;
  absl::StatusOr<std::unique_ptr<TrainingRun>> run = TrainingRun::Open(*options, start, *world);
  if (!run.ok()) {
    return Refuse(runtime, run.status());
  }
  if (AskedToStop(*world->host)) {
    if (runtime.rank() == 0) {
      LOG(INFO) << "asked to stop before the first step: nothing was changed, and the same command "
                   "goes on";
    }
    return kExitStoppedBySignal;
  }
  const absl::StatusOr<int> exit_code = (*run)->Run([] { return RequestedStopSignal() != 0; });
  if (!exit_code.ok()) {
    // The other ranks may not know: they would wait for this one for ever.
    LOG(ERROR) << std::string(exit_code.status().message());
    runtime.Abort(absl::IsUnavailable(exit_code.status()) ? kExitPeerLost : kExitFailed);
  }
  return *exit_code;
}

}  // namespace

void AddTrainCommand(CLI::App& app, int& exit_code) {
  CLI::App* command = app.add_subcommand("train", "Pretrains a model, or goes on with a run");
  auto arguments = std::make_shared<TrainArguments>();
  AddConfigArguments(*command, Presence::kRequired, arguments->config);
  command->add_flag("--fresh", arguments->fresh,
                    "begins anew; what the run directory holds is moved to set_aside_1, 2, ...");
  command->footer(kFooter);
  command->callback([arguments, &exit_code] { exit_code = Train(*arguments); });
}

}  // namespace panthera
