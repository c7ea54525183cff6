#include "tests/fuzz/mutation.h"

#include <algorithm>
#include <cctype>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <iterator>

namespace panthera::testing {
namespace {

constexpr size_t kLargestInsertion = 64;

// Borders of the integer types, and of what readers allocate or multiply.
constexpr uint64_t kBorders[] = {
    0,           1,          2,          3,           4,          7,          8,
    0x7F,        0x80,       0xFF,       0x7FFF,      0x8000,     0xFFFF,     0x10000,
    0x7FFFFFFF,  0x80000000, 0xFFFFFFFF, 0x100000000, 1ULL << 40, 1ULL << 61, (1ULL << 62),
    ~0ULL >> 1U, ~0ULL - 7U, ~0ULL};

// A number below `limit`, or 0 if that is 0. std::uniform_int_distribution differs between
// libraries.
size_t Below(std::mt19937_64& random, size_t limit) { return limit == 0 ? 0 : random() % limit; }

uint64_t Border(std::mt19937_64& random) { return kBorders[Below(random, std::size(kBorders))]; }

void OverwriteNumber(std::mt19937_64& random, std::string& text) {
  const uint64_t value = Border(random);
  const size_t bytes = std::min(size_t{1} << Below(random, 4), text.size());
  std::memcpy(text.data() + Below(random, text.size() - bytes + 1), &value, bytes);
}

// Replaces the decimal number at or after a random place.
void ReplaceDecimal(std::mt19937_64& random, std::string& text) {
  const auto is_digit = [](char c) { return std::isdigit(static_cast<unsigned char>(c)) != 0; };
  const auto from = text.begin() + static_cast<std::ptrdiff_t>(Below(random, text.size()));
  const auto begin = std::find_if(from, text.end(), is_digit);
  const auto end = std::find_if_not(begin, text.end(), is_digit);
  const auto value = static_cast<int64_t>(Border(random));
  text.replace(begin, end,
               Below(random, 2) == 0 ? std::to_string(value) : std::to_string(value / 2));
}

void MutateOnce(std::mt19937_64& random, const std::vector<std::string>& words, std::string& text) {
  const size_t place = Below(random, text.size());
  const size_t length = 1 + Below(random, std::min(kLargestInsertion, text.size()));
  if (text.empty()) {
    text.push_back(static_cast<char>(random()));
    return;
  }
  switch (Below(random, 9)) {
    case 0:
      text[place] = static_cast<char>(text[place] ^ (1 << Below(random, 8)));
      return;
    case 1:
      text[place] = static_cast<char>(random());
      return;
    case 2:
      OverwriteNumber(random, text);
      return;
    case 3:
    case 4:
      ReplaceDecimal(random, text);
      return;
    case 5:
      text.erase(place, length);
      return;
    case 6:
      text.insert(place, text.substr(Below(random, text.size()), length));
      return;
    case 7:
      text.resize(Below(random, 8) == 0 ? place : text.size() - std::min(length, text.size()));
      return;
    default:
      text.insert(place, words.empty() ? std::string(length, text[place])
                                       : words[Below(random, words.size())]);
  }
}

}  // namespace

void Mutate(std::mt19937_64& random, const std::vector<std::string>& words, std::string& text) {
  for (size_t times = 1 + Below(random, 4); times > 0; --times) {
    MutateOnce(random, words, text);
  }
}

}  // namespace panthera::testing
