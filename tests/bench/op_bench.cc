// Speed of the ops by themselves, each next to what memory or the matrix library reaches in the
// same process. Takes Google Benchmark's arguments, such as --benchmark_filter=Attention.
#include <unistd.h>

#include <vector>

#include <benchmark/benchmark.h>

namespace {

// A share comes from a rate, but is none: it is printed without "per second".
class ShareReporter : public benchmark::ConsoleReporter {
 public:
  ShareReporter() : ConsoleReporter(isatty(STDOUT_FILENO) != 0 ? OO_Defaults : OO_Tabular) {}

  void ReportRuns(const std::vector<Run>& reports) override {
    std::vector<Run> runs = reports;
    for (Run& run : runs) {
      const auto share = run.counters.find("share");
      if (share != run.counters.end()) {
        share->second.flags = benchmark::Counter::kDefaults;
      }
    }
    ConsoleReporter::ReportRuns(runs);
  }
};

}  // namespace

int main(int argc, char** argv) {
  benchmark::Initialize(&argc, argv);
  if (benchmark::ReportUnrecognizedArguments(argc, argv)) {
    return 2;
  }
  ShareReporter reporter;
  benchmark::RunSpecifiedBenchmarks(&reporter);
  return 0;
}
