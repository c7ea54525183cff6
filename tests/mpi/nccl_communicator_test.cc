// The NCCL communicator with NVIDIA's NCCL: ranks are processes, with a GPU each where there are
// enough, else sharing them. Skipped on machines without a GPU.
#include "runtime/comm/nccl_communicator.h"

#include <memory>
#include <string>
#include <utility>

#include "absl/status/statusor.h"
#include "gtest/gtest.h"

#include "runtime/base/check.h"
#include "runtime/comm/nccl_environment.h"
#include "runtime/device/cuda_device.h"
#include "tests/runtime/comm/communicator_conformance.h"
#include "tests/support/mpi_test_main.h"

namespace panthera::testing {
namespace {

class NcclProcessTest : public ::testing::TestWithParam<ConformanceCase> {
 protected:
  void SetUp() override {
    const absl::StatusOr<int> gpus = CountCudaDevices();
    if (!gpus.ok()) {
      GTEST_SKIP() << gpus.status();
    }
    const MpiRuntime& runtime = MpiTestRuntime();
    device_ = {DeviceKind::kCuda, runtime.local_rank() % *gpus};
    if (runtime.local_size() > *gpus) {
      const absl::StatusOr<int> version = NcclVersion();
      ASSERT_TRUE(version.ok()) << version.status();
      SetMissing(NcclSharedGpuEnvironment(*version, runtime.rank(), JobSpan::kOneHost));
    }
  }

  Device device_;
};

TEST_P(NcclProcessTest, Holds) {
  RankWorld world([](int color) { return MpiTestWorld().SplitHost(color); },
                  [this](int color) {
                    const std::unique_ptr<HostGroup> members = MpiTestWorld().SplitHost(color);
                    absl::StatusOr<std::unique_ptr<Communicator>> comm =
                        CreateNcclCommunicator(*members, device_);
                    CHECK_OK(comm.status());
                    return *std::move(comm);
                  },
                  device_);
  GetParam().run(world);
}

INSTANTIATE_TEST_SUITE_P(AllCases, NcclProcessTest, ::testing::ValuesIn(TensorConformanceCases()),
                         [](const auto& test) { return std::string(test.param.name); });

}  // namespace
}  // namespace panthera::testing
