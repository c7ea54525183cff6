#ifndef PANTHERA_TESTS_SUPPORT_GRAD_CHECK_H_
#define PANTHERA_TESTS_SUPPORT_GRAD_CHECK_H_

#include <functional>
#include <span>
#include <vector>

namespace panthera::testing {

// The gradient of a scalar function at a point by central differences of step h = 1e-5, in double.
// With derivatives and values of order 1 the error is near h^2 + 2^-53 / h, below 2e-10.
std::vector<double> NumericalGradient(
    const std::function<double(const std::vector<double>&)>& function, std::vector<double> point);

// What gradient checks allow: the error above with a wide margin.
inline constexpr double kGradientTolerance = 1e-7;

// sum_i a[i] * b[i]: turns outputs into a scalar whose gradient with respect to them is b.
double InnerProduct(std::span<const double> a, std::span<const double> b);

}  // namespace panthera::testing

#endif  // PANTHERA_TESTS_SUPPORT_GRAD_CHECK_H_
