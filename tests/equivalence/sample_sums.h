#ifndef PANTHERA_TESTS_EQUIVALENCE_SAMPLE_SUMS_H_
#define PANTHERA_TESTS_EQUIVALENCE_SAMPLE_SUMS_H_

#include <cstdint>
#include <map>
#include <string>
#include <vector>

#include "launcher/trainer.h"
#include "runtime/data/loader.h"
#include "tests/equivalence/tiny_run.h"

namespace panthera::testing {

// What a step has to do, sample by sample in double: of every parameter the sum of the samples'
// gradients and of their magnitudes, and the sum of the samples' mean losses.
struct SampleSums {
  int64_t samples = 0;
  std::map<std::string, std::vector<double>> gradient;
  std::map<std::string, std::vector<double>> magnitude;
  double loss = 0;
};

// At the trainer's parameters, for the global samples [first, first + samples).
SampleSums SumOverSamples(Trainer& trainer, const DataLoader& data, int64_t first, int64_t samples);
// For the first step of a run with fresh parameters.
SampleSums SumOverFirstStep(const TinyRun& run);

// How far the sum of a step's gradients may be from the sums, for each element of a parameter; the
// same times (1 - beta) / samples bounds a Tiger momentum that they alone have gone into. A
// sample's gradient has the same bits wherever it is computed, if it is alone in its micro-batch;
// then
// * the samples' gradients are summed in fp32 in some order, with a product by the weight and one
// by
//   1 - beta, itself rounded, before or after: a rounding of the sum of magnitudes for each sample
//   and four more;
// * where gradients are accumulated in the gradient buffer, a sample's is not formed first: each of
//   its tokens may be added, and rounded, by itself, in sums that are no larger than the largest of
//   the parameter;
// * with bf16 weights and several ranks what travels is rounded to bf16 once;
// * a bf16 momentum is rounded after each fold.
// Products of roundings are covered by a tenth more.
std::vector<double> StepBounds(const RunOptions& options, int64_t ranks,
                               const std::vector<double>& magnitude);

}  // namespace panthera::testing

#endif  // PANTHERA_TESTS_EQUIVALENCE_SAMPLE_SUMS_H_
