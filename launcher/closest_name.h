#ifndef PANTHERA_LAUNCHER_CLOSEST_NAME_H_
#define PANTHERA_LAUNCHER_CLOSEST_NAME_H_

#include <optional>
#include <string>
#include <vector>

namespace panthera {

// The candidate that `name` is most likely a misspelling of: the one with the fewest insertions,
// deletions, replacements and exchanges of neighbouring letters (optimal string alignment
// distance), the first of equals. None if it would take more than a third of the name's letters (at
// least one is allowed).
std::optional<std::string> ClosestName(const std::string& name,
                                       const std::vector<std::string>& candidates);

}  // namespace panthera

#endif  // PANTHERA_LAUNCHER_CLOSEST_NAME_H_
