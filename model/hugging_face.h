// How other programs see our models: the configuration file that lets transformers open a
// checkpoint directory, and the one tensor they expect that we do not keep.
#ifndef PANTHERA_MODEL_HUGGING_FACE_H_
#define PANTHERA_MODEL_HUGGING_FACE_H_

#include <optional>
#include <string>

#include "model/options.h"
#include "runtime/base/dtype.h"
#include "runtime/checkpoint/checkpoint.h"
#include "runtime/device/tensor.h"
#include "runtime/math/context.h"

namespace panthera {

// The name of the output matrix in Hugging Face checkpoints.
inline constexpr char kHeadName[] = "lm_head.weight";

// Ids of the tokens that begin and end a text; absent if the tokenizer has none.
struct TextMarks {
  std::optional<int64_t> begin;
  std::optional<int64_t> end;
};

// The contents of config.json. A model is a LlamaForCausalLM; with an attention window it is a
// MistralForCausalLM, which has the same parameters under the same names and whose sliding_window
// counts, like ours, the token itself. `weights` is the type of the stored matrices. (The gains of
// norms are stored in fp32; transformers rounds them to `weights` unless it is told to load all in
// float32.) `options` must be finished (no zeros that stand for derived values).
std::string HuggingFaceConfigJson(const ModelOptions& options, DType weights,
                                  const TextMarks& marks);

// Tie::kSwapHalves has logits h' E^T, where h' is h with its two halves exchanged. As h' E^T =
// h E'^T, where E' is E with the two halves of every row exchanged, the model exports as an untied
// one whose head is E': a derived tensor, saved for others and not loaded again.
//
// The piece of E' that belongs to a piece of the table E: enqueues on ctx.compute() to fill `data`,
// of table.data's shape, type and device. The piece must hold whole rows.
TensorPiece SwappedHeadPiece(Context& ctx, const TensorPiece& table, Tensor data);

}  // namespace panthera

#endif  // PANTHERA_MODEL_HUGGING_FACE_H_
