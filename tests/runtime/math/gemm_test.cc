#include "runtime/math/gemm.h"

#include <cmath>
#include <cstring>
#include <memory>
#include <string>
#include <tuple>
#include <vector>

#include <gmock/gmock.h>

#include "runtime/base/philox.h"
#include "tests/support/devices.h"
#include "tests/support/random_tensor.h"

namespace panthera {
namespace {

// A matrix of known numbers in memory of its own, with more columns in memory than it has.
struct Operand {
  Operand(DType dtype, int64_t batch, int64_t rows, int64_t columns, uint64_t seed)
      : batch(batch),
        rows(rows),
        columns(columns),
        row_stride(columns + 3),
        memory({batch * rows * row_stride}, dtype),
        tensor(memory) {
    for (int64_t i = 0; i < tensor.elements(); ++i) {
      const float value = UnitFloat(Philox4x32(seed, static_cast<uint64_t>(i), 0).value[0]) - 0.5F;
      Set(i, value);
    }
  }

  void Set(int64_t i, float value) {
    if (tensor.dtype() == DType::kF32) {
      tensor.data<float>()[i] = value;
    } else {
      tensor.data<BF16>()[i] = BF16(value);
    }
  }
  double Get(int64_t b, int64_t r, int64_t c) const {
    const int64_t i = (b * rows + r) * row_stride + c;
    return tensor.dtype() == DType::kF32
               ? static_cast<double>(tensor.data<float>()[i])
               : static_cast<double>(static_cast<float>(tensor.data<BF16>()[i]));
  }
  Matrix matrix() const {
    return Matrix::Batch(tensor, 0, batch, rows * row_stride, rows, columns, row_stride);
  }

  int64_t batch;
  int64_t rows;
  int64_t columns;
  int64_t row_stride;
  testing::HostTensor memory;
  Tensor tensor;
};

struct Case {
  DType in;
  DType out;
  Transpose transpose_a;
  Transpose transpose_b;
  Accumulate accumulate;
  int64_t batch;
  int64_t m;
  int64_t n;
  int64_t k;
};

std::vector<Case> Cases() {
  std::vector<Case> cases;
  const std::vector<std::tuple<int64_t, int64_t, int64_t, int64_t>> sizes = {
      {1, 1, 1, 1}, {1, 17, 5, 33}, {3, 64, 48, 16}, {2, 1, 100, 7}, {1, 130, 70, 257}};
  for (const DType in : {DType::kF32, DType::kBF16}) {
    for (const DType out : {DType::kF32, DType::kBF16}) {
      for (const Transpose a : {Transpose::kNo, Transpose::kYes}) {
        for (const Transpose b : {Transpose::kNo, Transpose::kYes}) {
          for (const Accumulate add : {Accumulate::kOverwrite, Accumulate::kAdd}) {
            for (const auto& [batch, m, n, k] : sizes) {
              if (in == DType::kBF16 || out == DType::kF32) {
                cases.push_back({in, out, a, b, add, batch, m, n, k});
              }
            }
          }
        }
      }
    }
  }
  return cases;
}

double Entry(const Operand& x, Transpose transpose, int64_t b, int64_t r, int64_t c) {
  return transpose == Transpose::kYes ? x.Get(b, c, r) : x.Get(b, r, c);
}

// An engine and the stream that its products run on.
struct Engine {
  explicit Engine(Device device, GemmEngine::Bf16 bf16 = GemmEngine::Bf16::kAsTheMachineCan)
      : products(device, bf16), stream(device) {}

  GemmEngine products;
  Stream stream;
};

// Returns when the product is done.
void RunProduct(Engine& engine, const Product& product) {
  MemoryLedger ledger;
  const Buffer scratch(product.c.device, ledger, MemoryCategory::kData, "scratch",
                       engine.products.ScratchBytes(product));
  engine.products.Run(engine.stream, product, scratch.View({scratch.bytes()}, DType::kU8));
  engine.stream.Synchronize();
}

void ExpectMatchesDouble(Engine& engine, const Case& t) {
  const bool ta = t.transpose_a == Transpose::kYes;
  const bool tb = t.transpose_b == Transpose::kYes;
  const Operand a(t.in, t.batch, ta ? t.k : t.m, ta ? t.m : t.k, 1);
  const Operand b(t.in, t.batch, tb ? t.n : t.k, tb ? t.k : t.n, 2);
  const Operand before(t.out, t.batch, t.m, t.n, 3);
  Operand c(t.out, t.batch, t.m, t.n, 3);

  RunProduct(engine,
             {t.transpose_a, a.matrix(), t.transpose_b, b.matrix(), t.accumulate, c.matrix()});

  for (int64_t g = 0; g < t.batch; ++g) {
    for (int64_t i = 0; i < t.m; ++i) {
      for (int64_t j = 0; j < t.n; ++j) {
        double expected = t.accumulate == Accumulate::kAdd ? before.Get(g, i, j) : 0;
        double magnitude = std::abs(expected);
        for (int64_t l = 0; l < t.k; ++l) {
          const double term = Entry(a, t.transpose_a, g, i, l) * Entry(b, t.transpose_b, g, l, j);
          expected += term;
          magnitude += std::abs(term);
        }
        // k fp32 additions, then one rounding to the type of c.
        const double bound =
            (static_cast<double>(t.k) + 2) * UnitRoundoff(DType::kF32) * magnitude +
            UnitRoundoff(t.out) * std::abs(expected);
        ASSERT_NEAR(c.Get(g, i, j), expected, bound) << g << " " << i << " " << j;
      }
      for (int64_t j = t.n; j < c.row_stride; ++j) {
        ASSERT_EQ(c.Get(g, i, j), before.Get(g, i, j)) << "wrote past the columns of c";
      }
    }
  }
}

struct EngineCase {
  Device device;
  GemmEngine::Bf16 bf16;
};

// Of what this build and machine multiply with.
std::vector<EngineCase> EngineCases() {
  std::vector<EngineCase> cases = {{{}, GemmEngine::Bf16::kAsTheMachineCan},
                                   {{}, GemmEngine::Bf16::kWidened}};
  if (const Device device = testing::ComputeDevices().back(); device.is_cuda()) {
    cases.push_back({device, GemmEngine::Bf16::kAsTheMachineCan});
  }
  return cases;
}

class GemmTest : public ::testing::TestWithParam<EngineCase> {};

TEST_P(GemmTest, MatchesDoubleForEveryLayoutTypeAndStride) {
  const testing::TensorsOn memory(GetParam().device);
  Engine engine(GetParam().device, GetParam().bf16);
  for (const Case& t : Cases()) {
    SCOPED_TRACE(::testing::Message()
                 << Name(t.in) << " to " << Name(t.out) << " ta " << static_cast<int>(t.transpose_a)
                 << " tb " << static_cast<int>(t.transpose_b) << " add "
                 << static_cast<int>(t.accumulate) << " batch " << t.batch << " m " << t.m << " n "
                 << t.n << " k " << t.k);
    ExpectMatchesDouble(engine, t);
  }
}

std::string EngineName(const ::testing::TestParamInfo<EngineCase>& engine) {
  if (engine.param.device.is_cuda()) {
    return "cuda";
  }
  return engine.param.bf16 == GemmEngine::Bf16::kWidened ? "widened" : "cpu";
}
INSTANTIATE_TEST_SUITE_P(Engines, GemmTest, ::testing::ValuesIn(EngineCases()), EngineName);

TEST(GemmTest, WidenedProductsEqualNativeOnesUpToSummationOrder) {
  Engine native(Device{}, GemmEngine::Bf16::kAsTheMachineCan);
  Engine widened(Device{}, GemmEngine::Bf16::kWidened);
  const Operand a(DType::kBF16, 1, 40, 64, 1);
  const Operand b(DType::kBF16, 1, 64, 24, 2);
  Operand c1(DType::kF32, 1, 40, 24, 3);
  Operand c2(DType::kF32, 1, 40, 24, 3);

  RunProduct(native, {Transpose::kNo, a.matrix(), Transpose::kNo, b.matrix(),
                      Accumulate::kOverwrite, c1.matrix()});
  RunProduct(widened, {Transpose::kNo, a.matrix(), Transpose::kNo, b.matrix(),
                       Accumulate::kOverwrite, c2.matrix()});

  for (int64_t i = 0; i < 40; ++i) {
    for (int64_t j = 0; j < 24; ++j) {
      // Products of bf16 are exact in fp32 and at most 1/4; 64 of them are summed in either order.
      ASSERT_NEAR(c1.Get(0, i, j), c2.Get(0, i, j), 2 * 64 * 64 * 0.25 * UnitRoundoff(DType::kF32));
    }
  }
}

TEST(GemmTest, RepeatedProductHasTheSameBits) {
  Engine engine(Device{});
  const Operand a(DType::kBF16, 1, 70, 300, 1);
  const Operand b(DType::kBF16, 1, 300, 90, 2);
  Operand c1(DType::kF32, 1, 70, 90, 3);
  Operand c2(DType::kF32, 1, 70, 90, 3);

  for (Operand* c : {&c1, &c2}) {
    RunProduct(engine, {Transpose::kNo, a.matrix(), Transpose::kNo, b.matrix(),
                        Accumulate::kOverwrite, c->matrix()});
  }

  EXPECT_EQ(0, std::memcmp(c1.tensor.bytes_data(), c2.tensor.bytes_data(),
                           static_cast<size_t>(c1.tensor.bytes())));
}

TEST(GemmTest, PlanningTakesAsMuchArenaAsComputing) {
  MemoryLedger ledger;
  const std::unique_ptr<Context> meta = Context::Plan({}, ledger);
  Context real({}, ledger, 1 << 20);
  const Shape a{48, 32};
  const Shape b{40, 32};
  const Shape c{48, 40};

  for (Context* ctx : {meta.get(), &real}) {
    Arena& arena = ctx->arena();
    Gemm(*ctx, Transpose::kNo, arena.Allocate(a, DType::kBF16, "a"), Transpose::kYes,
         arena.Allocate(b, DType::kBF16, "b"), Accumulate::kOverwrite,
         arena.Allocate(c, DType::kBF16, "c"));
  }

  EXPECT_EQ(meta->arena().peak_bytes(), real.arena().peak_bytes());
  EXPECT_GE(meta->arena().peak_bytes(),
            (a.elements() + b.elements() + c.elements()) * SizeOf(DType::kBF16));
}

TEST(GemmDeathTest, DisagreeingInnerSizesAreNamed) {
  Engine engine(Device{});
  const Operand a(DType::kF32, 1, 4, 5, 1);
  const Operand b(DType::kF32, 1, 6, 3, 2);
  Operand c(DType::kF32, 1, 4, 3, 3);

  EXPECT_DEATH(RunProduct(engine, {Transpose::kNo, a.matrix(), Transpose::kNo, b.matrix(),
                                   Accumulate::kOverwrite, c.matrix()}),
               "6 vs. 5.*inner sizes");
}

}  // namespace
}  // namespace panthera
