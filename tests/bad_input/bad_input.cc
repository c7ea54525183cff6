#include "tests/bad_input/bad_input.h"

#include <algorithm>
#include <map>
#include <regex>

#include "gmock/gmock.h"
#include "gtest/gtest.h"

#include "tests/bad_input/error_table.h"
#include "tests/bad_input/program_run.h"

namespace panthera::testing {
namespace {

using ::testing::Each;
using ::testing::HasSubstr;
using ::testing::SizeIs;

using Files = std::map<std::string, std::string>;

// The names of what differs.
std::vector<std::string> Differences(const Files& before, const Files& after) {
  std::vector<std::string> names;
  for (const auto& [name, bytes] : after) {
    const auto old = before.find(name);
    if (old == before.end()) {
      names.push_back("created " + name);
    } else if (old->second != bytes) {
      names.push_back("changed " + name);
    }
  }
  for (const auto& [name, bytes] : before) {
    if (after.count(name) == 0) {
      names.push_back("removed " + name);
    }
  }
  return names;
}

// Without what depends on the machine: amounts of memory, and the words of the TOML library.
std::string WithStableWords(const std::string& message) {
  static const std::regex kBytes("[0-9.]+ [KMGTPE]iB");
  static const std::regex kTomlProblem("this is not TOML: .*; write ");
  return std::regex_replace(std::regex_replace(message, kBytes, "N GiB"), kTomlProblem,
                            "this is not TOML: ...; write ");
}

// The message, without the end of its line.
std::string Run(const BadInput& bad) {
  const Workspace workspace(bad.contents);
  if (bad.spoil) {
    bad.spoil(workspace);
  }
  const Files before = workspace.Snapshot();
  const ProgramRun run = RunProgram(workspace.path(), bad.arguments, bad.ranks);
  EXPECT_FALSE(run.timed_out) << "still running after the deadline";
  EXPECT_THAT(run.exit_codes, SizeIs(static_cast<size_t>(bad.ranks))) << "ranks that ended";
  EXPECT_THAT(run.exit_codes, Each(bad.exit_code));
  EXPECT_THAT(Differences(before, workspace.Snapshot()), SizeIs(0));
  EXPECT_EQ(run.output.substr(0, bad.progress.size()), bad.progress);
  std::string message = run.output.substr(std::min(bad.progress.size(), run.output.size()));
  EXPECT_EQ(message.find('\n') + 1, message.size()) << "not one line:\n" << run.output;
  message = message.substr(0, message.find('\n'));
  EXPECT_THAT(message, HasSubstr(bad.names)) << "the place";
  EXPECT_THAT(message, HasSubstr(bad.fix)) << "the way out";
  EXPECT_THAT(message, ::testing::Not(HasSubstr(workspace.path())));
  return WithStableWords(message);
}

}  // namespace

void ExpectNamed(const std::string& subject, const std::vector<BadInput>& cases) {
  std::vector<ErrorRow> rows;
  for (const BadInput& bad : cases) {
    SCOPED_TRACE(bad.what);
    rows.push_back({bad.what, Run(bad), bad.exit_code});
  }
  ExpectInErrorTable(subject, rows);
}

}  // namespace panthera::testing
