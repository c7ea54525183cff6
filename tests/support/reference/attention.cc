#include "tests/support/reference/attention.h"

#include <algorithm>
#include <cmath>
#include <limits>

namespace panthera::testing::reference {
namespace {

// The band that query row i and key j meet in, or null if the query does not see the key.
const Band* BandOf(const AttentionProblem& problem, int64_t i, int64_t j) {
  const int64_t distance = i + problem.kv.tokens - problem.q.tokens - j;
  for (const Band& band : problem.bands) {
    if (band.begin <= distance && distance < band.end) {
      return &band;
    }
  }
  return nullptr;
}

int64_t KvHeadOf(const AttentionProblem& problem, int64_t h) {
  return h / (problem.q.heads / problem.kv.heads);
}

// Probabilities of all keys for one query, and their log-sum-exp.
struct Row {
  std::vector<double> probabilities;
  double lse;
};

Row Probabilities(const AttentionProblem& problem, int64_t b, int64_t h, int64_t i) {
  std::vector<double> scores;
  for (int64_t j = 0; j < problem.kv.tokens; ++j) {
    const Band* band = BandOf(problem, i, j);
    double dot = 0;
    for (int64_t c = 0; band != nullptr && c < problem.q.width; ++c) {
      dot +=
          band->q[problem.q.at(b, i, h, c)] * band->k[problem.kv.at(b, j, KvHeadOf(problem, h), c)];
    }
    scores.push_back(band == nullptr ? -std::numeric_limits<double>::infinity()
                                     : problem.scale * dot);
  }
  const double max = *std::max_element(scores.begin(), scores.end());
  double sum = 0;
  for (const double score : scores) {
    sum += std::exp(score - max);
  }
  const double lse = max + std::log(sum);
  for (double& score : scores) {
    score = std::exp(score - lse);
  }
  return {scores, lse};
}

}  // namespace

std::vector<double> Rotate(const std::vector<double>& x, const HeadSizes& sizes,
                           const std::vector<double>& positions, double base, double direction) {
  std::vector<double> out(x.size());
  const int64_t pairs = sizes.width / 2;
  for (int64_t b = 0; b < sizes.batch; ++b) {
    for (int64_t t = 0; t < sizes.tokens; ++t) {
      for (int64_t h = 0; h < sizes.heads; ++h) {
        for (int64_t c = 0; c < pairs; ++c) {
          const double frequency = std::exp(-std::log(base) * 2 * static_cast<double>(c) /
                                            static_cast<double>(sizes.width));
          const double angle = direction * positions[static_cast<size_t>(t)] * frequency;
          const double first = x[sizes.at(b, t, h, c)];
          const double second = x[sizes.at(b, t, h, c + pairs)];
          out[sizes.at(b, t, h, c)] = first * std::cos(angle) - second * std::sin(angle);
          out[sizes.at(b, t, h, c + pairs)] = first * std::sin(angle) + second * std::cos(angle);
        }
      }
    }
  }
  return out;
}

AttentionResult Attention(const AttentionProblem& problem) {
  AttentionResult result;
  result.out.resize(static_cast<size_t>(problem.q.elements()));
  for (int64_t b = 0; b < problem.q.batch; ++b) {
    for (int64_t h = 0; h < problem.q.heads; ++h) {
      for (int64_t i = 0; i < problem.q.tokens; ++i) {
        const Row row = Probabilities(problem, b, h, i);
        result.lse.push_back(row.lse);
        for (int64_t j = 0; j < problem.kv.tokens; ++j) {
          for (int64_t c = 0; c < problem.q.width; ++c) {
            result.out[problem.q.at(b, i, h, c)] +=
                row.probabilities[static_cast<size_t>(j)] *
                problem.v[problem.kv.at(b, j, KvHeadOf(problem, h), c)];
          }
        }
      }
    }
  }
  return result;
}

AttentionGradients AttentionBackward(const AttentionProblem& problem,
                                     const std::vector<double>& dout) {
  const size_t queries = static_cast<size_t>(problem.q.elements());
  const size_t keys = static_cast<size_t>(problem.kv.elements());
  AttentionGradients sum{std::vector<double>(queries), std::vector<double>(keys),
                         std::vector<double>(keys)};
  for (const Band& band : problem.bands) {
    std::vector<double> dq(queries);
    std::vector<double> dk(keys);
    for (int64_t b = 0; b < problem.q.batch; ++b) {
      for (int64_t h = 0; h < problem.q.heads; ++h) {
        const int64_t k = KvHeadOf(problem, h);
        for (int64_t i = 0; i < problem.q.tokens; ++i) {
          const std::vector<double> p = Probabilities(problem, b, h, i).probabilities;
          std::vector<double> dp(p.size());
          double mean = 0;
          for (int64_t j = 0; j < problem.kv.tokens; ++j) {
            const size_t at = static_cast<size_t>(j);
            for (int64_t c = 0; c < problem.q.width; ++c) {
              dp[at] += dout[problem.q.at(b, i, h, c)] * problem.v[problem.kv.at(b, j, k, c)];
            }
            mean += p[at] * dp[at];
          }
          for (int64_t j = 0; j < problem.kv.tokens; ++j) {
            if (BandOf(problem, i, j) != &band) {
              continue;
            }
            const size_t at = static_cast<size_t>(j);
            const double ds = problem.scale * p[at] * (dp[at] - mean);
            for (int64_t c = 0; c < problem.q.width; ++c) {
              dq[problem.q.at(b, i, h, c)] += ds * band.k[problem.kv.at(b, j, k, c)];
              dk[problem.kv.at(b, j, k, c)] += ds * band.q[problem.q.at(b, i, h, c)];
              sum.dv[problem.kv.at(b, j, k, c)] += p[at] * dout[problem.q.at(b, i, h, c)];
            }
          }
        }
      }
    }
    if (!band.q_positions.empty()) {
      dq = Rotate(dq, problem.q, band.q_positions, problem.base, -1);
    }
    if (!band.k_positions.empty()) {
      dk = Rotate(dk, problem.kv, band.k_positions, problem.base, -1);
    }
    for (size_t i = 0; i < queries; ++i) {
      sum.dq[i] += dq[i];
    }
    for (size_t i = 0; i < keys; ++i) {
      sum.dk[i] += dk[i];
    }
  }
  return sum;
}

}  // namespace panthera::testing::reference
