#include "tests/runtime/comm/communicator_conformance.h"

#include <memory>
#include <string>
#include <tuple>

#include "gtest/gtest.h"

#include "runtime/comm/self_communicator.h"
#include "tests/support/devices.h"

namespace panthera::testing {
namespace {

class ThreadConformanceTest
    : public ::testing::TestWithParam<std::tuple<ConformanceCase, int, Device>> {};

TEST_P(ThreadConformanceTest, Holds) {
  const auto& [conformance, size, device] = GetParam();
  RunRanks(size, [&, &conformance = conformance, &device = device](RankWorld& world) {
    RankWorld on_device = OnDevice(world, device);
    conformance.run(on_device);
  });
}

std::string ThreadTestName(const ::testing::TestParamInfo<ThreadConformanceTest::ParamType>& test) {
  return std::string(std::get<0>(test.param).name) + "With" +
         std::to_string(std::get<1>(test.param));
}

INSTANTIATE_TEST_SUITE_P(AllCases, ThreadConformanceTest,
                         ::testing::Combine(::testing::ValuesIn(ConformanceCases()),
                                            ::testing::Values(1, 2, 3, 4, 7),
                                            ::testing::Values(Device{})),
                         ThreadTestName);
INSTANTIATE_TEST_SUITE_P(OnAGpu, ThreadConformanceTest,
                         ::testing::Combine(::testing::ValuesIn(TensorConformanceCases()),
                                            ::testing::Values(1, 2, 3, 4, 7),
                                            ::testing::ValuesIn(Gpus())),
                         ThreadTestName);

class SelfConformanceTest : public ::testing::TestWithParam<std::tuple<ConformanceCase, Device>> {};

TEST_P(SelfConformanceTest, Holds) {
  const auto& [conformance, device] = GetParam();
  RankWorld world([](int) { return std::make_unique<SelfHostGroup>(); },
                  [](int) { return std::make_unique<SelfCommunicator>(); }, device);
  conformance.run(world);
}

std::string SelfTestName(const ::testing::TestParamInfo<SelfConformanceTest::ParamType>& test) {
  return std::get<0>(test.param).name;
}

INSTANTIATE_TEST_SUITE_P(AllCases, SelfConformanceTest,
                         ::testing::Combine(::testing::ValuesIn(ConformanceCases()),
                                            ::testing::Values(Device{})),
                         SelfTestName);
INSTANTIATE_TEST_SUITE_P(OnAGpu, SelfConformanceTest,
                         ::testing::Combine(::testing::ValuesIn(TensorConformanceCases()),
                                            ::testing::ValuesIn(Gpus())),
                         SelfTestName);

}  // namespace
}  // namespace panthera::testing
