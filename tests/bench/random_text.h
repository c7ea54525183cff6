#ifndef PANTHERA_TESTS_BENCH_RANDOM_TEXT_H_
#define PANTHERA_TESTS_BENCH_RANDOM_TEXT_H_

#include <cstdint>
#include <string>

#include "absl/status/status.h"

namespace panthera::bench {

// Writes a token file STEM.bin and STEM.idx of one document with `tokens` random tokens.
absl::Status WriteRandomText(const std::string& stem, int64_t tokens, int64_t vocab_size);

}  // namespace panthera::bench

#endif  // PANTHERA_TESTS_BENCH_RANDOM_TEXT_H_
