// What a run has left on the disk.
#ifndef PANTHERA_TESTS_DEATHS_RUN_RECORD_H_
#define PANTHERA_TESTS_DEATHS_RUN_RECORD_H_

#include <cstdint>
#include <map>
#include <string>
#include <vector>

namespace panthera::testing {

// The newest checkpoint that has its final name; 0 if there is none.
int64_t NewestCheckpoint(const std::string& run_dir);
// Whether a save has begun and is not finished.
bool SaveIsUnderWay(const std::string& run_dir);
// Names under RUN_DIR/checkpoints that are no finished checkpoint.
std::vector<std::string> Leftovers(const std::string& run_dir);

// Whole lines of metrics.jsonl.
int64_t CountMetricsLines(const std::string& run_dir);
// The lines without what depends on the clock. A line that is not whole becomes "broken".
std::vector<std::string> TimelessMetrics(const std::string& run_dir);

// The bytes of every tensor file of a step's checkpoint, by name.
std::map<std::string, std::string> TensorFiles(const std::string& run_dir, int64_t step);

}  // namespace panthera::testing

#endif  // PANTHERA_TESTS_DEATHS_RUN_RECORD_H_
