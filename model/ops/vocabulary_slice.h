#ifndef PANTHERA_MODEL_OPS_VOCABULARY_SLICE_H_
#define PANTHERA_MODEL_OPS_VOCABULARY_SLICE_H_

#include <cstdint>

namespace panthera {

// Which part of a vocabulary a rank has rows or columns of, where several ranks share them: tokens
// [first, first + as many as its tensor has) of [0, vocabulary). A rank may have none of them.
struct VocabularySlice {
  int64_t first = 0;
  int64_t vocabulary = 0;
};

}  // namespace panthera

#endif  // PANTHERA_MODEL_OPS_VOCABULARY_SLICE_H_
