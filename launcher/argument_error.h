#ifndef PANTHERA_LAUNCHER_ARGUMENT_ERROR_H_
#define PANTHERA_LAUNCHER_ARGUMENT_ERROR_H_

#include <functional>
#include <string>

namespace CLI {
class App;
class ParseError;
}  // namespace CLI

namespace panthera {

// What is wrong with a command line that `app` refused to parse, as one line that names the
// subcommand, the argument, and what to write instead or where to read about it.
std::string DescribeArgumentError(const CLI::App& app, const CLI::ParseError& error);

// Checks for CLI::Option::check: what is wrong with a value, or nothing. The ends of a range are in
// it; "nan" is in none.
using ArgumentCheck = std::function<std::string(const std::string& text)>;
ArgumentCheck NumberOfAtLeast(double least);
ArgumentCheck NumberBetween(double least, double most);

}  // namespace panthera

#endif  // PANTHERA_LAUNCHER_ARGUMENT_ERROR_H_
