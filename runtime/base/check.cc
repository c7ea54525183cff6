#include "runtime/base/check.h"

#include <cstdlib>
#include <iostream>

namespace panthera::internal {

CheckFailure::CheckFailure(const char* file, int line, const std::string& what) {
  message_ << file << ":" << line << ": " << what << " ";
}

CheckFailure::~CheckFailure() {
  message_ << "\n";
  std::cerr << message_.str() << std::flush;
  std::abort();
}

std::unique_ptr<std::string> CompareOk(const absl::Status& status, const char* text) {
  if (status.ok()) {
    return nullptr;
  }
  return std::make_unique<std::string>(std::string(text) + " is OK (" + status.ToString() + ")");
}

}  // namespace panthera::internal
