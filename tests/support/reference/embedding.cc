#include "tests/support/reference/embedding.h"

#include <cstddef>

namespace panthera::testing::reference {

std::vector<double> Embedding(const std::vector<double>& tokens, const std::vector<double>& table,
                              int64_t width) {
  std::vector<double> out;
  for (const double token : tokens) {
    for (int64_t c = 0; c < width; ++c) {
      out.push_back(table[static_cast<size_t>(static_cast<int64_t>(token) * width + c)]);
    }
  }
  return out;
}

std::vector<double> EmbeddingBackward(const std::vector<double>& tokens,
                                      const std::vector<double>& dout, int64_t vocabulary,
                                      int64_t width) {
  std::vector<double> dtable(static_cast<size_t>(vocabulary * width));
  size_t from = 0;
  for (const double token : tokens) {
    for (int64_t c = 0; c < width; ++c) {
      dtable[static_cast<size_t>(static_cast<int64_t>(token) * width + c)] += dout[from++];
    }
  }
  return dtable;
}

}  // namespace panthera::testing::reference
