#include "tests/support/grad_check.h"

#include "runtime/base/check.h"

namespace panthera::testing {

std::vector<double> NumericalGradient(
    const std::function<double(const std::vector<double>&)>& function, std::vector<double> point) {
  constexpr double kStep = 1e-5;
  std::vector<double> gradient(point.size());
  for (size_t i = 0; i < point.size(); ++i) {
    const double value = point[i];
    point[i] = value + kStep;
    const double above = function(point);
    point[i] = value - kStep;
    const double below = function(point);
    point[i] = value;
    gradient[i] = (above - below) / (2 * kStep);
  }
  return gradient;
}

double InnerProduct(std::span<const double> a, std::span<const double> b) {
  CHECK_EQ(a.size(), b.size());
  double sum = 0;
  for (size_t i = 0; i < a.size(); ++i) {
    sum += a[i] * b[i];
  }
  return sum;
}

}  // namespace panthera::testing
