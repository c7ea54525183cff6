#include "runtime/params/name_hash.h"

#include <xxhash.h>

namespace panthera {

uint64_t HashName(const std::string& name, uint64_t seed) {
  return XXH64(name.data(), name.size(), seed);
}

}  // namespace panthera
