// What a model costs: parameters and floating-point operations, exactly, from its options alone.
#ifndef PANTHERA_MODEL_COST_H_
#define PANTHERA_MODEL_COST_H_

#include <cstdint>

#include "model/options.h"

namespace panthera {

// Trainable numbers by part, summed over all blocks.
struct ParameterCount {
  int64_t embedding = 0;  // V C
  int64_t attention = 0;  // L (2 C H D + 2 C K D): query, key, value and output projections
  int64_t mlp = 0;        // L 3 C F: gate, up and down projections
  int64_t norms = 0;      // (2 L + 1) C
  int64_t head = 0;       // V C, or 0 when the head shares the embedding's matrix

  int64_t total() const { return embedding + attention + mlp + norms + head; }
};

ParameterCount CountParameters(const ModelOptions& options);

// Floating-point operations per token of a training sequence; a multiply-add is two.
//
// Convention (that of "model FLOPs utilisation", Chowdhery et al., PaLM, arXiv:2204.02311, appendix
// B, with the causal half of attention counted as a half):
//   matrices    2 operations per weight forward and 4 backward, for every matrix that multiplies
//               activations: the projections of all blocks and the head (V C, tied or not). The
//               embedding lookup, norms, rotations, SwiGLU and softmax are not counted.
//   attention   a token sees on average T/2 tokens, or w - w^2 / (2 T) under a window of w <= T:
//               4 H D per token seen and layer forward (scores, weighted sum), twice that backward.
struct FlopsPerToken {
  double forward = 0;
  double backward = 0;
  // Forward operations that backward does again: those of all blocks with Recompute::kBlock, 0
  // without. The head and the attention probabilities that a fused backward rebuilds tile by tile
  // are not in it.
  double recomputed = 0;

  // What the model needs, however it is computed: for utilisation.
  double model() const { return forward + backward; }
  // What the device is asked to do.
  double hardware() const { return forward + backward + recomputed; }
};

// `options` must be finished.
FlopsPerToken CountFlops(const ModelOptions& options);

}  // namespace panthera

#endif  // PANTHERA_MODEL_COST_H_
