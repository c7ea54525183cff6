// What the tests of attention share: sizes for the kernels, and bounds of what is computed.
#ifndef PANTHERA_TESTS_MODEL_OPS_ATTENTION_CHECKS_H_
#define PANTHERA_TESTS_MODEL_OPS_ATTENTION_CHECKS_H_

#include <string>
#include <vector>

#include "tests/model/ops/attention_case.h"

namespace panthera::testing {

// Four bands with clocks of their own; the last begins where no query sees a key.
AttentionSpec FourBands(AttentionSpec spec);

// One token; sizes around the kernels' 32, 64 and 128 rows; more keys than queries; windows smaller
// and larger than a tile, and one that holds all pairs of some tiles but one; several bands;
// grouped heads; keys that no query sees.
std::vector<AttentionSpec> TensorCoreSpecs();

std::string Describe(const AttentionSpec& spec);

// A bound of the error of scale * <q, k>: D round-offs of |q| |k|, which is below 3 D for these
// inputs, and a few of the score itself.
double ScoreError(const AttentionSpec& spec);

// Against double precision, whatever has computed it: all round in the same places.
void ExpectForwardIsNear(const AttentionCase& x);
void ExpectBackwardIsNear(const AttentionCase& x);

}  // namespace panthera::testing

#endif  // PANTHERA_TESTS_MODEL_OPS_ATTENTION_CHECKS_H_
