#ifndef PANTHERA_LAUNCHER_RUN_REPORT_H_
#define PANTHERA_LAUNCHER_RUN_REPORT_H_

#include <span>
#include <string>

#include "launcher/run_record.h"

namespace panthera {

// Runs next to each other on one HTML page that needs nothing else: for each directory that they
// lie in, in the order of their first runs, a table of what the runs came to and their curves -
// loss, held-out loss, the embedding's largest component, the RMS of its rows by the frequency of
// their tokens, and its largest row next to what Tiger's law of growth gives.
std::string RunReportPage(const std::string& title, std::span<const RunRecord> runs);

}  // namespace panthera

#endif  // PANTHERA_LAUNCHER_RUN_REPORT_H_
