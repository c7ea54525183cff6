#include "runtime/math/gemm_tuning.h"

#include <cmath>
#include <memory>
#include <vector>

#include <gtest/gtest.h>

#include "tests/support/devices.h"
#include "tests/support/random_tensor.h"

namespace panthera {
namespace {

constexpr int64_t kArenaBytes = int64_t{128} << 20;

struct Sizes {
  int64_t m;
  int64_t n;
  int64_t k;
};
constexpr Sizes kSizes[] = {{24, 40, 16}, {8, 8, 128}, {24, 40, 16}};

// Some products in a context, two of them of the same form.
void Multiply(Context& ctx) {
  const Arena::Scope scope(ctx.arena());
  for (const Sizes& size : kSizes) {
    const Tensor a = ctx.arena().Allocate({size.m, size.k}, DType::kBF16, "a");
    const Tensor b = ctx.arena().Allocate({size.n, size.k}, DType::kBF16, "b");
    const Tensor c = ctx.arena().Allocate({size.m, size.n}, DType::kF32, "c");
    Gemm(ctx, Transpose::kNo, a, Transpose::kYes, b, Accumulate::kOverwrite, c);
  }
}

class GemmTuningTest : public ::testing::TestWithParam<Device> {
 protected:
  GemmTuningTest() : plan_(Context::Plan(GetParam(), ledger_)) { Multiply(*plan_); }

  const std::vector<Product>& planned() const { return plan_->gemm().planned_products(); }
  static bool has_choice() { return GetParam().is_cuda(); }

  MemoryLedger ledger_;
  std::unique_ptr<Context> plan_;
};
INSTANTIATE_TEST_SUITE_P(Devices, GemmTuningTest, ::testing::ValuesIn(testing::ComputeDevices()),
                         testing::DeviceName);

TEST_P(GemmTuningTest, APlanKnowsEveryFormOfProductOnce) {
  EXPECT_EQ(planned().size(), has_choice() ? 2U : 0U);
  for (const Product& product : planned()) {
    EXPECT_EQ(product.c.data, nullptr);
  }
}

TEST_P(GemmTuningTest, TakesTheArenaThatItsPlanTakes) {
  const std::unique_ptr<Context> meta = Context::Plan(GetParam(), ledger_);
  EXPECT_EQ(TuneProducts(*meta, planned()).size(), 0);
  Context ctx(GetParam(), ledger_, kArenaBytes);
  TuneProducts(ctx, planned());
  EXPECT_EQ(ctx.arena().peak_bytes(), meta->arena().peak_bytes());
  EXPECT_EQ(ctx.arena().used_bytes(), 0);
}

TEST_P(GemmTuningTest, ChoosesForEveryFormAndProductsComputeTheSameWithIt) {
  const testing::TensorsOn memory(GetParam());
  Context ctx(GetParam(), ledger_, kArenaBytes);
  const GemmAlgorithms algorithms = TuneProducts(ctx, planned());
  EXPECT_EQ(algorithms.size(), static_cast<int64_t>(planned().size()));
  if (has_choice()) {
    for (const Product& product : planned()) {
      EXPECT_TRUE(algorithms.Find(product).has_value());
    }
    EXPECT_EQ(algorithms.library(), ctx.gemm().library());
    ASSERT_TRUE(ctx.gemm().UseAlgorithms(algorithms).ok());
  }
  const auto [m, n, k] = kSizes[0];
  const testing::HostTensor a = testing::RandomTensor({m, k}, DType::kBF16, 1);
  const testing::HostTensor b = testing::RandomTensor({n, k}, DType::kBF16, 2);
  const testing::HostTensor c({m, n}, DType::kF32);
  Gemm(ctx, Transpose::kNo, a.tensor(), Transpose::kYes, b.tensor(), Accumulate::kOverwrite,
       c.tensor());
  const std::vector<double> x = testing::ToDoubles(a);
  const std::vector<double> y = testing::ToDoubles(b);
  const std::vector<double> z = testing::ToDoubles(c);
  for (int64_t i = 0; i < m; ++i) {
    for (int64_t j = 0; j < n; ++j) {
      double expected = 0;
      double magnitude = 0;
      for (int64_t l = 0; l < k; ++l) {
        const double term = x[static_cast<size_t>(i * k + l)] * y[static_cast<size_t>(j * k + l)];
        expected += term;
        magnitude += std::abs(term);
      }
      // k additions in fp32, and a rounding.
      const double bound = static_cast<double>(k + 1) * UnitRoundoff(DType::kF32) * magnitude;
      ASSERT_NEAR(z[static_cast<size_t>(i * n + j)], expected, bound) << i << " " << j;
    }
  }
}

}  // namespace
}  // namespace panthera
