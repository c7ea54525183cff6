#ifndef PANTHERA_TESTS_SUPPORT_REFERENCE_CROSS_ENTROPY_H_
#define PANTHERA_TESTS_SUPPORT_REFERENCE_CROSS_ENTROPY_H_

#include <cstddef>
#include <vector>

namespace panthera::testing::reference {

// model/ops/cross_entropy.h in double. logits [n, stride] of which the first `vocab_size` columns
// count, targets [n]; returns losses [n].
std::vector<double> CrossEntropy(const std::vector<double>& logits, size_t stride,
                                 size_t vocab_size, const std::vector<double>& targets);
// The gradient of scale * (the sum of all losses): [n, stride], zero in the padding.
std::vector<double> CrossEntropyGradient(const std::vector<double>& logits, size_t stride,
                                         size_t vocab_size, const std::vector<double>& targets,
                                         double scale);

}  // namespace panthera::testing::reference

#endif  // PANTHERA_TESTS_SUPPORT_REFERENCE_CROSS_ENTROPY_H_
