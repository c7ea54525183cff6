// What config.json of Hugging Face says about a model: reading it, and the words it has for types.
#ifndef PANTHERA_MODEL_HUGGING_FACE_CONFIG_H_
#define PANTHERA_MODEL_HUGGING_FACE_CONFIG_H_

#include <string>

#include "absl/status/status.h"
#include "absl/status/statusor.h"

#include "model/options.h"
#include "runtime/base/dtype.h"

namespace panthera {

// The file in the directory of a model.
inline constexpr char kModelConfigName[] = "config.json";

// What the file calls a type of floats that files have: fp32, bf16 or fp16.
const char* TorchTypeName(DType dtype);

// The model that the text of a config.json describes, finished: a Llama, or a Mistral, which has an
// attention window. The sizes that every model has must be there; any other key that is absent has
// its default in transformers. What does not concern the shape of the model is as in ModelOptions,
// sequence_length is max_position_embeddings.
//
// What a model here cannot do - scaled rotary positions, biases, other activations, dropout,
// quantized weights - is refused, never ignored. The error is one line that names `path`, the key
// and what is supported.
absl::StatusOr<ModelOptions> ParseHuggingFaceConfig(const std::string& text,
                                                    const std::string& path);

// The same config.json with another type of weights, everything else as it is. `text` must be one
// that ParseHuggingFaceConfig accepts, `weights` a type of floats that files have.
std::string WithWeightType(const std::string& text, DType weights);

}  // namespace panthera

#endif  // PANTHERA_MODEL_HUGGING_FACE_CONFIG_H_
