#include "runtime/comm/nccl_environment.h"

#include <cstdlib>

#include "absl/strings/str_cat.h"

#include "runtime/base/check.h"

namespace panthera {
namespace {

// 2.30.0: the first that permits several ranks on a GPU when asked to.
constexpr int kPermitsSharing = 23000;

}  // namespace

std::vector<EnvironmentVariable> NcclSharedGpuEnvironment(int version, int rank, JobSpan span) {
  std::vector<EnvironmentVariable> variables = {{"NCCL_MAX_CTAS", "4"}};
  if (version >= kPermitsSharing) {
    variables.push_back({"NCCL_MULTI_RANK_GPU_ENABLE", "1"});
    return variables;
  }
  variables.push_back({"NCCL_HOSTID", absl::StrCat("panthera-rank-", rank)});
  variables.push_back({"NCCL_NET", "Socket"});
  variables.push_back({"NCCL_IB_DISABLE", "1"});
  variables.push_back({"NCCL_MNNVL_ENABLE", "0"});
  if (span == JobSpan::kOneHost) {
    // By itself it takes the loop-back interface last, and a closed machine has no other.
    variables.push_back({"NCCL_SOCKET_IFNAME", "lo"});
  }
  return variables;
}

void SetMissing(const std::vector<EnvironmentVariable>& variables) {
  for (const EnvironmentVariable& variable : variables) {
    CHECK_EQ(setenv(variable.name.c_str(), variable.value.c_str(), /*overwrite=*/0), 0)
        << variable.name;
  }
}

}  // namespace panthera
