#ifndef PANTHERA_LAUNCHER_OVERRIDE_KEY_H_
#define PANTHERA_LAUNCHER_OVERRIDE_KEY_H_

#include <cstddef>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

namespace panthera {

// One step on the way to a value: "train[0]" of "data.train[0].path".
struct KeyPart {
  std::string name;
  std::optional<size_t> index;
};

// The steps of a key that a user wrote; none if it is not names of letters, digits, "_" and "-",
// joined by ".", each with at most one index.
std::optional<std::vector<KeyPart>> ParseOverrideKey(std::string_view key);

}  // namespace panthera

#endif  // PANTHERA_LAUNCHER_OVERRIDE_KEY_H_
