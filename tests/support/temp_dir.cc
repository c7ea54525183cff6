#include "tests/support/temp_dir.h"

#include <cstdlib>
#include <filesystem>
#include <system_error>

#include "runtime/base/check.h"

namespace panthera::testing {

TempDir::TempDir() {
  std::string pattern = (std::filesystem::temp_directory_path() / "panthera_XXXXXX").string();
  CHECK(mkdtemp(pattern.data()) != nullptr) << "cannot make " << pattern;
  path_ = pattern;
}

TempDir::~TempDir() {
  std::error_code ignored;
  std::filesystem::remove_all(path_, ignored);
}

}  // namespace panthera::testing
