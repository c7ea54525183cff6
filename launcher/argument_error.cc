#include "launcher/argument_error.h"

#include <optional>
#include <vector>

#include "CLI/CLI.hpp"
#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"

#include "launcher/closest_name.h"

namespace panthera {
namespace {

// The subcommand that was being parsed, or the program itself.
const CLI::App& ParsedCommand(const CLI::App& app) {
  const std::vector<CLI::App*> commands = app.get_subcommands();
  return commands.empty() ? app : *commands.front();
}

std::vector<std::string> SubcommandNames(const CLI::App& app) {
  std::vector<std::string> names;
  for (const CLI::App* command : app.get_subcommands([](const CLI::App*) { return true; })) {
    names.push_back(command->get_name());
  }
  return names;
}

std::vector<std::string> FlagNames(const CLI::App& command) {
  std::vector<std::string> names;
  for (const CLI::Option* option : command.get_options()) {
    for (const std::string& name : option->get_lnames()) {
      names.push_back(absl::StrCat("--", name));
    }
  }
  return names;
}

// An argument that nothing was waiting for.
std::string DescribeExtra(const CLI::App& app, const CLI::App& command, const std::string& extra) {
  const bool is_flag = extra.size() > 1 && extra.front() == '-';
  const bool is_subcommand = !is_flag && &command == &app;
  std::optional<std::string> closest;
  if (is_subcommand) {
    closest = ClosestName(extra, SubcommandNames(app));
  } else if (is_flag) {
    closest = ClosestName(extra.substr(0, extra.find('=')), FlagNames(command));
  }
  return absl::StrCat(is_subcommand ? "unknown subcommand"
                      : is_flag     ? "unknown flag"
                                    : "one argument too many:",
                      " `", extra, "`",
                      closest.has_value() ? absl::StrCat("; did you mean `", *closest, "`?") : "");
}

ArgumentCheck NumberIn(const std::string& range, const std::function<bool(double)>& contains) {
  return [range, contains](const std::string& text) {
    double value = 0;
    return absl::SimpleAtod(text, &value) && contains(value)
               ? std::string()
               : absl::StrCat(text, " is not a number ", range);
  };
}

}  // namespace

std::string DescribeArgumentError(const CLI::App& app, const CLI::ParseError& error) {
  const CLI::App& command = ParsedCommand(app);
  const std::string name = &command == &app ? "panthera" : "panthera " + command.get_name();
  const std::vector<std::string> extras = app.remaining(/*recurse=*/true);
  const bool has_extra = dynamic_cast<const CLI::ExtrasError*>(&error) != nullptr;
  const std::string problem = has_extra && !extras.empty()
                                  ? DescribeExtra(app, command, extras.front())
                                  : std::string(error.what());
  return absl::StrCat(name, ": ", problem, problem.back() == '?' ? " (" : "; see ", "`", name,
                      " --help`", problem.back() == '?' ? " lists what there is)" : "");
}

ArgumentCheck NumberOfAtLeast(double least) {
  return NumberIn(absl::StrCat("of at least ", least),
                  [least](double value) { return value >= least; });
}

ArgumentCheck NumberBetween(double least, double most) {
  return NumberIn(absl::StrCat("from ", least, " to ", most),
                  [least, most](double value) { return value >= least && value <= most; });
}

}  // namespace panthera
