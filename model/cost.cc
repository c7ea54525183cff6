#include "model/cost.h"

#include "runtime/base/check.h"

namespace panthera {

ParameterCount CountParameters(const ModelOptions& options) {
  CHECK_GT(options.kv_heads, 0) << "ModelOptions::Finish was not called";
  CHECK_GT(options.head_width, 0) << "ModelOptions::Finish was not called";
  const int64_t table = options.vocab_size * options.width;
  const int64_t projections = 2 * (options.heads + options.kv_heads) * options.head_width;
  return {
      .embedding = table,
      .attention = options.layers * options.width * projections,
      .mlp = options.layers * 3 * options.width * options.ffn_width,
      .norms = (2 * options.layers + 1) * options.width,
      .head = options.tie == Tie::kNone ? table : 0,
  };
}

FlopsPerToken CountFlops(const ModelOptions& options) {
  const ParameterCount parameters = CountParameters(options);
  const auto length = static_cast<double>(options.sequence_length);
  double window = length;
  if (options.attention_window > 0 && options.attention_window < options.sequence_length) {
    window = static_cast<double>(options.attention_window);
  }
  const double tokens_seen = window - window * window / (2 * length);
  const auto query_width = static_cast<double>(options.heads * options.head_width);

  const double projections = 2 * static_cast<double>(parameters.attention + parameters.mlp);
  const double attention = 4 * query_width * tokens_seen * static_cast<double>(options.layers);
  const double blocks = projections + attention;
  const double head = 2 * static_cast<double>(options.vocab_size * options.width);

  FlopsPerToken flops;
  flops.forward = blocks + head;
  flops.backward = 2 * flops.forward;
  switch (options.recompute) {
    case Recompute::kNone:
      break;
    case Recompute::kBlock:
      flops.recomputed = blocks;
      break;
  }
  return flops;
}

}  // namespace panthera
