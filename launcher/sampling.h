#ifndef PANTHERA_LAUNCHER_SAMPLING_H_
#define PANTHERA_LAUNCHER_SAMPLING_H_

#include <algorithm>
#include <cstdint>
#include <span>

#include "absl/functional/function_ref.h"
#include "absl/status/status.h"
#include "absl/status/statusor.h"

#include "launcher/model_instance.h"
#include "model/key_value_cache.h"

namespace panthera {

struct SamplingOptions {
  double temperature = 1;  // divides the logits; 0: always the most likely token
  int64_t top_k = 0;       // choose among this many most likely tokens; 0: among all
  double top_p = 1;        // and among the fewest tokens that together have this probability
  int64_t seed = 0;
};

// Draws a token from softmax(logits / temperature) restricted by top_k, then top_p; `uniform` in
// [0, 1) decides. Equal logits rank by token id. A logit that is not finite is an error. (Nucleus
// sampling: Holtzman et al., arXiv 1904.09751.)
absl::StatusOr<int64_t> SampleToken(std::span<const float> logits, const SamplingOptions& options,
                                    double uniform);

// Continues a text token by token with a key/value cache.
class Generator {
 public:
  // Draws only ids below `vocab_size`, the tokenizer's: the model may have been given more, which
  // stand for no text.
  Generator(ModelInstance& instance, int64_t vocab_size);

  // Runs the model over `prompt` (at least one token) and then draws up to `count` tokens, each
  // given to `emit`, which returns false to stop. When the model's context is full it goes on from
  // the last half of it. The same seed and prompt give the same tokens. CPU only. Logits that are
  // not finite are an error.
  absl::Status Generate(std::span<const int32_t> prompt, int64_t count,
                        const SamplingOptions& options, absl::FunctionRef<bool(int32_t)> emit);
  // Runs the model on all that Generate runs it on for a prompt of `prompt_tokens` and up to
  // `count` tokens: on kMeta, to measure the arena. Scratch of products depends on their sizes in
  // ways that are the library's own, so that a longer prompt may need less.
  void Plan(int64_t prompt_tokens, int64_t count);

 private:
  // How many tokens of a prompt, and of a text that fills the context, are run at once.
  int64_t most_prompt_tokens() const { return std::max<int64_t>(1, context_tokens_ - 1); }
  int64_t refill_tokens() const { return std::max<int64_t>(1, context_tokens_ / 2); }
  // Appends tokens to the cache; afterwards logits_ hold what follows.
  void Feed(std::span<const int32_t> tokens);
  // Copies what follows the last token, for the ids that may be drawn.
  void ReadLogits(std::span<float> logits) const;

  ModelInstance& instance_;
  int64_t vocab_size_;
  int64_t context_tokens_;
  KeyValueCache cache_;
  Buffer memory_;
  Tensor tokens_;  // [T] i32
  Tensor logits_;  // [1, V]
};

}  // namespace panthera

#endif  // PANTHERA_LAUNCHER_SAMPLING_H_
