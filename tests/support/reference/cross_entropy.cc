#include "tests/support/reference/cross_entropy.h"

#include <algorithm>
#include <cmath>

namespace panthera::testing::reference {
namespace {

double LogSumExp(const double* logits, size_t count) {
  const double max = *std::max_element(logits, logits + count);
  double sum = 0;
  for (size_t v = 0; v < count; ++v) {
    sum += std::exp(logits[v] - max);
  }
  return max + std::log(sum);
}

}  // namespace

std::vector<double> CrossEntropy(const std::vector<double>& logits, size_t stride,
                                 size_t vocab_size, const std::vector<double>& targets) {
  std::vector<double> losses;
  for (size_t i = 0; i < targets.size(); ++i) {
    const double* row = logits.data() + i * stride;
    losses.push_back(LogSumExp(row, vocab_size) - row[static_cast<size_t>(targets[i])]);
  }
  return losses;
}

std::vector<double> CrossEntropyGradient(const std::vector<double>& logits, size_t stride,
                                         size_t vocab_size, const std::vector<double>& targets,
                                         double scale) {
  std::vector<double> gradient(logits.size());
  for (size_t i = 0; i < targets.size(); ++i) {
    const double* row = logits.data() + i * stride;
    const double lse = LogSumExp(row, vocab_size);
    for (size_t v = 0; v < vocab_size; ++v) {
      const double onehot = v == static_cast<size_t>(targets[i]) ? 1 : 0;
      gradient[i * stride + v] = scale * (std::exp(row[v] - lse) - onehot);
    }
  }
  return gradient;
}

}  // namespace panthera::testing::reference
