#ifndef PANTHERA_TESTS_SUPPORT_TENSOR_MATCHERS_H_
#define PANTHERA_TESTS_SUPPORT_TENSOR_MATCHERS_H_

#include <span>
#include <vector>

#include <gtest/gtest.h>

#include "runtime/device/tensor.h"

namespace panthera::testing {

// Allows |actual - expected| <= absolute + relative * |expected|.
struct Tolerance {
  double relative = 0;
  double absolute = 0;
};

// For EXPECT_TRUE. A failure names the worst element. NaN is never near anything.
::testing::AssertionResult IsNear(std::span<const double> actual, std::span<const double> expected,
                                  Tolerance tolerance);
::testing::AssertionResult IsNear(const Tensor& actual, std::span<const double> expected,
                                  Tolerance tolerance);

// For EXPECT_TRUE: the same shape, type and bytes. A failure names the first element that differs.
::testing::AssertionResult HasBitsOf(const Tensor& actual, const Tensor& expected);

// |actual - expected| / |expected| in the Euclidean norm: for results whose elements are sums in
// which the errors of inputs of all sizes meet.
double RelativeError(const Tensor& actual, std::span<const double> expected);

// The largest magnitude, 0 if there is none: the scale that absolute bounds are multiples of.
double MaxMagnitude(std::span<const double> values);

}  // namespace panthera::testing

#endif  // PANTHERA_TESTS_SUPPORT_TENSOR_MATCHERS_H_
