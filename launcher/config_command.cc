#include "launcher/config_command.h"

#include <iostream>
#include <memory>
#include <string>

#include "CLI/CLI.hpp"

#include "launcher/config_arguments.h"
#include "launcher/config_file.h"
#include "launcher/config_text.h"
#include "launcher/exit_codes.h"

namespace panthera {
namespace {

int Run(const ConfigArguments& arguments) {
  if (arguments.path.empty()) {
    std::cout << PrintConfigReference();
    return kExitDone;
  }
  RunOptions options;
  const absl::Status status = LoadConfig(arguments.path, arguments.overrides, options);
  if (!status.ok()) {
    std::cerr << "panthera config: " << std::string(status.message()) << std::endl;
    return kExitRefused;
  }
  std::cout << PrintConfig(options);
  return kExitDone;
}

}  // namespace

void AddConfigCommand(CLI::App& app, int& exit_code) {
  CLI::App* command = app.add_subcommand(
      "config", "Prints every key of a configuration with its meaning and value");
  auto arguments = std::make_shared<ConfigArguments>();
  AddConfigArguments(*command, Presence::kOptional, *arguments);
  command->callback([arguments, &exit_code] { exit_code = Run(*arguments); });
}

}  // namespace panthera
