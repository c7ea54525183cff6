#include "launcher/config_arguments.h"

#include "CLI/CLI.hpp"

namespace panthera {

void AddConfigArguments(CLI::App& command, Presence presence, ConfigArguments& arguments) {
  CLI::Option* config =
      command.add_option("CONFIG", arguments.path, "configuration file, such as those in configs/")
          ->type_name("");
  if (presence == Presence::kRequired) {
    config->required();
  }
  command
      .add_option("--set", arguments.overrides,
                  "replaces one value of the configuration; may be repeated")
      ->type_name("SECTION.KEY=VALUE")
      ->allow_extra_args(false);
}

}  // namespace panthera
