#include "tests/support/reference/rmsnorm.h"

#include <cmath>
#include <cstddef>

namespace panthera::testing::reference {

Normalized RmsNorm(const std::vector<double>& x, const std::vector<double>& gain, double eps) {
  const size_t width = gain.size();
  Normalized result;
  result.y.resize(x.size());
  for (size_t row = 0; row < x.size(); row += width) {
    double squares = 0;
    for (size_t c = 0; c < width; ++c) {
      squares += x[row + c] * x[row + c];
    }
    const double rstd = 1 / std::sqrt(squares / static_cast<double>(width) + eps);
    result.rstd.push_back(rstd);
    for (size_t c = 0; c < width; ++c) {
      result.y[row + c] = x[row + c] * rstd * gain[c];
    }
  }
  return result;
}

RmsNormGradients RmsNormBackward(const std::vector<double>& dy, const std::vector<double>& x,
                                 const std::vector<double>& gain, double eps,
                                 const std::vector<double>& dresidual) {
  const size_t width = gain.size();
  const std::vector<double> rstds = RmsNorm(x, gain, eps).rstd;
  RmsNormGradients result{std::vector<double>(x.size()), std::vector<double>(width)};
  for (size_t row = 0; row < x.size(); row += width) {
    const double rstd = rstds[row / width];
    // y_c = x_c rstd gain_c and d rstd / d x_k = -rstd^3 x_k / C.
    double through_rstd = 0;
    for (size_t c = 0; c < width; ++c) {
      result.dgain[c] += dy[row + c] * x[row + c] * rstd;
      through_rstd += dy[row + c] * gain[c] * x[row + c];
    }
    for (size_t k = 0; k < width; ++k) {
      const double residual = dresidual.empty() ? 0 : dresidual[row + k];
      result.dx[row + k] =
          residual + dy[row + k] * gain[k] * rstd -
          through_rstd * rstd * rstd * rstd * x[row + k] / static_cast<double>(width);
    }
  }
  return result;
}

}  // namespace panthera::testing::reference
