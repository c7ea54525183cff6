#ifndef PANTHERA_TESTS_FUZZ_PARTS_H_
#define PANTHERA_TESTS_FUZZ_PARTS_H_

#include <cstddef>
#include <string>
#include <string_view>
#include <vector>

namespace panthera::testing {

// An input for a reader: one or several files or arguments. Never empty.
using Parts = std::vector<std::string>;

inline constexpr size_t kMaxParts = 8;
// Stands between the parts of an input that is kept in one file, so that a text remains readable.
inline constexpr char kPartSeparator[] = "\n====\n";

std::string JoinParts(const Parts& parts);
// The parts that any bytes stand for. A separator after kMaxParts - 1 others is part of the last.
Parts SplitParts(std::string_view bytes);

}  // namespace panthera::testing

#endif  // PANTHERA_TESTS_FUZZ_PARTS_H_
