// The update rules in plain double-precision loops, on one logical tensor at a time.
#ifndef PANTHERA_TESTS_SUPPORT_REFERENCE_OPTIMIZERS_H_
#define PANTHERA_TESTS_SUPPORT_REFERENCE_OPTIMIZERS_H_

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <vector>

#include "runtime/params/parameter_store.h"

namespace panthera::testing::reference {

struct OptimizedTensor {
  ParamKind kind = ParamKind::kMatrix;
  size_t width = 1;  // elements of a row
  std::vector<double> theta;
  std::vector<double> moment1;  // or the momentum
  std::vector<double> moment2;

  bool decays() const { return kind == ParamKind::kMatrix || kind == ParamKind::kEmbedding; }
};

inline double Sign(double x) { return x > 0 ? 1 : x < 0 ? -1 : 0; }

// The root of the mean square of elements [begin, end).
inline double Rms(const std::vector<double>& x, size_t begin, size_t end) {
  double sum = 0;
  for (size_t i = begin; i < end; ++i) {
    sum += x[i] * x[i];
  }
  return std::sqrt(sum / static_cast<double>(end - begin));
}

// Tiger's rate for each element, from the values before the update.
inline std::vector<double> TigerRates(const OptimizedTensor& t, double alpha) {
  const size_t size = t.theta.size();
  std::vector<double> rates(size, alpha / 2);
  if (t.kind == ParamKind::kMatrix) {
    rates.assign(size, alpha * Rms(t.theta, 0, size));
  }
  for (size_t row = 0; t.kind == ParamKind::kEmbedding && row < size; row += t.width) {
    std::fill_n(rates.begin() + static_cast<ptrdiff_t>(row), t.width,
                alpha * Rms(t.theta, row, row + t.width));
  }
  return rates;
}

struct Hyper {
  double beta1 = 0;
  double beta2 = 0;
  double decay = 0;
  double epsilon = 0;
};

inline void TigerStep(OptimizedTensor& t, const std::vector<double>& g, double alpha,
                      const Hyper& hyper) {
  const std::vector<double> rates = TigerRates(t, alpha);
  const double decay = t.decays() ? hyper.decay : 0;
  for (size_t i = 0; i < g.size(); ++i) {
    t.moment1[i] = hyper.beta1 * t.moment1[i] + (1 - hyper.beta1) * g[i];
    t.theta[i] -= rates[i] * (Sign(t.moment1[i]) + decay * t.theta[i]);
  }
}

inline void LionStep(OptimizedTensor& t, const std::vector<double>& g, double rate,
                     const Hyper& hyper) {
  const double decay = t.decays() ? hyper.decay : 0;
  for (size_t i = 0; i < g.size(); ++i) {
    const double u = Sign(hyper.beta1 * t.moment1[i] + (1 - hyper.beta1) * g[i]);
    t.theta[i] -= rate * (u + decay * t.theta[i]);
    t.moment1[i] = hyper.beta2 * t.moment1[i] + (1 - hyper.beta2) * g[i];
  }
}

// `step` counts from 1.
inline void AdamWStep(OptimizedTensor& t, const std::vector<double>& g, double rate, int step,
                      const Hyper& hyper) {
  const double decay = t.decays() ? hyper.decay : 0;
  for (size_t i = 0; i < g.size(); ++i) {
    t.moment1[i] = hyper.beta1 * t.moment1[i] + (1 - hyper.beta1) * g[i];
    t.moment2[i] = hyper.beta2 * t.moment2[i] + (1 - hyper.beta2) * g[i] * g[i];
    const double unbiased1 = t.moment1[i] / (1 - std::pow(hyper.beta1, step));
    const double unbiased2 = t.moment2[i] / (1 - std::pow(hyper.beta2, step));
    t.theta[i] -= rate * (unbiased1 / (std::sqrt(unbiased2) + hyper.epsilon) + decay * t.theta[i]);
  }
}

}  // namespace panthera::testing::reference

#endif  // PANTHERA_TESTS_SUPPORT_REFERENCE_OPTIMIZERS_H_
