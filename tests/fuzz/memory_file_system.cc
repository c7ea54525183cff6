#include "tests/fuzz/memory_file_system.h"

#include <algorithm>
#include <cerrno>
#include <cstring>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"

#include "runtime/base/check.h"

namespace panthera::testing {
namespace {

class MemoryFile final : public File {
 public:
  explicit MemoryFile(std::string& contents) : contents_(contents) {}

  absl::Status WriteAt(int64_t offset, std::span<const std::byte> data) override {
    const auto begin = static_cast<size_t>(offset);
    contents_.resize(std::max(contents_.size(), begin + data.size()));
    std::copy(data.begin(), data.end(),
              std::as_writable_bytes(std::span(contents_)).subspan(begin).begin());
    return absl::OkStatus();
  }
  absl::Status ReadAt(int64_t offset, std::span<std::byte> data) override {
    CHECK_GE(offset, 0);
    const std::span<const std::byte> bytes = std::as_bytes(std::span(contents_));
    if (static_cast<size_t>(offset) > bytes.size() ||
        data.size() > bytes.size() - static_cast<size_t>(offset)) {
      return absl::DataLossError("the file ends too early");
    }
    const auto from = bytes.subspan(static_cast<size_t>(offset), data.size());
    std::copy(from.begin(), from.end(), data.begin());
    return absl::OkStatus();
  }
  absl::Status Allocate(int64_t bytes) override {
    contents_.resize(static_cast<size_t>(bytes));
    return absl::OkStatus();
  }
  absl::StatusOr<int64_t> Bytes() override { return static_cast<int64_t>(contents_.size()); }
  absl::Status Sync() override { return absl::OkStatus(); }
  absl::Status Close() override { return absl::OkStatus(); }

 private:
  std::string& contents_;
};

}  // namespace

absl::StatusOr<std::unique_ptr<File>> MemoryFileSystem::Open(const std::string& path,
                                                             OpenMode mode) {
  if (mode == OpenMode::kCreate) {
    files_[path].clear();
  }
  const auto file = files_.find(path);
  if (file == files_.end()) {
    return FileError("open", path, ENOENT);
  }
  return std::make_unique<MemoryFile>(file->second);
}

absl::Status MemoryFileSystem::MakeDirectory(const std::string& path) {
  return files_.emplace(path + "/", "").second ? absl::OkStatus()
                                               : FileError("make directory", path, EEXIST);
}

absl::StatusOr<std::vector<DirectoryEntry>> MemoryFileSystem::List(const std::string& path) {
  const std::string prefix = path + "/";
  std::vector<DirectoryEntry> entries;
  bool exists = false;
  for (auto file = files_.lower_bound(prefix);
       file != files_.end() && absl::StartsWith(file->first, prefix); ++file) {
    exists = true;
    const std::string inner = file->first.substr(prefix.size());
    const std::string name = inner.substr(0, inner.find('/'));
    if (!name.empty() && (entries.empty() || entries.back().name != name)) {
      entries.push_back({.name = name, .is_directory = name.size() < inner.size()});
    }
  }
  if (!exists) {
    return FileError("list", path, ENOENT);
  }
  return entries;
}

absl::Status MemoryFileSystem::Rename(const std::string& from, const std::string& to) {
  std::map<std::string, std::string> renamed;
  for (auto& [path, contents] : files_) {
    const bool moves = path == from || absl::StartsWith(path, from + "/");
    renamed[moves ? to + path.substr(from.size()) : path] = std::move(contents);
  }
  files_ = std::move(renamed);
  return absl::OkStatus();
}

absl::Status MemoryFileSystem::Remove(const std::string& path) {
  files_.erase(path);
  files_.erase(path + "/");
  return absl::OkStatus();
}

absl::Status MemoryFileSystem::SyncDirectory(const std::string& /*path*/) {
  return absl::OkStatus();
}

const std::string& MemoryFileSystem::Get(const std::string& path) const {
  const auto file = files_.find(path);
  CHECK(file != files_.end()) << path;
  return file->second;
}

}  // namespace panthera::testing
