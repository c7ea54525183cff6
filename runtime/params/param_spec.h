#ifndef PANTHERA_RUNTIME_PARAMS_PARAM_SPEC_H_
#define PANTHERA_RUNTIME_PARAMS_PARAM_SPEC_H_

#include <cstdint>
#include <optional>
#include <string>

#include "runtime/device/tensor.h"
#include "runtime/params/element_map.h"

namespace panthera {

// What a parameter is to the optimizers and to initialisation.
enum class ParamKind : uint8_t {
  kMatrix,     // a linear map: rate and sums over the whole tensor
  kEmbedding,  // a lookup table: rate and sums by row
  kGain,       // multiplies element-wise, centred at one
  kBias,       // adds element-wise, centred at zero
};

// Which part of a matrix one tensor-parallel rank has: neighbouring rows, or neighbouring columns
// of all rows.
struct MatrixSlice {
  Shape whole;
  int64_t first_row = 0;
  int64_t first_column = 0;
};

// A parameter of the model: one logical tensor, whole or cut over the tensor-parallel ranks.
struct ParamSpec {
  // The name in Hugging Face checkpoints, such as "model.layers.3.mlp.up_proj.weight".
  std::string name;
  // Of what this rank has: the logical tensor, or its slice.
  Shape shape;
  ParamKind kind = ParamKind::kMatrix;
  // Initial values are normal with this mean and standard deviation.
  double init_mean = 0;
  double init_deviation = 0;
  // Where `shape` lies in the logical tensor; nothing: it is all of it.
  std::optional<MatrixSlice> slice = std::nullopt;

  const Shape& logical_shape() const { return slice.has_value() ? slice->whole : shape; }
  // From this rank's elements to those of the logical tensor. Initial values and random rounding
  // go by the latter.
  ElementMap logical_elements() const;
};

}  // namespace panthera

#endif  // PANTHERA_RUNTIME_PARAMS_PARAM_SPEC_H_
