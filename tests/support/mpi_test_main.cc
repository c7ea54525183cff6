#include "tests/support/mpi_test_main.h"

#include <unistd.h>

#include <iostream>
#include <memory>
#include <sstream>
#include <string>

#include "absl/status/status.h"
#include "gtest/gtest.h"

#include "runtime/base/check.h"
#include "runtime/base/log.h"
#include "runtime/comm/host_group.h"
#include "runtime/comm/mpi_communicator.h"
#include "runtime/comm/mpi_host_group.h"

namespace panthera::testing {
namespace {

constexpr unsigned kSecondsPerTest = 240;
constexpr int kFailureExitCode = 1;

// TEST bodies take no arguments, so what main() made reaches them through these two.
MpiRuntime* test_runtime = nullptr;
RankWorld* test_world = nullptr;

// Prints what the default printer would not on ranks other than 0, and keeps ranks together.
class RankListener : public ::testing::EmptyTestEventListener {
 public:
  explicit RankListener(MpiRuntime& runtime) : runtime_(runtime) {}

 private:
  void OnTestStart(const ::testing::TestInfo& test) override {
    test_name_ = std::string(test.test_suite_name()) + "." + test.name();
    // The alarm's default action kills the process, whereupon mpirun ends the job.
    alarm(kSecondsPerTest);
  }

  // GoogleTest calls this under its own lock, so that it must not be asked for the current test.
  void OnTestPartResult(const ::testing::TestPartResult& result) override {
    if (!result.failed()) {
      return;
    }
    const char* file = result.file_name() == nullptr ? "unknown file" : result.file_name();
    std::ostringstream text;
    text << "[rank " << runtime_.rank() << "] " << test_name_ << "\n"
         << file << ":" << result.line_number() << ": " << result.message() << "\n";
    std::cerr << text.str() << std::flush;
    if (result.fatally_failed()) {
      runtime_.Abort(kFailureExitCode);
    }
  }

  void OnTestEnd(const ::testing::TestInfo&) override { alarm(0); }

  MpiRuntime& runtime_;
  std::string test_name_ = "outside tests";
};

int RunTests(MpiRuntime& runtime) {
  ::testing::TestEventListeners& listeners = ::testing::UnitTest::GetInstance()->listeners();
  if (runtime.rank() != 0) {
    delete listeners.Release(listeners.default_result_printer());
  }
  listeners.Append(new RankListener(runtime));  // GoogleTest owns it
  const bool passed = RUN_ALL_TESTS() == 0;
  const absl::Status all_passed =
      Agree(test_world->host(), passed ? absl::OkStatus() : absl::UnknownError("a test failed"));
  return all_passed.ok() ? 0 : kFailureExitCode;
}

}  // namespace

const MpiRuntime& MpiTestRuntime() {
  CHECK(test_runtime != nullptr);
  return *test_runtime;
}

RankWorld& MpiTestWorld() {
  CHECK(test_world != nullptr);
  return *test_world;
}

}  // namespace panthera::testing

int main(int argc, char** argv) {
  using panthera::CreateMpiCommunicator;
  using panthera::CreateMpiHostGroup;
  namespace support = panthera::testing;

  ::testing::InitGoogleTest(&argc, argv);
  panthera::MpiRuntime runtime;
  panthera::SetLogRank(runtime.rank());
  support::RankWorld world([&runtime](int color) { return CreateMpiHostGroup(runtime, color); },
                           [&runtime](int color) { return CreateMpiCommunicator(runtime, color); });
  support::test_runtime = &runtime;
  support::test_world = &world;
  return support::RunTests(runtime);
}
