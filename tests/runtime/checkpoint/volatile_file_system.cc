#include "tests/runtime/checkpoint/volatile_file_system.h"

#include <algorithm>
#include <cerrno>
#include <cstring>

#include "absl/strings/str_split.h"

#include "runtime/base/check.h"
#include "runtime/base/status_macros.h"

namespace panthera::testing {

Disk::Disk() {
  nodes_.emplace_back();
  nodes_.front().is_directory = true;
}

int64_t Disk::pending() const {
  size_t count = pending_names_.size();
  for (const Node& node : nodes_) {
    count += node.pending.size();
  }
  return static_cast<int64_t>(count);
}

Disk Disk::AfterPowerFailure(absl::FunctionRef<bool(int64_t)> survives) const {
  Disk left = *this;
  int64_t number = 0;
  for (Node& node : left.nodes_) {
    for (const FileChange& change : node.pending) {
      if (survives(number++)) {
        Apply(change, node.durable_content);
      }
    }
    node.pending.clear();
    node.content = node.durable_content;
  }
  for (const NameChange& change : pending_names_) {
    if (survives(number++)) {
      left.ApplyDurable(change);
    }
  }
  left.pending_names_.clear();
  for (Node& node : left.nodes_) {
    node.entries = node.durable_entries;
  }
  return left;
}

void Disk::Apply(const FileChange& change, std::string& content) {
  const auto offset = static_cast<size_t>(change.offset);
  if (!change.data.has_value()) {
    content.resize(offset);
    return;
  }
  content.resize(std::max(content.size(), offset + change.data->size()));
  content.replace(offset, change.data->size(), *change.data);
}

void Disk::Change(size_t node, FileChange change) {
  Apply(change, nodes_[node].content);
  nodes_[node].pending.push_back(std::move(change));
}

void Disk::Change(NameChange change) {
  for (const NameEdit& edit : change) {
    std::map<std::string, size_t>& entries = nodes_[edit.directory].entries;
    entries.erase(edit.name);
    if (edit.node.has_value()) {
      entries[edit.name] = *edit.node;
    }
  }
  pending_names_.push_back(std::move(change));
}

void Disk::ApplyDurable(const NameChange& change) {
  for (const NameEdit& edit : change) {
    std::map<std::string, size_t>& entries = nodes_[edit.directory].durable_entries;
    entries.erase(edit.name);
    if (edit.node.has_value()) {
      entries[edit.name] = *edit.node;
    }
  }
}

void Disk::SyncFile(size_t node) {
  nodes_[node].durable_content = nodes_[node].content;
  nodes_[node].pending.clear();
}

void Disk::SyncNames(size_t directory) {
  std::vector<NameChange> others;
  for (NameChange& change : pending_names_) {
    const bool touches = std::any_of(change.begin(), change.end(), [&](const NameEdit& edit) {
      return edit.directory == directory;
    });
    if (touches) {
      ApplyDurable(change);
    } else {
      others.push_back(std::move(change));
    }
  }
  pending_names_ = std::move(others);
}

std::optional<size_t> Disk::Find(const std::string& path) const {
  CHECK(!path.empty() && path.front() == '/') << path;
  size_t node = 0;
  const std::vector<std::string> names = absl::StrSplit(path, '/', absl::SkipEmpty());
  for (const std::string& name : names) {
    const auto entry = nodes_[node].entries.find(name);
    if (entry == nodes_[node].entries.end()) {
      return std::nullopt;
    }
    node = entry->second;
  }
  return node;
}

std::optional<std::pair<size_t, std::string>> Disk::FindParent(const std::string& path) const {
  const size_t slash = path.rfind('/');
  const std::optional<size_t> parent = Find(path.substr(0, std::max<size_t>(slash, 1)));
  if (!parent.has_value() || !nodes_[*parent].is_directory) {
    return std::nullopt;
  }
  return std::pair(*parent, path.substr(slash + 1));
}

int64_t Disk::UsedBytes(size_t node) const {
  int64_t bytes = nodes_[node].used_bytes;
  for (const auto& [name, child] : nodes_[node].entries) {
    bytes += UsedBytes(child);
  }
  return bytes;
}

class VolatileFile final : public File {
 public:
  VolatileFile(VolatileFileSystem& files, size_t node, std::string path)
      : files_(files), node_(node), path_(std::move(path)) {}

  absl::Status WriteAt(int64_t offset, std::span<const std::byte> data) override {
    const std::lock_guard<std::mutex> lock(files_.mutex_);
    const size_t half = data.size() / 2;
    RETURN_IF_ERROR(WritePart(offset, data.subspan(0, half)));
    return WritePart(offset + static_cast<int64_t>(half), data.subspan(half));
  }
  absl::Status ReadAt(int64_t offset, std::span<std::byte> data) override {
    const std::lock_guard<std::mutex> lock(files_.mutex_);
    const std::string& content = node().content;
    const auto begin = static_cast<size_t>(offset);
    if (begin + data.size() > content.size()) {
      return absl::DataLossError(path_ + " was cut off");
    }
    std::memcpy(data.data(), content.data() + begin, data.size());
    return absl::OkStatus();
  }
  absl::Status Allocate(int64_t bytes) override {
    const std::lock_guard<std::mutex> lock(files_.mutex_);
    files_.Record();
    if (files_.reserving_ == VolatileFileSystem::Reserving::kYes) {
      if (!files_.Fits(bytes)) {
        return FileError("reserve space for", path_, ENOSPC);
      }
      node().reserved_bytes = bytes;
      node().used_bytes = bytes;
    }
    files_.disk_.Change(node_, {bytes, std::nullopt});
    return absl::OkStatus();
  }
  absl::StatusOr<int64_t> Bytes() override {
    const std::lock_guard<std::mutex> lock(files_.mutex_);
    return static_cast<int64_t>(node().content.size());
  }
  absl::Status Sync() override {
    const std::lock_guard<std::mutex> lock(files_.mutex_);
    files_.Record();
    files_.disk_.SyncFile(node_);
    return absl::OkStatus();
  }
  absl::Status Close() override { return absl::OkStatus(); }

 private:
  Disk::Node& node() { return files_.disk_.nodes_[node_]; }

  absl::Status WritePart(int64_t offset, std::span<const std::byte> data) {
    files_.Record();
    const auto bytes = static_cast<int64_t>(data.size());
    if (offset + bytes > node().reserved_bytes) {
      if (!files_.Fits(bytes)) {
        return FileError("write", path_, ENOSPC);
      }
      node().used_bytes += bytes;
    }
    files_.disk_.Change(
        node_, {offset, std::string(reinterpret_cast<const char*>(data.data()), data.size())});
    return absl::OkStatus();
  }

  VolatileFileSystem& files_;
  size_t node_;
  std::string path_;
};

absl::StatusOr<std::unique_ptr<File>> VolatileFileSystem::Open(const std::string& path,
                                                               OpenMode mode) {
  const std::lock_guard<std::mutex> lock(mutex_);
  std::optional<size_t> node = disk_.Find(path);
  if (mode == OpenMode::kCreate) {
    const auto parent = disk_.FindParent(path);
    if (!parent.has_value()) {
      return FileError("create", path, ENOENT);
    }
    Record();
    if (node.has_value()) {
      disk_.Change(*node, {0, std::nullopt});
      disk_.nodes_[*node].used_bytes = disk_.nodes_[*node].reserved_bytes = 0;
    } else {
      node = disk_.nodes_.size();
      disk_.nodes_.emplace_back();
      disk_.Change({{parent->first, parent->second, node}});
    }
  }
  if (!node.has_value() || disk_.nodes_[*node].is_directory) {
    return FileError("open", path, node.has_value() ? EISDIR : ENOENT);
  }
  return std::make_unique<VolatileFile>(*this, *node, path);
}

absl::Status VolatileFileSystem::MakeDirectory(const std::string& path) {
  const std::lock_guard<std::mutex> lock(mutex_);
  if (disk_.Find(path).has_value()) {
    return absl::AlreadyExistsError(path);
  }
  const auto parent = disk_.FindParent(path);
  if (!parent.has_value()) {
    return FileError("create directory", path, ENOENT);
  }
  Record();
  const size_t node = disk_.nodes_.size();
  disk_.nodes_.emplace_back();
  disk_.nodes_.back().is_directory = true;
  disk_.Change({{parent->first, parent->second, node}});
  return absl::OkStatus();
}

absl::StatusOr<std::vector<DirectoryEntry>> VolatileFileSystem::List(const std::string& path) {
  const std::lock_guard<std::mutex> lock(mutex_);
  const std::optional<size_t> node = disk_.Find(path);
  if (!node.has_value() || !disk_.nodes_[*node].is_directory) {
    return FileError("list directory", path, node.has_value() ? ENOTDIR : ENOENT);
  }
  std::vector<DirectoryEntry> entries;
  for (const auto& [name, child] : disk_.nodes_[*node].entries) {
    entries.push_back({name, disk_.nodes_[child].is_directory});
  }
  return entries;
}

absl::Status VolatileFileSystem::Rename(const std::string& from, const std::string& to) {
  const std::lock_guard<std::mutex> lock(mutex_);
  const std::optional<size_t> node = disk_.Find(from);
  const auto from_parent = disk_.FindParent(from);
  const auto to_parent = disk_.FindParent(to);
  if (!node.has_value() || !from_parent.has_value() || !to_parent.has_value()) {
    return FileError("rename " + from + " to", to, ENOENT);
  }
  if (const std::optional<size_t> old = disk_.Find(to);
      old.has_value() && !disk_.nodes_[*old].entries.empty()) {
    return FileError("rename " + from + " to", to, ENOTEMPTY);
  }
  Record();
  disk_.Change({{from_parent->first, from_parent->second, std::nullopt},
                {to_parent->first, to_parent->second, node}});
  return absl::OkStatus();
}

absl::Status VolatileFileSystem::Remove(const std::string& path) {
  const std::lock_guard<std::mutex> lock(mutex_);
  const std::optional<size_t> node = disk_.Find(path);
  if (!node.has_value()) {
    return FileError("remove", path, ENOENT);
  }
  if (!disk_.nodes_[*node].entries.empty()) {
    return FileError("remove", path, ENOTEMPTY);
  }
  Record();
  const auto parent = disk_.FindParent(path);
  disk_.Change({{parent->first, parent->second, std::nullopt}});
  return absl::OkStatus();
}

absl::Status VolatileFileSystem::SyncDirectory(const std::string& path) {
  const std::lock_guard<std::mutex> lock(mutex_);
  const std::optional<size_t> node = disk_.Find(path);
  if (!node.has_value()) {
    return FileError("open directory", path, ENOENT);
  }
  Record();
  disk_.SyncNames(*node);
  return absl::OkStatus();
}

void VolatileFileSystem::Record() {
  if (recording_) {
    history_.push_back(disk_);
  }
}

bool VolatileFileSystem::Fits(int64_t bytes) const {
  return bytes == 0 || disk_.used_bytes() + bytes <= capacity_;
}

}  // namespace panthera::testing
