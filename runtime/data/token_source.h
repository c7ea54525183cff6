#ifndef PANTHERA_RUNTIME_DATA_TOKEN_SOURCE_H_
#define PANTHERA_RUNTIME_DATA_TOKEN_SOURCE_H_

#include <cstdint>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"

#include "runtime/data/token_file.h"

namespace panthera {

// One or several token files, one after the other, seen as one sequence of ids.
class TokenSource {
 public:
  // `path` is what TokenFile::Open takes, or ends in '*' and stands for all token files whose path
  // begins with what precedes it, in the order of their names: "data/train_*". A name that ends in
  // .bin or .idx counts; a Megatron pair counts once.
  static absl::StatusOr<TokenSource> Open(const std::string& path);

  const std::string& path() const { return path_; }
  const std::vector<TokenFile>& files() const { return files_; }
  int64_t tokens() const { return begins_.back(); }

  // Writes ids [begin, begin + count) to `out`.
  void Read(int64_t begin, int64_t count, int32_t* out) const;
  // Starts reading these ids from disk and does not wait.
  void WillNeed(int64_t begin, int64_t count) const;
  // Takes these ids, which have been read, out of the process's memory: MappedFile::Release.
  void Release(int64_t begin, int64_t count) const;
  // As TokenFile::CheckVocabulary, file by file.
  absl::Status CheckVocabulary(int64_t vocab_size) const;
  // "FILE token N" of a position in the source, for messages.
  std::string Describe(int64_t position) const;

 private:
  TokenSource(std::string path, std::vector<TokenFile> files);
  // The file that holds `position`.
  size_t FileOf(int64_t position) const;
  template <typename Visit>
  void ForEachPart(int64_t begin, int64_t count, Visit visit) const;

  std::string path_;
  std::vector<TokenFile> files_;
  // Where each file begins; one more entry for the end.
  std::vector<int64_t> begins_;
};

}  // namespace panthera

#endif  // PANTHERA_RUNTIME_DATA_TOKEN_SOURCE_H_
