#ifndef PANTHERA_RUNTIME_DATA_UTF8_H_
#define PANTHERA_RUNTIME_DATA_UTF8_H_

#include <cstddef>
#include <string>
#include <string_view>

namespace panthera {

// The length of the longest prefix of `text` that is whole, well-formed UTF-8 (Unicode Standard,
// table 3-7: no overlong forms, no surrogates, nothing above U+10FFFF).
size_t ValidUtf8Prefix(std::string_view text);

// `text` with U+FFFD in place of every byte that is not part of a well-formed character.
std::string ReplaceInvalidUtf8(std::string_view text);

// The largest position <= `position` that does not lie inside a character of valid UTF-8.
size_t CharacterBoundary(std::string_view text, size_t position);

}  // namespace panthera

#endif  // PANTHERA_RUNTIME_DATA_UTF8_H_
