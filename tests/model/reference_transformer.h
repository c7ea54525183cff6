#ifndef PANTHERA_TESTS_MODEL_REFERENCE_TRANSFORMER_H_
#define PANTHERA_TESTS_MODEL_REFERENCE_TRANSFORMER_H_

#include <cstdint>
#include <map>
#include <string>
#include <vector>

#include "model/options.h"

namespace panthera::testing::reference {

// Parameters by their Hugging Face names, row-major.
using Parameters = std::map<std::string, std::vector<double>>;

// model/transformer.h in double, written from the formulas: logits [B*T, V] for tokens [B, T].
std::vector<double> TransformerLogits(const ModelOptions& options, const Parameters& parameters,
                                      const std::vector<double>& tokens, int64_t sequences);
// The sum of the losses of all targets [B, T].
double TransformerLoss(const ModelOptions& options, const Parameters& parameters,
                       const std::vector<double>& tokens, const std::vector<double>& targets,
                       int64_t sequences);

}  // namespace panthera::testing::reference

#endif  // PANTHERA_TESTS_MODEL_REFERENCE_TRANSFORMER_H_
