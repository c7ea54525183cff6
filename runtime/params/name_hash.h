#ifndef PANTHERA_RUNTIME_PARAMS_NAME_HASH_H_
#define PANTHERA_RUNTIME_PARAMS_NAME_HASH_H_

#include <cstdint>
#include <string>

namespace panthera {

// A key of random numbers for one parameter: XXH64 of its name with the given seed (xxHash
// specification, https://github.com/Cyan4973/xxHash). The same in every build and on every machine.
uint64_t HashName(const std::string& name, uint64_t seed);

}  // namespace panthera

#endif  // PANTHERA_RUNTIME_PARAMS_NAME_HASH_H_
