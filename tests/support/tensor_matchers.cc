#include "tests/support/tensor_matchers.h"

#include <algorithm>
#include <cmath>
#include <cstring>

#include "runtime/base/check.h"
#include "tests/support/random_tensor.h"

namespace panthera::testing {

using ::testing::AssertionFailure;
using ::testing::AssertionResult;
using ::testing::AssertionSuccess;

AssertionResult IsNear(std::span<const double> actual, std::span<const double> expected,
                       Tolerance tolerance) {
  if (actual.size() != expected.size()) {
    return AssertionFailure() << actual.size() << " elements, expected " << expected.size();
  }
  size_t worst = 0;
  double worst_ratio = 0;
  size_t wrong = 0;
  for (size_t i = 0; i < actual.size(); ++i) {
    const double bound = tolerance.absolute + tolerance.relative * std::fabs(expected[i]);
    const double error = std::fabs(actual[i] - expected[i]);
    if (error <= bound) {
      continue;
    }
    ++wrong;
    const double ratio = std::isnan(error) ? HUGE_VAL : error / bound;
    if (ratio >= worst_ratio) {
      worst_ratio = ratio;
      worst = i;
    }
  }
  if (wrong == 0) {
    return AssertionSuccess();
  }
  return AssertionFailure() << wrong << " of " << actual.size() << " elements are off; element "
                            << worst << " is " << actual[worst] << ", expected " << expected[worst]
                            << ", " << worst_ratio << " times the tolerance";
}

AssertionResult IsNear(const Tensor& actual, std::span<const double> expected,
                       Tolerance tolerance) {
  return IsNear(ToDoubles(actual), expected, tolerance);
}

AssertionResult HasBitsOf(const Tensor& actual, const Tensor& expected) {
  WaitForDevice(actual.device());
  if (actual.shape() != expected.shape() || actual.dtype() != expected.dtype()) {
    return AssertionFailure() << actual.dtype() << " " << actual.shape() << ", expected "
                              << expected.dtype() << " " << expected.shape();
  }
  const int64_t size = SizeOf(actual.dtype());
  for (int64_t i = 0; i < actual.elements(); ++i) {
    if (std::memcmp(actual.bytes_data() + i * size, expected.bytes_data() + i * size,
                    static_cast<size_t>(size)) != 0) {
      return AssertionFailure() << "element " << i << " of " << actual.shape() << " differs";
    }
  }
  return AssertionSuccess();
}

double RelativeError(const Tensor& actual, std::span<const double> expected) {
  const std::vector<double> values = ToDoubles(actual);
  CHECK_EQ(values.size(), expected.size());
  double error = 0;
  double norm = 0;
  for (size_t i = 0; i < values.size(); ++i) {
    error += (values[i] - expected[i]) * (values[i] - expected[i]);
    norm += expected[i] * expected[i];
  }
  return std::sqrt(error / norm);
}

double MaxMagnitude(std::span<const double> values) {
  double largest = 0;
  for (const double value : values) {
    largest = std::max(largest, std::fabs(value));
  }
  return largest;
}

}  // namespace panthera::testing
