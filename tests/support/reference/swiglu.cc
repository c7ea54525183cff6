#include "tests/support/reference/swiglu.h"

#include <cmath>

namespace panthera::testing::reference {
namespace {

double Sigmoid(double x) { return 1 / (1 + std::exp(-x)); }

}  // namespace

std::vector<double> SwiGlu(const std::vector<double>& gate_up, size_t width) {
  std::vector<double> out;
  for (size_t row = 0; row < gate_up.size(); row += 2 * width) {
    for (size_t f = 0; f < width; ++f) {
      const double gate = gate_up[row + f];
      out.push_back(gate * Sigmoid(gate) * gate_up[row + width + f]);
    }
  }
  return out;
}

std::vector<double> SwiGluBackward(const std::vector<double>& dout,
                                   const std::vector<double>& gate_up, size_t width) {
  std::vector<double> gradient(gate_up.size());
  for (size_t row = 0; row < gate_up.size(); row += 2 * width) {
    for (size_t f = 0; f < width; ++f) {
      const double gate = gate_up[row + f];
      const double sigmoid = Sigmoid(gate);
      const double d = dout[row / 2 + f];
      gradient[row + f] = d * gate_up[row + width + f] * (sigmoid + gate * sigmoid * (1 - sigmoid));
      gradient[row + width + f] = d * gate * sigmoid;
    }
  }
  return gradient;
}

}  // namespace panthera::testing::reference
