#ifndef PANTHERA_TESTS_MODEL_OPS_OP_CASE_H_
#define PANTHERA_TESTS_MODEL_OPS_OP_CASE_H_

#include <omp.h>

#include <cstdint>
#include <string>

#include <gtest/gtest.h>

#include "runtime/base/dtype.h"
#include "runtime/device/memory_ledger.h"
#include "runtime/math/context.h"

namespace panthera::testing {

inline constexpr int64_t kTestArenaBytes = int64_t{64} << 20;

// A test that runs in fp32 and in bf16, on a CPU context of its own.
class OpTest : public ::testing::TestWithParam<DType> {
 protected:
  OpTest() : ctx({DeviceKind::kCpu, 0}, ledger, kTestArenaBytes) {}

  DType dtype() const { return GetParam(); }
  // Round-off of the compute type and of fp32 arithmetic.
  double u() const { return UnitRoundoff(dtype()); }
  static double u32() { return UnitRoundoff(DType::kF32); }

  MemoryLedger ledger;
  Context ctx;
};

inline std::string DTypeName(const ::testing::TestParamInfo<DType>& info) {
  return Name(info.param);
}

#define PANTHERA_FOR_FLOAT_TYPES(suite)                                                     \
  INSTANTIATE_TEST_SUITE_P(FloatTypes, suite, ::testing::Values(DType::kF32, DType::kBF16), \
                           DTypeName)

// Lets ParallelFor use this many threads until the object dies.
class ThreadLimit {
 public:
  explicit ThreadLimit(int threads) : before_(omp_get_max_threads()) {
    omp_set_num_threads(threads);
  }
  ThreadLimit(const ThreadLimit&) = delete;
  ThreadLimit& operator=(const ThreadLimit&) = delete;
  ~ThreadLimit() { omp_set_num_threads(before_); }

 private:
  int before_;
};

}  // namespace panthera::testing

#endif  // PANTHERA_TESTS_MODEL_OPS_OP_CASE_H_
