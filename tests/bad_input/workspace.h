#ifndef PANTHERA_TESTS_BAD_INPUT_WORKSPACE_H_
#define PANTHERA_TESTS_BAD_INPUT_WORKSPACE_H_

#include <cstdint>
#include <map>
#include <string>

#include "tests/support/temp_dir.h"

namespace panthera::testing {

// A directory with everything that a run needs, every file of it good. A case spoils one thing. All
// names are relative to the directory, in which the program is started, so they stand in its
// messages as they stand here:
//
//   run.toml            a configuration of a model of some thousand parameters
//   text.txt            text of some hundred bytes
//   train.bin, .idx     the text in bytes and the mark after it: 257 ids
//   run/                the run directory, after two steps with a checkpoint each; if it was asked
//   for
class Workspace {
 public:
  enum class Contents : uint8_t { kData, kDataAndRun };

  // Makes the first workspace of a kind with the program itself; later ones are copies.
  explicit Workspace(Contents contents);

  const std::string& path() const { return directory_.path(); }
  std::string File(const std::string& name) const { return directory_.File(name); }

  std::string Read(const std::string& name) const;
  void Write(const std::string& name, const std::string& bytes) const;
  // Replaces the first `before`, which must be there.
  void Replace(const std::string& name, const std::string& before, const std::string& after) const;
  void Append(const std::string& name, const std::string& bytes) const;
  // Writes `bytes` over those from `offset` on; counted from the end if negative.
  void Overwrite(const std::string& name, int64_t offset, const std::string& bytes) const;
  // Inverts every bit of one byte; counted from the end if negative.
  void Flip(const std::string& name, int64_t offset) const;
  void Truncate(const std::string& name, int64_t bytes) const;
  void Remove(const std::string& name) const;
  void MakeDirectory(const std::string& name) const;

  // Everything that lies in the directory: contents by name; directories end in "/".
  std::map<std::string, std::string> Snapshot() const;

 private:
  TempDir directory_;
};

}  // namespace panthera::testing

#endif  // PANTHERA_TESTS_BAD_INPUT_WORKSPACE_H_
