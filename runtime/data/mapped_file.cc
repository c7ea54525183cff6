#include "runtime/data/mapped_file.h"

#include <fcntl.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstdint>
#include <utility>

#include "absl/cleanup/cleanup.h"
#include "absl/status/status.h"
#include "absl/strings/str_cat.h"

#include "runtime/base/check.h"
#include "runtime/base/shape.h"
#include <sys/mman.h>
#include <sys/stat.h>

namespace panthera {

absl::StatusOr<MappedFile> MappedFile::Open(const std::string& path) {
  const int descriptor = open(path.c_str(), O_RDONLY | O_CLOEXEC);
  if (descriptor < 0) {
    return absl::ErrnoToStatus(errno, absl::StrCat("cannot open ", path));
  }
  absl::Cleanup close_file = [descriptor] { close(descriptor); };
  struct stat status {};
  if (fstat(descriptor, &status) != 0) {
    return absl::ErrnoToStatus(errno, absl::StrCat("cannot read the size of ", path));
  }
  if (!S_ISREG(status.st_mode)) {
    return absl::InvalidArgumentError(absl::StrCat(path, " is not a regular file"));
  }
  MappedFile file;
  file.size_ = status.st_size;
  if (file.size_ > 0) {
    void* data =
        mmap(nullptr, static_cast<size_t>(file.size_), PROT_READ, MAP_SHARED, descriptor, 0);
    if (data == MAP_FAILED) {
      return absl::ErrnoToStatus(errno, absl::StrCat("cannot map ", path));
    }
    file.data_ = static_cast<const std::byte*>(data);
  }
  return file;
}

MappedFile::~MappedFile() {
  if (data_ != nullptr) {
    munmap(const_cast<std::byte*>(data_), static_cast<size_t>(size_));
  }
}

void MappedFile::swap(MappedFile& other) noexcept {
  std::swap(data_, other.data_);
  std::swap(size_, other.size_);
}

void MappedFile::WillNeed(int64_t begin, int64_t end) const {
  CHECK_GE(begin, 0);
  CHECK_LE(end, size_);
  const int64_t page = sysconf(_SC_PAGESIZE);
  const int64_t first = begin / page * page;
  if (first < end) {
    // Advice only: a failure costs time, never correctness.
    madvise(const_cast<std::byte*>(data_) + first, static_cast<size_t>(end - first), MADV_WILLNEED);
  }
}

void MappedFile::Release(int64_t begin, int64_t end) const {
  CHECK_GE(begin, 0);
  CHECK_LE(end, size_);
  // A fault maps the cached pages around it too, never beyond the range of one page table.
  constexpr int64_t kMappedTogether = int64_t{2} << 20;
  const auto origin = static_cast<int64_t>(reinterpret_cast<uintptr_t>(data_) % kMappedTogether);
  const int64_t first =
      std::max<int64_t>(0, (origin + begin) / kMappedTogether * kMappedTogether - origin);
  const int64_t last = std::min(size_, RoundUp(origin + end, kMappedTogether) - origin);
  if (begin < end) {
    madvise(const_cast<std::byte*>(data_) + first, static_cast<size_t>(last - first),
            MADV_DONTNEED);
  }
}

}  // namespace panthera
