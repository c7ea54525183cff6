// Kernels below the model under the emulation: whatever order threads run in, and with no host wait
// or allocation.
#include <cstdint>
#include <cstring>
#include <functional>
#include <vector>

#include <gtest/gtest.h>

#include "runtime/device/memory_ledger.h"
#include "runtime/math/context.h"
#include "runtime/math/op_times.h"
#include "runtime/math/vector_ops.h"
#include "tests/simt/emulator/device_state.h"
#include "tests/support/random_tensor.h"

namespace panthera::testing {
namespace {

constexpr Device kEmulated{DeviceKind::kCuda, 0};
// Several blocks and an odd rest.
constexpr int64_t kCount = 5003;

class MathKernelsTest : public ::testing::Test {
 protected:
  void SetUp() override { simt::DeviceState::Get().Reset(); }
  void TearDown() override { simt::DeviceState::Get().Reset(); }

  // The bytes that `op` leaves in a tensor of zeros, having run with threads in the order of
  // `seed`.
  std::vector<std::byte> BytesOf(const Shape& shape, DType dtype, uint64_t seed,
                                 const std::function<void(Tensor)>& op) {
    const HostTensor out = Zeros(shape, dtype);
    simt::DeviceState::Get().options().order_seed = seed;
    const simt::Counts before = simt::DeviceState::Get().counts();
    op(out);
    const simt::Counts& after = simt::DeviceState::Get().counts();
    EXPECT_EQ(after.host_waits, before.host_waits);
    EXPECT_EQ(after.allocations, before.allocations);
    EXPECT_EQ(after.default_stream_uses, before.default_stream_uses);
    ctx.compute().Synchronize();
    const Tensor& tensor = out.tensor();
    return {tensor.bytes_data(), tensor.bytes_data() + tensor.bytes()};
  }

  void ExpectNoOrder(const Shape& shape, DType dtype, const std::function<void(Tensor)>& op) {
    const std::vector<std::byte> in_order = BytesOf(shape, dtype, 0, op);
    for (uint64_t seed = 1; seed <= 3; ++seed) {
      EXPECT_EQ(BytesOf(shape, dtype, seed, op), in_order) << seed;
    }
  }

 private:
  TensorsOn memory_{kEmulated};

 protected:
  MemoryLedger ledger;
  Context ctx{kEmulated, ledger, 0};
};

TEST_F(MathKernelsTest, SumsDoNotDependOnTheOrderOfThreads) {
  const HostTensor x = RandomTensor({kCount}, DType::kF32, 1, 1e9);
  ExpectNoOrder({1}, DType::kF64, [&](Tensor sum) { AddSum(ctx, x, sum); });
  const HostTensor rows = RandomTensor({7, 700}, DType::kF32, 2, 1e9);
  ExpectNoOrder({700}, DType::kF64, [&](Tensor sums) { AddColumnSums(ctx, rows, sums); });
}

TEST_F(MathKernelsTest, TheLargestDoesNotDependOnTheOrderOfThreads) {
  for (const DType dtype : {DType::kF32, DType::kBF16}) {
    const HostTensor x = RandomTensor({kCount}, dtype, 1);
    ExpectNoOrder({1}, DType::kF32, [&](Tensor largest) { MaxAbs(ctx, x, largest); });
  }
}

TEST_F(MathKernelsTest, RoundingAndScalingDoNotDependOnTheOrderOfThreads) {
  const HostTensor x = RandomTensor({kCount}, DType::kF32, 1);
  ExpectNoOrder({kCount}, DType::kBF16, [&](Tensor out) { RoundToBf16(ctx.compute(), x, out); });
  ExpectNoOrder({kCount}, DType::kF32, [&](Tensor out) {
    Copy(ctx.compute(), x, out);
    Scale(ctx.compute(), 0.3F, out);
  });
}

// In emulated time SetZero takes a millisecond.
class OpTimesOnAGpuTest : public MathKernelsTest {
 protected:
  OpTimesOnAGpuTest() { ctx.set_op_times(&times); }

  void Work(int milliseconds) {
    for (int i = 0; i < milliseconds; ++i) {
      SetZero(ctx, x_);
    }
  }
  double Milliseconds(Op op) const { return 1e3 * times.at({op}).seconds; }

  OpTimes times;

 private:
  HostTensor x_ = Zeros({4}, DType::kF32);
};

TEST_F(OpTimesOnAGpuTest, TimeInAnInnerScopeIsTheInnerOpsAloneAndTheRestIsNobodys) {
  Work(1);
  {
    const OpTimer outer(ctx, {Op::kUpdate}, {});
    Work(2);
    {
      const OpTimer inner(ctx, {Op::kFold}, {});
      Work(3);
    }
    { const OpTimer empty(ctx, {Op::kPublish}, {}); }
    Work(4);
  }
  Work(5);
  {
    const OpTimer again(ctx, {Op::kFold}, {});
    Work(6);
  }
  times.Collect();
  EXPECT_DOUBLE_EQ(Milliseconds(Op::kUpdate), 2 + 4);
  EXPECT_DOUBLE_EQ(Milliseconds(Op::kFold), 3 + 6);
  EXPECT_EQ(times.at({Op::kPublish}).calls, 1);
  EXPECT_EQ(Milliseconds(Op::kPublish), 0);
  EXPECT_DOUBLE_EQ(1e3 * times.total_seconds(), 15);
}

TEST_F(OpTimesOnAGpuTest, TheHostWaitsOnceWhenTimesAreCollected) {
  const simt::Counts& counts = simt::DeviceState::Get().counts();
  const int64_t before = counts.host_waits;
  for (int i = 0; i < 3; ++i) {
    const OpTimer timer(ctx, {Op::kNorm}, {});
    Work(1);
  }
  EXPECT_EQ(counts.host_waits, before);
  EXPECT_EQ(times.at({Op::kNorm}).calls, 3);
  EXPECT_EQ(times.at({Op::kNorm}).seconds, 0);
  times.Collect();
  EXPECT_EQ(counts.host_waits, before + 1);
  times.Collect();
  EXPECT_EQ(counts.host_waits, before + 1);
  EXPECT_DOUBLE_EQ(Milliseconds(Op::kNorm), 3);
}

TEST_F(OpTimesOnAGpuTest, ALaterStepUsesTheEventsOfThoseBefore) {
  const auto step = [&] {
    for (int i = 0; i < 5; ++i) {
      const OpTimer timer(ctx, {Op::kNorm}, {});
      Work(1);
    }
    times.Collect();
  };
  step();
  const int64_t created = simt::DeviceState::Get().counts().events;
  step();
  EXPECT_EQ(simt::DeviceState::Get().counts().events, created);
  EXPECT_DOUBLE_EQ(Milliseconds(Op::kNorm), 10);
}

}  // namespace
}  // namespace panthera::testing
