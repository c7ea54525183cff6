#ifndef PANTHERA_RUNTIME_DATA_MAPPED_FILE_H_
#define PANTHERA_RUNTIME_DATA_MAPPED_FILE_H_

#include <cstddef>
#include <cstdint>
#include <string>

#include "absl/status/statusor.h"

namespace panthera {

// A whole file mapped for reading. Pages are read from disk when touched and belong to the page
// cache, which the ranks of a node share. The file must not be cut while it is mapped: touching a
// page that no longer exists ends the process with SIGBUS.
class MappedFile {
 public:
  // Errors name the path: missing, not readable, or not a regular file.
  static absl::StatusOr<MappedFile> Open(const std::string& path);

  MappedFile() = default;
  MappedFile(MappedFile&& other) noexcept { swap(other); }
  MappedFile& operator=(MappedFile&& other) noexcept {
    swap(other);
    return *this;
  }
  ~MappedFile();

  const std::byte* data() const { return data_; }
  int64_t size() const { return size_; }

  // Starts reading bytes [begin, end) from disk and does not wait for it.
  void WillNeed(int64_t begin, int64_t end) const;
  // Takes bytes [begin, end), and those around them that were mapped along with them, out of this
  // process; touching them again is allowed and finds them in the page cache. Keeps what was read
  // of a big file from counting as memory of the process.
  void Release(int64_t begin, int64_t end) const;

 private:
  void swap(MappedFile& other) noexcept;

  const std::byte* data_ = nullptr;
  int64_t size_ = 0;
};

}  // namespace panthera

#endif  // PANTHERA_RUNTIME_DATA_MAPPED_FILE_H_
