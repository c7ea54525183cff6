#include "launcher/report_command.h"

#include <iostream>
#include <memory>
#include <string>
#include <vector>

#include "CLI/CLI.hpp"

#include "launcher/exit_codes.h"
#include "launcher/run_record.h"
#include "launcher/run_report.h"
#include "runtime/base/status_macros.h"

namespace panthera {
namespace {

struct ReportArguments {
  std::vector<std::string> runs;
  std::string output;
  std::string title = "Runs side by side";
};

constexpr char kFooter[] =
    "Examples:\n"
    "  panthera report runs/a runs/b --output report.html\n"
    "  launcher/experiment outliers TEXT...       trains a family of runs and reports on them\n"
    "\n"
    "Runs that lie in different directories have tables and curves of their own. Only reads what\n"
    "runs have written; they may be going on.";

absl::Status WriteReport(const ReportArguments& arguments) {
  PosixFileSystem files;
  std::vector<RunRecord> runs;
  for (const std::string& directory : arguments.runs) {
    ASSIGN_OR_RETURN(RunRecord run, ReadRunRecord(files, directory));
    if (run.damaged_lines > 0) {
      std::cerr << "panthera report: " << directory
                << "/metrics.jsonl is damaged: " << run.damaged_lines
                << (run.damaged_lines == 1 ? " line is" : " lines are")
                << " no step and left out; the rest is reported" << std::endl;
    }
    runs.push_back(std::move(run));
  }
  return WriteFile(files, arguments.output, RunReportPage(arguments.title, runs));
}

int Report(const ReportArguments& arguments) {
  if (const absl::Status written = WriteReport(arguments); !written.ok()) {
    std::cerr << "panthera report: " << std::string(written.message()) << std::endl;
    return kExitRefused;
  }
  std::cout << "report: " << arguments.output << ", " << arguments.runs.size()
            << (arguments.runs.size() == 1 ? " run" : " runs") << std::endl;
  return kExitDone;
}

}  // namespace

void AddReportCommand(CLI::App& app, int& exit_code) {
  CLI::App* command =
      app.add_subcommand("report", "Compares runs in one HTML page, with a table and curves");
  auto arguments = std::make_shared<ReportArguments>();
  command->add_option("RUN_DIR", arguments->runs, "directories of runs")->type_name("")->required();
  command->add_option("--output", arguments->output, "the page")->type_name("FILE")->required();
  command->add_option("--title", arguments->title, "its title")
      ->type_name("TEXT")
      ->capture_default_str();
  command->footer(kFooter);
  command->callback([arguments, &exit_code] { exit_code = Report(*arguments); });
}

}  // namespace panthera
