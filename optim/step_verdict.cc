#include "optim/step_verdict.h"

#include <algorithm>
#include <cstring>
#include <numeric>

#include "optim/cuda_kernels.h"
#include "runtime/base/check.h"

namespace panthera {
namespace {

double SumByIndex(const Tensor& values) {
  const double* begin = values.data<double>();
  return std::accumulate(begin, begin + values.elements(), 0.0);
}

}  // namespace

void JudgeStep(Stream& stream, const VerdictInput& input, Tensor flags, Tensor verdict) {
  CHECK_SHAPE(verdict, sizeof(StepVerdict));
  CHECK_EQ(verdict.dtype(), DType::kU8);
  CHECK_EQ(input.losses.dtype(), DType::kF64);
  CHECK_EQ(input.param_sums.dtype(), DType::kF64);
  CHECK_GT(input.targets, 0);
  CHECK_GE(input.clip_norm, 0);
  CHECK(input.policy != NonFinitePolicy::kSkip || flags.elements() > 0);
  if (stream.device().is_meta()) {
    return;
  }
  if (stream.device().is_cuda()) {
    cuda::JudgeStep(stream, input, flags, verdict);
    return;
  }
  const StepVerdict result =
      VerdictOn(SumByIndex(input.losses), SumByIndex(input.param_sums), input.targets,
                input.norm_divisor, input.clip_norm, input.policy);
  if (result.is_skipped != 0) {
    std::fill_n(flags.data<uint8_t>(), flags.elements(), uint8_t{1});
  }
  std::memcpy(verdict.bytes_data(), &result, sizeof(result));
}

}  // namespace panthera
