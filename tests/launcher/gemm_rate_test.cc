#include "launcher/gemm_rate.h"

#include <span>

#include <gmock/gmock.h>

#include "runtime/comm/plan_communicator.h"
#include "runtime/comm/reduce.h"
#include "tests/equivalence/tiny_run.h"

namespace panthera {
namespace {

ModelOptions SmallModel() {
  ModelOptions options;
  options.width = 16;
  options.ffn_width = 24;
  return options;
}

TEST(GemmRateTest, RanksMeetBeforeAndAfterTheMeasurement) {
  MemoryLedger ledger;
  const std::unique_ptr<Context> ctx = Context::Plan({}, ledger);
  PlanCommunicator one_meeting(0, 4);
  double number = 0;
  AllReduceSum(one_meeting, std::span(&number, 1), ctx->compute());
  PlanCommunicator ranks(0, 4);
  EXPECT_EQ(MeasureGemmRate(*ctx, SmallModel(), DType::kF32, ranks), 0);
  EXPECT_EQ(ranks.bytes_sent(), 2 * one_meeting.bytes_sent());
}

TEST(GemmRateTest, IsTheSameOnEveryRankAndFillsThePlannedArena) {
  MemoryLedger ledger;
  const std::unique_ptr<Context> plan = Context::Plan({}, ledger);
  PlanCommunicator planned(0, 2);
  MeasureGemmRate(*plan, SmallModel(), DType::kF32, planned);
  double rates[2] = {};
  testing::RunRanks(2, [&](testing::RankWorld& world) {
    Context ctx({}, world.ledger(), plan->arena().peak_bytes());
    rates[world.rank()] = MeasureGemmRate(ctx, SmallModel(), DType::kF32, world.communicator());
  });
  EXPECT_GT(rates[0], 0);
  EXPECT_EQ(rates[0], rates[1]);
}

}  // namespace
}  // namespace panthera
