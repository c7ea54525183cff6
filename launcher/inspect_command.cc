#include "launcher/inspect_command.h"

#include <iostream>
#include <memory>
#include <string>

#include "CLI/CLI.hpp"

#include "launcher/exit_codes.h"
#include "launcher/inspection.h"

namespace panthera {
namespace {

struct InspectArguments {
  std::string path;
  InspectOptions options;
};

constexpr char kFooter[] =
    "Examples:\n"
    "  panthera inspect runs/quickstart                             its checkpoints and progress\n"
    "  panthera inspect runs/quickstart/checkpoints/step_00000500 --verify --tensors\n"
    "  panthera inspect data/quickstart/train --sequence-length 512\n"
    "\n"
    "Only reads; a run that is training is not disturbed.\n"
    "Exit codes: 0 whole, 1 damaged, 2 nothing that is known here, or it cannot be read.";

int RunInspect(const InspectArguments& arguments) {
  PosixFileSystem files;
  const absl::StatusOr<Wholeness> wholeness =
      Inspect(files, arguments.path, arguments.options, std::cout);
  if (!wholeness.ok()) {
    std::cerr << "panthera inspect: " << std::string(wholeness.status().message()) << std::endl;
    return kExitRefused;
  }
  return *wholeness == Wholeness::kWhole ? kExitDone : kExitDamaged;
}

}  // namespace

void AddInspectCommand(CLI::App& app, int& exit_code) {
  CLI::App* command = app.add_subcommand(
      "inspect", "What a run, checkpoint, tensor, token or tokenizer file is, and whether whole");
  auto arguments = std::make_shared<InspectArguments>();
  command->add_option("PATH", arguments->path, "what to look at")->type_name("")->required();
  command->add_flag("--verify", arguments->options.verify,
                    "reads every byte and checks it against its checksum");
  command->add_flag("--tensors", arguments->options.tensors,
                    "lists every tensor; with --verify, its least and largest value, root mean "
                    "square, and how many numbers are not finite");
  command
      ->add_option("--sequence-length", arguments->options.sequence_length,
                   "tokens of a sample, to count those of a token file")
      ->type_name("T")
      ->check(CLI::PositiveNumber)
      ->capture_default_str();
  command->footer(kFooter);
  command->callback([arguments, &exit_code] { exit_code = RunInspect(*arguments); });
}

}  // namespace panthera
