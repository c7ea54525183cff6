#include <iostream>
#include <string>

#include "CLI/CLI.hpp"

#include "launcher/argument_error.h"
#include "launcher/config_command.h"
#include "launcher/convert_command.h"
#include "launcher/eval_command.h"
#include "launcher/exit_codes.h"
#include "launcher/generate_command.h"
#include "launcher/inspect_command.h"
#include "launcher/plan_command.h"
#include "launcher/report_command.h"
#include "launcher/tokenize_command.h"
#include "launcher/train_command.h"
#include "launcher/version.h"

namespace {

constexpr char kDescription[] =
    "Panthera pretrains large language models on one machine or many.\n"
    "Everything about a run stands in one TOML file; `mpirun` or `srun` starts one worker per "
    "GPU,\n"
    "or per share of the CPU where there is no GPU, and a run that was stopped goes on where it\n"
    "was when the same command is started again.\n";

constexpr char kExamples[] =
    "Examples:\n"
    "  panthera plan configs/llama_1b_8gpu.toml --ranks 8     what it will need, without a GPU\n"
    "  mpirun -np 8 panthera train configs/llama_1b_8gpu.toml\n"
    "  mpirun -np 2 panthera train configs/quickstart.toml --set train.steps=100\n"
    "  panthera config                                        every key that a file can have\n"
    "  panthera COMMAND --help                                a command's own arguments\n";

}  // namespace

int main(int argc, char** argv) {
  CLI::App app(kDescription, "panthera");
  app.set_version_flag("--version", std::string("panthera ") + panthera::kVersion);
  app.require_subcommand(0, 1);

  int exit_code = 0;
  panthera::AddTrainCommand(app, exit_code);
  panthera::AddPlanCommand(app, exit_code);
  panthera::AddEvalCommand(app, exit_code);
  panthera::AddGenerateCommand(app, exit_code);
  panthera::AddTokenizeCommand(app, exit_code);
  panthera::AddInspectCommand(app, exit_code);
  panthera::AddConvertCommand(app, exit_code);
  panthera::AddReportCommand(app, exit_code);
  panthera::AddConfigCommand(app, exit_code);

  // After the commands, which would inherit it.
  app.footer(kExamples);

  try {
    app.parse(argc, argv);
  } catch (const CLI::ParseError& error) {
    if (error.get_exit_code() == 0) {
      return app.exit(error);  // prints what --help or --version asked for
    }
    std::cerr << panthera::DescribeArgumentError(app, error) << std::endl;
    return panthera::kExitRefused;
  }
  if (app.get_subcommands().empty()) {
    std::cout << app.help();
  }
  return exit_code;
}
