#include "launcher/gemm_rate.h"

#include <span>

#include <gmock/gmock.h>

#include "runtime/comm/plan_communicator.h"
#include "runtime/comm/reduce.h"
#include "runtime/comm/self_communicator.h"
#include "tests/equivalence/tiny_run.h"
#include "tests/support/devices.h"

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

TEST(GemmRateTest, FillsThePlannedArenaOfItsDevice) {
  for (const Device device : testing::ComputeDevices()) {
    for (const DType dtype : {DType::kF32, DType::kBF16}) {
      MemoryLedger ledger;
      const std::unique_ptr<Context> plan = Context::Plan(device, ledger);
      PlanCommunicator planned(0, 1);
      MeasureGemmRate(*plan, SmallModel(), dtype, planned);
      // An arena that is exceeded ends the test.
      Context ctx(device, ledger, plan->arena().peak_bytes());
      SelfCommunicator self;
      EXPECT_GT(MeasureGemmRate(ctx, SmallModel(), dtype, self), 0) << device;
      EXPECT_EQ(ctx.arena().peak_bytes(), plan->arena().peak_bytes()) << device;
    }
  }
}

TEST(GemmRateTest, IsTheSameOnEveryRank) {
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
