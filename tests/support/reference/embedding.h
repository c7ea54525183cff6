#ifndef PANTHERA_TESTS_SUPPORT_REFERENCE_EMBEDDING_H_
#define PANTHERA_TESTS_SUPPORT_REFERENCE_EMBEDDING_H_

#include <cstdint>
#include <vector>

namespace panthera::testing::reference {

// model/ops/embedding.h in double. tokens [N], table [V, C]; returns out [N, C].
std::vector<double> Embedding(const std::vector<double>& tokens, const std::vector<double>& table,
                              int64_t width);
// Returns dtable [V, C].
std::vector<double> EmbeddingBackward(const std::vector<double>& tokens,
                                      const std::vector<double>& dout, int64_t vocabulary,
                                      int64_t width);

}  // namespace panthera::testing::reference

#endif  // PANTHERA_TESTS_SUPPORT_REFERENCE_EMBEDDING_H_
