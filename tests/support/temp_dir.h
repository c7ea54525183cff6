#ifndef PANTHERA_TESTS_SUPPORT_TEMP_DIR_H_
#define PANTHERA_TESTS_SUPPORT_TEMP_DIR_H_

#include <string>

namespace panthera::testing {

// A fresh directory that is removed with everything in it when the object dies.
class TempDir {
 public:
  TempDir();
  TempDir(const TempDir&) = delete;
  TempDir& operator=(const TempDir&) = delete;
  ~TempDir();

  const std::string& path() const { return path_; }
  std::string File(const std::string& name) const { return path_ + "/" + name; }

 private:
  std::string path_;
};

}  // namespace panthera::testing

#endif  // PANTHERA_TESTS_SUPPORT_TEMP_DIR_H_
