// What `panthera inspect` finds out and prints, one function per kind of thing. All of them read
// only, and take and hold no lock.
#ifndef PANTHERA_LAUNCHER_INSPECTION_H_
#define PANTHERA_LAUNCHER_INSPECTION_H_

#include <cstdint>
#include <ostream>
#include <string>

#include "absl/status/statusor.h"

#include "launcher/run_options.h"
#include "runtime/checkpoint/file.h"

namespace panthera {

struct InspectOptions {
  bool verify = false;   // read every byte, not only what is cheap
  bool tensors = false;  // list every tensor; with `verify`, its statistics too
  int64_t sequence_length = 1024;
};

enum class Wholeness : uint8_t { kWhole, kDamaged };

// Tells what `path` is and calls the function for it. The error: it is nothing that is known here,
// it is of a version that this program does not read, or it cannot be read.
absl::StatusOr<Wholeness> Inspect(FileSystem& files, const std::string& path,
                                  const InspectOptions& options, std::ostream& out);

// A directory with a manifest, or one that should have had one.
absl::StatusOr<Wholeness> InspectCheckpoint(FileSystem& files, const std::string& path,
                                            const InspectOptions& options, std::ostream& out);
absl::StatusOr<Wholeness> InspectSafetensors(FileSystem& files, const std::string& path,
                                             const InspectOptions& options, std::ostream& out);
absl::StatusOr<Wholeness> InspectRun(FileSystem& files, const std::string& path,
                                     const InspectOptions& options, std::ostream& out);
// What TokenFile::Open takes.
absl::StatusOr<Wholeness> InspectTokens(const std::string& path, const InspectOptions& options,
                                        std::ostream& out);
absl::StatusOr<Wholeness> InspectTokenizer(const std::string& path, std::ostream& out);

// For the functions above: "  name                value\n".
std::string FactLine(const std::string& name, const std::string& value);
// What a run trains, in two lines.
std::string ModelFacts(const RunOptions& options);

}  // namespace panthera

#endif  // PANTHERA_LAUNCHER_INSPECTION_H_
