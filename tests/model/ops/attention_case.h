#ifndef PANTHERA_TESTS_MODEL_OPS_ATTENTION_CASE_H_
#define PANTHERA_TESTS_MODEL_OPS_ATTENTION_CASE_H_

#include <cstdint>
#include <memory>
#include <optional>
#include <vector>

#include "model/ops/attention.h"
#include "tests/support/random_tensor.h"
#include "tests/support/reference/attention.h"

namespace panthera::testing {

// Positions by which a band turns: first + step * row.
struct Clock {
  double first;
  double step;
};

// A band, and how its queries and keys are turned; none: not at all.
struct BandSpec {
  int64_t begin = 0;
  int64_t end = AttentionBand::kUnbounded;
  std::optional<Clock> q_clock;
  std::optional<Clock> k_clock;
};

struct AttentionSpec {
  int64_t batch;
  int64_t queries;
  int64_t keys;
  int64_t heads;
  int64_t kv_heads;
  int64_t width;
  std::vector<BandSpec> bands;
};

// Ordinary rotary positions for queries that end where the keys end.
inline BandSpec RotatedBand(int64_t begin, int64_t end, const AttentionSpec& spec) {
  return {begin, end, Clock{static_cast<double>(spec.keys - spec.queries), 1}, Clock{0, 1}};
}

// Causal attention with ordinary positions; the same with a window.
inline AttentionSpec Causal(int64_t batch, int64_t queries, int64_t keys, int64_t heads,
                            int64_t kv_heads, int64_t width) {
  AttentionSpec spec{batch, queries, keys, heads, kv_heads, width, {}};
  spec.bands = {RotatedBand(0, AttentionBand::kUnbounded, spec)};
  return spec;
}
inline AttentionSpec Window(AttentionSpec spec, int64_t window) {
  spec.bands = {RotatedBand(0, window, spec)};
  return spec;
}

// ReRoPE: from distance w on, all queries at position w and no key turned.
inline AttentionSpec ReRope(AttentionSpec spec, int64_t w,
                            int64_t window = AttentionBand::kUnbounded) {
  spec.bands = {RotatedBand(0, w, spec),
                {w, window, Clock{static_cast<double>(w), 0}, std::nullopt}};
  return spec;
}

// Random inputs of one attention, everything that its ops write, and the reference's view of it.
class AttentionCase {
 public:
  AttentionCase(Context& ctx, const AttentionSpec& spec, DType dtype);

  void Forward(Context& ctx);
  void Backward(Context& ctx);

  float scale() const;
  reference::AttentionProblem Problem() const;

  AttentionSpec spec;
  HostTensor q;  // not turned
  HostTensor k;
  HostTensor v;
  HostTensor out;
  HostTensor lse;
  HostTensor dout;
  HostTensor dq;
  HostTensor dk;
  HostTensor dv;
  std::vector<AttentionBand> bands;

 private:
  struct Table {
    HostTensor cos;
    HostTensor sin;
  };
  // x as the clock turns it; keeps the memory.
  Heads Turned(Context& ctx, const HostTensor& x, const std::optional<Clock>& clock,
               std::optional<RotaryTable>* rotation);

  std::vector<std::unique_ptr<HostTensor>> turned_;
  std::vector<std::unique_ptr<Table>> tables_;
};

// The same ops in a plan for `target`; returns the arena bytes that they need.
int64_t PlannedBytes(const AttentionSpec& spec, DType dtype, Device target);

}  // namespace panthera::testing

#endif  // PANTHERA_TESTS_MODEL_OPS_ATTENTION_CASE_H_
