#include "tests/runtime/data/sample_text.h"

#include <random>
#include <vector>

namespace panthera::testing {

std::string SampleText() {
  std::mt19937 random(1);
  const char* const syllables[] = {"ka", "to",  "mi", "ren", "sol", "fa",  "ber", "ing",
                                   "un", "pre", "s",  "low", "est", "tri", "go",  "a"};
  std::vector<std::string> words = {"\xE4\xBD\xA0\xE5\xA5\xBD", "\xE4\xB8\x96\xE7\x95\x8C"};
  for (int i = 0; i < 500; ++i) {
    std::string word;
    for (auto n = random() % 4 + 1; n > 0; --n) {
      word += syllables[random() % 16];
    }
    words.push_back(word);
  }
  std::string text;
  while (text.size() < 60000) {
    const auto kind = random() % 12;
    if (kind == 0) {
      text.push_back('\n');
    } else if (kind == 1) {
      text.append("\n        ");
    } else if (kind == 2) {
      text.push_back('\t');
      text.append(std::to_string(random() % 100000));
    } else {
      text.push_back(' ');
      text.append(words[random() % words.size()]);
    }
  }
  return text;
}

}  // namespace panthera::testing
