// Which algorithm products run by, seen from the emulated time that they take: those of the
// stand-in for cuBLASLt take 4 (the first that it proposes), 3, 2 and 2 milliseconds, and others
// that cannot be used 1.
#include "runtime/math/gemm_algorithms.h"

#include <cstdint>
#include <memory>
#include <vector>

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "runtime/math/gemm.h"
#include "runtime/math/gemm_tuning.h"
#include "tests/simt/emulator/device_state.h"
#include "tests/support/random_tensor.h"

namespace panthera::testing {
namespace {

using ::testing::HasSubstr;

constexpr Device kEmulated{DeviceKind::kCuda, 0};
constexpr int64_t kArenaBytes = int64_t{128} << 20;
// Numbers of algorithms of the stand-in.
constexpr uint64_t kFirstProposed = 11;
constexpr uint64_t kFirstOfTheFastest = 16;

class GemmAlgorithmsOnAGpuTest : public ::testing::Test {
 protected:
  void SetUp() override { simt::DeviceState::Get().Reset(); }
  void TearDown() override { simt::DeviceState::Get().Reset(); }

  Product product(Accumulate accumulate = Accumulate::kOverwrite) const {
    return {Transpose::kNo, a_.tensor(), Transpose::kNo, b_.tensor(), accumulate, c_.tensor()};
  }
  int64_t MillisecondsOf(const Product& product) {
    ctx.compute().Synchronize();
    const int64_t before = simt::DeviceState::Get().milliseconds();
    Gemm(ctx, product);
    ctx.compute().Synchronize();
    return simt::DeviceState::Get().milliseconds() - before;
  }
  // The engine's library, with one algorithm for one product.
  GemmAlgorithms Only(const Product& product, uint64_t number) {
    GemmAlgorithms algorithms(ctx.gemm().library());
    algorithms.Set(product, {number});
    return algorithms;
  }

 private:
  TensorsOn memory_{kEmulated};
  HostTensor a_ = RandomTensor({8, 16}, DType::kBF16, 1);
  HostTensor b_ = RandomTensor({16, 24}, DType::kBF16, 2);
  HostTensor c_ = Zeros({8, 24}, DType::kF32);

 protected:
  MemoryLedger ledger;
  Context ctx{kEmulated, ledger, kArenaBytes};
};

TEST_F(GemmAlgorithmsOnAGpuTest, WithoutAFileTheLibrarysFirstProposalRuns) {
  EXPECT_EQ(MillisecondsOf(product()), 4);
}

TEST_F(GemmAlgorithmsOnAGpuTest, TuningFindsTheFastestThatWorksAndTheEarlierOfTwo) {
  const GemmAlgorithms algorithms = TuneProducts(ctx, std::vector<Product>{product()});
  EXPECT_EQ(algorithms.Find(product())->at(0), kFirstOfTheFastest);
  ASSERT_TRUE(ctx.gemm().UseAlgorithms(algorithms).ok());
  EXPECT_EQ(MillisecondsOf(product()), 2);
}

TEST_F(GemmAlgorithmsOnAGpuTest, AlgorithmsReachProductsThatRanBeforeAndNoOthers) {
  EXPECT_EQ(MillisecondsOf(product()), 4);
  ASSERT_TRUE(ctx.gemm().UseAlgorithms(Only(product(), 13)).ok());
  EXPECT_EQ(MillisecondsOf(product()), 3);
  EXPECT_EQ(MillisecondsOf(product(Accumulate::kAdd)), 4);
  ASSERT_TRUE(ctx.gemm().UseAlgorithms(Only(product(), kFirstProposed)).ok());
  EXPECT_EQ(MillisecondsOf(product()), 4);
}

TEST_F(GemmAlgorithmsOnAGpuTest, ThoseOfAFileThatWasWrittenAreTheSame) {
  const GemmAlgorithms tuned = TuneProducts(ctx, std::vector<Product>{product()});
  const auto read = ParseGemmAlgorithms(GemmAlgorithmsJson(tuned));
  ASSERT_TRUE(read.ok()) << read.status();
  ASSERT_TRUE(ctx.gemm().UseAlgorithms(*read).ok());
  EXPECT_EQ(MillisecondsOf(product()), 2);
}

TEST_F(GemmAlgorithmsOnAGpuTest, TuningLeavesWhatProductsNameAlone) {
  MillisecondsOf(product());
  const HostTensor before = CopyOf(Tensor(product().c.data, {8, 24}, DType::kF32, kEmulated));
  TuneProducts(ctx, std::vector<Product>{product(Accumulate::kAdd)});
  EXPECT_EQ(ToDoubles(Tensor(product().c.data, {8, 24}, DType::kF32, kEmulated)),
            ToDoubles(before));
}

TEST_F(GemmAlgorithmsOnAGpuTest, AForeignFileIsRefusedWithBothLibrariesNamedAndChangesNothing) {
  ASSERT_TRUE(ctx.gemm().UseAlgorithms(Only(product(), 13)).ok());
  for (const GemmAlgorithmLibrary& library :
       {GemmAlgorithmLibrary{"NVIDIA H200", ctx.gemm().library().version},
        GemmAlgorithmLibrary{ctx.gemm().library().gpu, 120304}}) {
    GemmAlgorithms foreign(library);
    foreign.Set(product(), {kFirstOfTheFastest});
    const absl::Status status = ctx.gemm().UseAlgorithms(foreign);
    EXPECT_FALSE(status.ok());
    EXPECT_THAT(std::string(status.message()), HasSubstr(library.gpu));
    EXPECT_THAT(std::string(status.message()), HasSubstr("cuBLASLt 130100 on emulated GPU"));
    EXPECT_EQ(MillisecondsOf(product()), 3);
  }
}

using GemmAlgorithmsOnAGpuDeathTest = GemmAlgorithmsOnAGpuTest;

TEST_F(GemmAlgorithmsOnAGpuDeathTest, AnAlgorithmThatTheLibraryDoesNotKnowIsNamed) {
  ASSERT_TRUE(ctx.gemm().UseAlgorithms(Only(product(), 99)).ok());
  EXPECT_DEATH(Gemm(ctx, product()), "stored algorithm for fp32 8x24/24@16 = .*damaged");
}

TEST_F(GemmAlgorithmsOnAGpuDeathTest, ProductsOnASecondStreamAreRefused) {
  Gemm(ctx, product());
  const Tensor scratch =
      ctx.arena().Allocate({GemmScratchBytes(ctx, product())}, DType::kU8, "scratch");
  Stream other(kEmulated);
  EXPECT_DEATH(ctx.gemm().Run(other, product(), scratch), "one stream");
}

}  // namespace
}  // namespace panthera::testing
