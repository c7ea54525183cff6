#include "tests/fuzz/fuzz_target.h"

#include <fcntl.h>
#include <unistd.h>

#include <algorithm>

#include "absl/strings/ascii.h"
#include "absl/strings/escaping.h"

#include "runtime/base/check.h"

namespace panthera::testing {

std::vector<NamedTarget> FuzzTargets() {
  return {{"checkpoint", MakeCheckpointTarget},    {"config", MakeConfigTarget},
          {"documents", MakeDocumentsTarget},      {"gemm_algorithms", MakeGemmAlgorithmsTarget},
          {"hugging_face", MakeHuggingFaceTarget}, {"manifest", MakeManifestTarget},
          {"metrics", MakeMetricsTarget},          {"overrides", MakeOverridesTarget},
          {"safetensors", MakeSafetensorsTarget},  {"token_file", MakeTokenFileTarget}};
}

void CheckIsOneLine(const absl::Status& error) {
  const std::string message(error.message());
  CHECK(!message.empty()) << error.ToString();
  CHECK(std::none_of(message.begin(), message.end(), [](char c) {
    return absl::ascii_iscntrl(static_cast<unsigned char>(c));
  })) << absl::CHexEscape(message);
}

void ReplaceFile(const std::string& path, const std::string& contents) {
  (void)unlink(path.c_str());
  const int descriptor = open(path.c_str(), O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0600);
  CHECK_GE(descriptor, 0) << path;
  CHECK_EQ(write(descriptor, contents.data(), contents.size()),
           static_cast<ssize_t>(contents.size()))
      << path;
  CHECK_EQ(close(descriptor), 0) << path;
}

}  // namespace panthera::testing
