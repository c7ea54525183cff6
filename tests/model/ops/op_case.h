#ifndef PANTHERA_TESTS_MODEL_OPS_OP_CASE_H_
#define PANTHERA_TESTS_MODEL_OPS_OP_CASE_H_

#include <omp.h>

#include <cstdint>
#include <string>
#include <vector>

#include <gtest/gtest.h>

#include "runtime/base/dtype.h"
#include "runtime/device/memory_ledger.h"
#include "runtime/math/context.h"
#include "tests/support/devices.h"
#include "tests/support/random_tensor.h"

namespace panthera::testing {

inline constexpr int64_t kTestArenaBytes = int64_t{64} << 20;

// A device and a compute type.
struct OpCase {
  Device device;
  DType dtype;
};

// A test that runs in fp32 and in bf16, on every device that there is, in a context of its own. Its
// tensors are memory that the device and the host can reach.
class OpTest : public ::testing::TestWithParam<OpCase> {
 protected:
  OpTest() : memory_(GetParam().device), ctx(GetParam().device, ledger, kTestArenaBytes) {}

  Device device() const { return GetParam().device; }
  DType dtype() const { return GetParam().dtype; }
  // Round-off of the compute type and of fp32 arithmetic.
  double u() const { return UnitRoundoff(dtype()); }
  static double u32() { return UnitRoundoff(DType::kF32); }

 private:
  TensorsOn memory_;

 protected:
  MemoryLedger ledger;
  Context ctx;
};

inline std::vector<OpCase> OpCases() {
  std::vector<OpCase> cases;
  for (const Device device : ComputeDevices()) {
    for (const DType dtype : {DType::kF32, DType::kBF16}) {
      cases.push_back({device, dtype});
    }
  }
  return cases;
}

inline std::string OpCaseName(const ::testing::TestParamInfo<OpCase>& info) {
  return (info.param.device.is_cuda() ? std::string("cuda_") : std::string()) +
         Name(info.param.dtype);
}

#define PANTHERA_FOR_FLOAT_TYPES(suite) \
  INSTANTIATE_TEST_SUITE_P(FloatTypes, suite, ::testing::ValuesIn(OpCases()), OpCaseName)

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
