#ifndef PANTHERA_TESTS_RUNTIME_DATA_SAMPLE_TEXT_H_
#define PANTHERA_TESTS_RUNTIME_DATA_SAMPLE_TEXT_H_

#include <string>

namespace panthera::testing {

// About 60 kB of made-up text, the same every time: words, numbers, indented lines, tabs, and some
// Chinese, enough to train a vocabulary of 700.
std::string SampleText();

}  // namespace panthera::testing

#endif  // PANTHERA_TESTS_RUNTIME_DATA_SAMPLE_TEXT_H_
