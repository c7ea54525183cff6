#ifndef PANTHERA_TESTS_SIMT_EMULATOR_LOCATION_H_
#define PANTHERA_TESTS_SIMT_EMULATOR_LOCATION_H_

#include <string>

namespace simt {

// A place in a kernel's source. As a default argument, `Here()` is the caller's place.
struct Location {
  const char* file = "";
  int line = 0;

  static constexpr Location Here(const char* file = __builtin_FILE(), int line = __builtin_LINE()) {
    return {file, line};
  }
  std::string ToString() const { return std::string(file) + ":" + std::to_string(line); }
};

}  // namespace simt

#endif  // PANTHERA_TESTS_SIMT_EMULATOR_LOCATION_H_
