#include "launcher/train_command.h"

#include <iostream>
#include <memory>
#include <string>
#include <utility>

#include "CLI/CLI.hpp"

#include "launcher/config_arguments.h"
#include "launcher/config_file.h"
#include "launcher/exit_codes.h"
#include "launcher/stop_request.h"
#include "launcher/training_run.h"
#include "launcher/world.h"
#include "runtime/base/log.h"
#include "runtime/base/status_macros.h"

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
    "Exit codes: 0 done, 2 refused with nothing changed, 3 loss not finite, 4 failed in the "
    "middle,\n"
    "70 a call between ranks failed, 75 stopped by a signal after saving.";

absl::StatusOr<RunOptions> ReadOptions(const TrainArguments& arguments, HostGroup& host) {
  RunOptions options;
  RETURN_IF_ERROR(
      LoadSharedConfig(host, arguments.config.path, arguments.config.overrides, options));
  RETURN_IF_ERROR(options.Finish(host.size()));
  if (options.device.kind == DeviceChoice::kCuda) {
    return absl::UnimplementedError(
        "device.kind = \"cuda\": this program was built without CUDA; use \"cpu\" or \"auto\"");
  }
  return options;
}

// A message that every rank has, printed once.
int Refuse(const MpiRuntime& runtime, const absl::Status& status) {
  if (runtime.rank() == 0) {
    std::cerr << "panthera train: " << std::string(status.message()) << std::endl;
  }
  return kExitRefused;
}

int Train(const TrainArguments& arguments) {
  const MpiRuntime runtime;
  SetLogRank(runtime.size() == 1 ? -1 : runtime.rank());
  ShareCores(runtime);
  std::unique_ptr<HostGroup> host = ConnectHosts(runtime);
  absl::StatusOr<RunOptions> options = ReadOptions(arguments, *host);
  if (!options.ok()) {
    return Refuse(runtime, options.status());
  }
  absl::StatusOr<World> world = ConnectWorld(runtime, options->parallel, std::move(host));
  if (!world.ok()) {
    return Refuse(runtime, world.status());
  }
  ListenForStopSignals();
  const StartMode start = arguments.fresh ? StartMode::kFresh : StartMode::kResume;
  absl::StatusOr<std::unique_ptr<TrainingRun>> run = TrainingRun::Open(*options, start, *world);
  if (!run.ok()) {
    return Refuse(runtime, run.status());
  }
  const absl::StatusOr<int> exit_code = (*run)->Run([] { return RequestedStopSignal() != 0; });
  if (!exit_code.ok()) {
    // The other ranks may not know: they would wait for this one for ever.
    LOG(ERROR) << std::string(exit_code.status().message());
    runtime.Abort(kExitFailed);
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
