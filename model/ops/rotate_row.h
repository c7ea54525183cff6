#ifndef PANTHERA_MODEL_OPS_ROTATE_ROW_H_
#define PANTHERA_MODEL_OPS_ROTATE_ROW_H_

#include <cstdint>

#include "runtime/base/dtype.h"

namespace panthera {

// Turns the `pairs` pairs (x[c], x[c + pairs]) of one head by the angles whose cosines and sines
// are given, with sign -1 backwards (rope.h). out may be x.
void RotateRow(const float* x, const float* cos, const float* sin, float sign, int64_t pairs,
               float* out);
void RotateRow(const BF16* x, const float* cos, const float* sin, float sign, int64_t pairs,
               BF16* out);

}  // namespace panthera

#endif  // PANTHERA_MODEL_OPS_ROTATE_ROW_H_
