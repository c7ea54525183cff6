#ifndef PANTHERA_TESTS_SUPPORT_REFERENCE_ATTENTION_H_
#define PANTHERA_TESTS_SUPPORT_REFERENCE_ATTENTION_H_

#include <cstddef>
#include <cstdint>
#include <vector>

namespace panthera::testing::reference {

struct HeadSizes {
  int64_t batch;
  int64_t tokens;
  int64_t heads;
  int64_t width;

  int64_t elements() const { return batch * tokens * heads * width; }
  size_t at(int64_t b, int64_t t, int64_t h, int64_t c) const {
    return static_cast<size_t>(((b * tokens + t) * heads + h) * width + c);
  }
};

// model/ops/rope.h in double: x [B, T, heads, D] turned by positions[t] * base^(-2c/D), times
// `direction` (1 or -1).
std::vector<double> Rotate(const std::vector<double>& x, const HeadSizes& sizes,
                           const std::vector<double>& positions, double base, double direction);

// A band of model/ops/attention.h: queries and keys as they are compared, and the positions by
// which they were turned (empty: not at all).
struct Band {
  std::vector<double> q;
  std::vector<double> k;
  int64_t begin;
  int64_t end;
  std::vector<double> q_positions;
  std::vector<double> k_positions;
};

struct AttentionProblem {
  HeadSizes q;
  HeadSizes kv;
  std::vector<Band> bands;
  std::vector<double> v;
  double scale;
  double base;
};

struct AttentionResult {
  std::vector<double> out;  // [B, Tq, H, D]
  std::vector<double> lse;  // [B, H, Tq]
};
AttentionResult Attention(const AttentionProblem& problem);

// With respect to q and k before they were turned, and to v.
struct AttentionGradients {
  std::vector<double> dq;
  std::vector<double> dk;
  std::vector<double> dv;
};
AttentionGradients AttentionBackward(const AttentionProblem& problem,
                                     const std::vector<double>& dout);

}  // namespace panthera::testing::reference

#endif  // PANTHERA_TESTS_SUPPORT_REFERENCE_ATTENTION_H_
