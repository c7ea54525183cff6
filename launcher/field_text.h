// How values of option fields, and the values they may have, are written in files and messages.
#ifndef PANTHERA_LAUNCHER_FIELD_TEXT_H_
#define PANTHERA_LAUNCHER_FIELD_TEXT_H_

#include <span>
#include <string>

#include "runtime/base/fields.h"

namespace panthera {

// The shortest TOML number that reads back as the same value. A finite value always has a point or
// an exponent: "10.0".
std::string RealText(double value);

// A TOML string in double quotes.
std::string QuotedText(const std::string& value);

// "1 to 4096", "at least 1".
std::string RangeText(IntRange range);
std::string RangeText(RealRange range);

// "\"tiger\", \"lion\", \"adamw\"".
std::string ChoicesText(std::span<const char* const> names);

}  // namespace panthera

#endif  // PANTHERA_LAUNCHER_FIELD_TEXT_H_
