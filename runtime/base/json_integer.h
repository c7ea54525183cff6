#ifndef PANTHERA_RUNTIME_BASE_JSON_INTEGER_H_
#define PANTHERA_RUNTIME_BASE_JSON_INTEGER_H_

#include <cstdint>
#include <vector>

namespace panthera {

// An integer of nlohmann's JSON. Its own get<int64_t>() converts every number, which is undefined
// for one with an exponent that does not fit; this throws what get throws for text.
template <typename Json>
int64_t JsonInteger(const Json& json) {
  return json.template get_ref<const typename Json::number_integer_t&>();
}

// The same of all elements of an array.
template <typename Json>
std::vector<int64_t> JsonIntegers(const Json& json) {
  std::vector<int64_t> integers;
  for (const Json& element : json.template get_ref<const typename Json::array_t&>()) {
    integers.push_back(JsonInteger(element));
  }
  return integers;
}

}  // namespace panthera

#endif  // PANTHERA_RUNTIME_BASE_JSON_INTEGER_H_
