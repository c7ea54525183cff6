#ifndef PANTHERA_MODEL_OPTIONS_H_
#define PANTHERA_MODEL_OPTIONS_H_

#include <cmath>
#include <cstdint>

#include "absl/status/status.h"

#include "runtime/base/fields.h"

namespace panthera {

// What the output matrix shares with the input embedding.
enum class Tie : uint8_t {
  kNone,        // nothing
  kTied,        // logits = h E^T
  kSwapHalves,  // logits = h' E^T, h' = the final features with their two halves exchanged
};
template <>
struct EnumNames<Tie> {
  static constexpr const char* kNames[] = {"none", "tied", "swap_halves"};
};

// What the backward pass computes again instead of keeping.
enum class Recompute : uint8_t {
  kNone,   // nothing
  kBlock,  // everything inside a block from the block's input
};
template <>
struct EnumNames<Recompute> {
  static constexpr const char* kNames[] = {"none", "block"};
};

// A decoder-only transformer in the Llama arrangement: RMSNorm before attention and before SwiGLU,
// rotary positions, grouped heads, no biases.
struct ModelOptions {
  int64_t vocab_size = 0;
  int64_t width = 0;
  int64_t layers = 0;
  int64_t heads = 0;
  int64_t kv_heads = 0;
  int64_t head_width = 0;
  static constexpr int64_t kLargestHeadWidth = 4096;
  int64_t ffn_width = 0;
  int64_t sequence_length = 0;
  int64_t attention_window = 0;
  double rope_base = 10000;
  double norm_epsilon = 1e-5;
  Tie tie = Tie::kNone;
  Recompute recompute = Recompute::kNone;
  double init_deviation = 0.02;
  int64_t head_chunk_rows = 1024;

  void VisitFields(FieldVisitor& visit) {
    visit.Int({"vocab_size", "number of token ids; at least that of the tokenizer"}, vocab_size,
              {2, int64_t{1} << 31});
    visit.Int({"width", "features of the residual stream (C)"}, width, {1, 1 << 20});
    visit.Int({"layers", "transformer blocks (L)"}, layers, {1, 4096});
    visit.Int({"heads", "query heads (H)"}, heads, {1, 4096});
    visit.Int({"kv_heads", "key/value heads (K), a divisor of `heads`; 0: as many as `heads`"},
              kv_heads, {0, 4096});
    visit.Int({"head_width", "features of a head (D), even; 0: width / heads"}, head_width,
              {0, kLargestHeadWidth});
    visit.Int({"ffn_width", "hidden features of the feed-forward layer (F)"}, ffn_width,
              {1, 1 << 22});
    visit.Int({"sequence_length", "tokens of a training sequence (T)"}, sequence_length,
              {1, 1 << 24});
    visit.Int(
        {"attention_window", "tokens that a token can see, itself included; 0: all before it"},
        attention_window, {0, 1 << 24});
    visit.Real({"rope_base", "base of the rotary frequencies"}, rope_base, {1, 1e12});
    visit.Real({"norm_epsilon", "added to the mean square in RMSNorm"}, norm_epsilon, {0, 1});
    visit.Enum({"tie", "what the output matrix shares with the input embedding"}, tie);
    visit.Enum({"recompute", "what backward computes again instead of keeping"}, recompute);
    visit.Real({"init_deviation",
                "standard deviation of initial matrices; those that write into the residual stream "
                "get this / sqrt(2 layers)"},
               init_deviation, {0, 10});
    visit.Int({"head_chunk_rows", "rows for which logits exist at a time"}, head_chunk_rows,
              {1, 1 << 24});
  }

  // The standard deviation of initial matrices that write into the residual stream: scaled so that
  // the sum of 2 * layers branches keeps the deviation of one (Radford et al., "Language models are
  // unsupervised multitask learners", 2019).
  double residual_init_deviation() const {
    return init_deviation / std::sqrt(2 * static_cast<double>(layers));
  }

  // Fills in the zeros that stand for a derived value and checks what single ranges cannot.
  absl::Status Finish();
};

}  // namespace panthera

#endif  // PANTHERA_MODEL_OPTIONS_H_
