#ifndef PANTHERA_TESTS_FUZZ_MUTATION_H_
#define PANTHERA_TESTS_FUZZ_MUTATION_H_

#include <random>
#include <string>
#include <vector>

namespace panthera::testing {

// Changes `text` in one to four places: bits, bytes, numbers (binary, or decimal in text) set to
// values at the borders of their types, ranges removed, repeated or cut off, and `words` inserted.
// The same `random` gives the same text everywhere.
void Mutate(std::mt19937_64& random, const std::vector<std::string>& words, std::string& text);

}  // namespace panthera::testing

#endif  // PANTHERA_TESTS_FUZZ_MUTATION_H_
