#ifndef PANTHERA_LAUNCHER_REPORT_COMMAND_H_
#define PANTHERA_LAUNCHER_REPORT_COMMAND_H_

namespace CLI {
class App;
}

namespace panthera {

// Adds `panthera report` to `app`. When it runs it sets `exit_code` (exit_codes.h).
void AddReportCommand(CLI::App& app, int& exit_code);

}  // namespace panthera

#endif  // PANTHERA_LAUNCHER_REPORT_COMMAND_H_
