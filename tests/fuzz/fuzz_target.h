// Fuzzing of what reads files and arguments that others wrote. A target hands an input to the
// reader as `panthera train` does and holds the reader to its promises: whatever the bytes, there
// is an error of one clear line, or everything that was accepted can be used. A broken promise ends
// the process (CHECK), as an access outside memory does under a sanitizer.
//
// fuzzer_main.cc makes a libFuzzer program of each target (https://llvm.org/docs/LibFuzzer.html);
// replay_test.cc runs all of them over their seeds and a fixed series of mutations with any
// compiler.
#ifndef PANTHERA_TESTS_FUZZ_FUZZ_TARGET_H_
#define PANTHERA_TESTS_FUZZ_FUZZ_TARGET_H_

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "absl/status/status.h"

#include "tests/fuzz/parts.h"

namespace panthera::testing {

enum class Verdict { kAccepted, kRefused };

class FuzzTarget {
 public:
  virtual ~FuzzTarget() = default;

  // Inputs to begin with. The product's own writers made them, and the reader accepts them.
  virtual std::vector<Parts> Seeds() const = 0;
  // Words that a mutation may insert.
  virtual std::vector<std::string> Words() const { return {}; }
  // Mends what nearly every mutation breaks and what hides all that lies behind it, such as a
  // checksum. `choice` decides which of these things are mended.
  virtual void Repair(uint64_t /*choice*/, Parts& /*parts*/) const {}
  // Reads the input and checks the promises.
  virtual Verdict Check(const Parts& parts) = 0;
};

struct NamedTarget {
  const char* name;
  std::unique_ptr<FuzzTarget> (*make)();
};

// All targets.
std::vector<NamedTarget> FuzzTargets();

std::unique_ptr<FuzzTarget> MakeCheckpointTarget();
std::unique_ptr<FuzzTarget> MakeConfigTarget();
std::unique_ptr<FuzzTarget> MakeDocumentsTarget();
std::unique_ptr<FuzzTarget> MakeGemmAlgorithmsTarget();
std::unique_ptr<FuzzTarget> MakeHuggingFaceTarget();
std::unique_ptr<FuzzTarget> MakeManifestTarget();
std::unique_ptr<FuzzTarget> MakeMetricsTarget();
std::unique_ptr<FuzzTarget> MakeOverridesTarget();
std::unique_ptr<FuzzTarget> MakeSafetensorsTarget();
std::unique_ptr<FuzzTarget> MakeTokenFileTarget();

// Dies unless the error's message is one line that a terminal can show: neither empty nor with
// control characters.
void CheckIsOneLine(const absl::Status& error);

// Creates or replaces a file. One that a reader has mapped stays as it is in that mapping.
void ReplaceFile(const std::string& path, const std::string& contents);

}  // namespace panthera::testing

#endif  // PANTHERA_TESTS_FUZZ_FUZZ_TARGET_H_
