// Every combination of the optimizer's choices, whichever there are: found by visiting the options.
#ifndef PANTHERA_TESTS_OPTIM_OPTION_CHOICES_H_
#define PANTHERA_TESTS_OPTIM_OPTION_CHOICES_H_

#include <cstddef>
#include <map>
#include <string>
#include <vector>

#include "optim/options.h"

namespace panthera::testing {

// By key; values count in the key's names.
using Choices = std::map<std::string, size_t>;

// The names that each key can be set to.
const std::map<std::string, std::vector<std::string>>& ChoiceNames();
std::vector<Choices> EveryCombination();
// The accepted ones in which nothing is left to be chosen by what "auto" stands for.
std::vector<Choices> AllowedCombinations();
// `options` with some choices made; not finished.
OptimOptions With(const Choices& choices, OptimOptions options = {});
// The same, finished, of an allowed combination.
OptimOptions FinishedWith(const Choices& choices);
// "algorithm=tiger weights=fp32 "
std::string Describe(const Choices& choices);

}  // namespace panthera::testing

#endif  // PANTHERA_TESTS_OPTIM_OPTION_CHOICES_H_
