#include "tests/runtime/comm/communicator_conformance.h"

#include <memory>
#include <string>
#include <tuple>
#include <vector>

#include "gtest/gtest.h"

#include "runtime/comm/self_communicator.h"

namespace panthera::testing {
namespace {

std::vector<ConformanceCase> Cases() {
  return {ConformanceCases().begin(), ConformanceCases().end()};
}

class ThreadConformanceTest : public ::testing::TestWithParam<std::tuple<ConformanceCase, int>> {};

TEST_P(ThreadConformanceTest, Holds) {
  const auto& [conformance, size] = GetParam();
  RunRanks(size, [&](RankWorld& world) { conformance.run(world); });
}

INSTANTIATE_TEST_SUITE_P(AllCases, ThreadConformanceTest,
                         ::testing::Combine(::testing::ValuesIn(Cases()),
                                            ::testing::Values(1, 2, 3, 4, 7)),
                         [](const auto& test) {
                           return std::string(std::get<0>(test.param).name) + "With" +
                                  std::to_string(std::get<1>(test.param));
                         });

class SelfConformanceTest : public ::testing::TestWithParam<ConformanceCase> {};

TEST_P(SelfConformanceTest, Holds) {
  RankWorld world(std::make_unique<SelfHostGroup>(),
                  [](int) { return std::make_unique<SelfCommunicator>(); });
  GetParam().run(world);
}

INSTANTIATE_TEST_SUITE_P(AllCases, SelfConformanceTest, ::testing::ValuesIn(Cases()),
                         [](const auto& test) { return std::string(test.param.name); });

}  // namespace
}  // namespace panthera::testing
