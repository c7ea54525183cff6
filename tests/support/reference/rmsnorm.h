#ifndef PANTHERA_TESTS_SUPPORT_REFERENCE_RMSNORM_H_
#define PANTHERA_TESTS_SUPPORT_REFERENCE_RMSNORM_H_

#include <vector>

namespace panthera::testing::reference {

// model/ops/rmsnorm.h in double. x [N, C], gain [C].
struct Normalized {
  std::vector<double> y;     // [N, C]
  std::vector<double> rstd;  // [N]
};
Normalized RmsNorm(const std::vector<double>& x, const std::vector<double>& gain, double eps);

struct RmsNormGradients {
  std::vector<double> dx;     // [N, C]
  std::vector<double> dgain;  // [C]
};
// dresidual [N, C], or empty for none.
RmsNormGradients RmsNormBackward(const std::vector<double>& dy, const std::vector<double>& x,
                                 const std::vector<double>& gain, double eps,
                                 const std::vector<double>& dresidual);

}  // namespace panthera::testing::reference

#endif  // PANTHERA_TESTS_SUPPORT_REFERENCE_RMSNORM_H_
