// A libFuzzer program of the target that PANTHERA_FUZZ_TARGET names. Beyond libFuzzer's own
// arguments: `--write-seeds FOLDER` writes the seeds and the words (FOLDER.words, in libFuzzer's
// form of a dictionary) and ends.
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <string>
#include <string_view>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"

#include "runtime/base/check.h"
#include "tests/fuzz/fuzz_target.h"

// libFuzzer's interface.
extern "C" {
size_t LLVMFuzzerMutate(uint8_t* data, size_t size, size_t max_size);
int LLVMFuzzerInitialize(int* argc, char*** argv);
int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size);
size_t LLVMFuzzerCustomMutator(uint8_t* data, size_t size, size_t max_size, unsigned int seed);
}

namespace panthera::testing {
namespace {

std::unique_ptr<FuzzTarget> MakeTarget() {
  for (const NamedTarget& target : FuzzTargets()) {
    if (std::string_view(target.name) == PANTHERA_FUZZ_TARGET) {
      return target.make();
    }
  }
  CHECK(false) << "no target " << PANTHERA_FUZZ_TARGET;
  return nullptr;
}

// libFuzzer's interface has no place for a state.
FuzzTarget& Target() {
  static const std::unique_ptr<FuzzTarget> target = MakeTarget();
  return *target;
}

void WriteSeeds(const std::string& folder) {
  std::filesystem::create_directories(folder);
  int number = 0;
  for (const Parts& seed : Target().Seeds()) {
    std::ofstream(absl::StrCat(folder, "/seed_", number++), std::ios::binary) << JoinParts(seed);
  }
  std::ofstream words(folder + ".words");
  for (const std::string& word : Target().Words()) {
    words << '"';
    for (const char c : word) {
      words << absl::StrFormat("\\x%02X", static_cast<unsigned char>(c));
    }
    words << "\"\n";
  }
}

std::string_view AsText(const uint8_t* data, size_t size) {
  return {reinterpret_cast<const char*>(data), size};
}

}  // namespace
}  // namespace panthera::testing

using panthera::testing::Parts;

int LLVMFuzzerInitialize(int* argc, char*** argv) {
  if (*argc == 3 && std::string_view((*argv)[1]) == "--write-seeds") {
    panthera::testing::WriteSeeds((*argv)[2]);
    std::exit(0);  // NOLINT(concurrency-mt-unsafe): there is one thread
  }
  return 0;
}

int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  panthera::testing::Target().Check(
      panthera::testing::SplitParts(panthera::testing::AsText(data, size)));
  return 0;
}

// Lets libFuzzer change one part and then mends what the target can, three times out of four.
size_t LLVMFuzzerCustomMutator(uint8_t* data, size_t size, size_t max_size, unsigned int seed) {
  Parts parts = panthera::testing::SplitParts(panthera::testing::AsText(data, size));
  std::string& part = parts[seed % parts.size()];
  const size_t part_size = part.size();
  const size_t room = max_size > size ? max_size - size : 0;
  part.resize(part_size + room);
  part.resize(LLVMFuzzerMutate(reinterpret_cast<uint8_t*>(part.data()), part_size, part.size()));
  const uint64_t choice = seed / parts.size();
  if (choice % 4 != 0) {
    panthera::testing::Target().Repair(choice / 4, parts);
  }
  const std::string joined = panthera::testing::JoinParts(parts).substr(0, max_size);
  std::memcpy(data, joined.data(), joined.size());
  return joined.size();
}
