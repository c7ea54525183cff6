#include "tests/model/reference_transformer.h"

#include <cmath>
#include <limits>
#include <numeric>

#include "tests/support/reference/attention.h"
#include "tests/support/reference/cross_entropy.h"
#include "tests/support/reference/embedding.h"
#include "tests/support/reference/rmsnorm.h"
#include "tests/support/reference/swiglu.h"

namespace panthera::testing::reference {
namespace {

using Values = std::vector<double>;

// x [N, inputs] times w [outputs, inputs] transposed.
Values Multiply(const Values& x, const Values& w, size_t inputs) {
  const size_t rows = x.size() / inputs;
  const size_t outputs = w.size() / inputs;
  Values y(rows * outputs);
  for (size_t n = 0; n < rows; ++n) {
    for (size_t o = 0; o < outputs; ++o) {
      for (size_t i = 0; i < inputs; ++i) {
        y[n * outputs + o] += x[n * inputs + i] * w[o * inputs + i];
      }
    }
  }
  return y;
}

Values Sum(const Values& a, const Values& b) {
  Values sum(a.size());
  for (size_t i = 0; i < a.size(); ++i) {
    sum[i] = a[i] + b[i];
  }
  return sum;
}

Values Attend(const ModelOptions& o, const Parameters& p, const std::string& name, const Values& x,
              int64_t sequences) {
  const auto width = static_cast<size_t>(o.width);
  const int64_t tokens = static_cast<int64_t>(x.size()) / o.width / sequences;
  const HeadSizes queries{sequences, tokens, o.heads, o.head_width};
  const HeadSizes keys{sequences, tokens, o.kv_heads, o.head_width};
  Values positions(static_cast<size_t>(tokens));
  std::iota(positions.begin(), positions.end(), 0);
  const Values q = Multiply(x, p.at(name + ".q_proj.weight"), width);
  const Values k = Multiply(x, p.at(name + ".k_proj.weight"), width);
  const int64_t visible =
      o.attention_window == 0 ? std::numeric_limits<int64_t>::max() : o.attention_window;
  const AttentionProblem problem{.q = queries,
                                 .kv = keys,
                                 .bands = {{.q = Rotate(q, queries, positions, o.rope_base, 1),
                                            .k = Rotate(k, keys, positions, o.rope_base, 1),
                                            .begin = 0,
                                            .end = visible,
                                            .q_positions = positions,
                                            .k_positions = positions}},
                                 .v = Multiply(x, p.at(name + ".v_proj.weight"), width),
                                 .scale = 1 / std::sqrt(static_cast<double>(o.head_width)),
                                 .base = o.rope_base};
  return Multiply(Attention(problem).out, p.at(name + ".o_proj.weight"),
                  static_cast<size_t>(o.heads * o.head_width));
}

Values FeedForward(const ModelOptions& o, const Parameters& p, const std::string& name,
                   const Values& x) {
  const auto width = static_cast<size_t>(o.width);
  const auto ffn = static_cast<size_t>(o.ffn_width);
  const Values gate = Multiply(x, p.at(name + ".gate_proj.weight"), width);
  const Values up = Multiply(x, p.at(name + ".up_proj.weight"), width);
  Values gate_up;
  for (size_t n = 0; n < gate.size() / ffn; ++n) {
    const auto row = static_cast<ptrdiff_t>(n * ffn);
    const auto end = row + static_cast<ptrdiff_t>(ffn);
    gate_up.insert(gate_up.end(), gate.begin() + row, gate.begin() + end);
    gate_up.insert(gate_up.end(), up.begin() + row, up.begin() + end);
  }
  return Multiply(SwiGlu(gate_up, ffn), p.at(name + ".down_proj.weight"), ffn);
}

}  // namespace

Values TransformerLogits(const ModelOptions& o, const Parameters& p, const Values& tokens,
                         int64_t sequences) {
  const auto width = static_cast<size_t>(o.width);
  const Values& table = p.at("model.embed_tokens.weight");
  Values x = Embedding(tokens, table, o.width);
  for (int64_t layer = 0; layer < o.layers; ++layer) {
    const std::string name = "model.layers." + std::to_string(layer);
    const Values n1 = RmsNorm(x, p.at(name + ".input_layernorm.weight"), o.norm_epsilon).y;
    x = Sum(x, Attend(o, p, name + ".self_attn", n1, sequences));
    const Values n2 = RmsNorm(x, p.at(name + ".post_attention_layernorm.weight"), o.norm_epsilon).y;
    x = Sum(x, FeedForward(o, p, name + ".mlp", n2));
  }
  Values h = RmsNorm(x, p.at("model.norm.weight"), o.norm_epsilon).y;
  if (o.tie == Tie::kSwapHalves) {
    Values swapped(h.size());
    for (size_t i = 0; i < h.size(); ++i) {
      const size_t column = i % width;
      swapped[i - column + (column + width / 2) % width] = h[i];
    }
    h = swapped;
  }
  return Multiply(h, o.tie == Tie::kNone ? p.at("lm_head.weight") : table, width);
}

double TransformerLoss(const ModelOptions& options, const Parameters& parameters,
                       const Values& tokens, const Values& targets, int64_t sequences) {
  const auto vocabulary = static_cast<size_t>(options.vocab_size);
  const Values losses = CrossEntropy(TransformerLogits(options, parameters, tokens, sequences),
                                     vocabulary, vocabulary, targets);
  return std::accumulate(losses.begin(), losses.end(), 0.0);
}

}  // namespace panthera::testing::reference
