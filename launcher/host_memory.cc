#include "launcher/host_memory.h"

#include <algorithm>
#include <fstream>
#include <vector>

#include "absl/strings/str_split.h"

namespace panthera {
namespace {

// Where a version of control groups keeps its files, and what they are called.
struct GroupFiles {
  std::string mount;
  const char* limit;
  const char* used;
  // Keys of memory.stat: pages of files, in use by this group and those below it.
  const char* inactive_file;
  const char* active_file;
};

// Nothing if the file is not there or holds no number, such as the "max" of a group without limit.
std::optional<int64_t> ReadNumber(const std::string& path) {
  std::ifstream file(path);
  int64_t value = 0;
  return file >> value ? std::optional<int64_t>(value) : std::nullopt;
}

// The number after `key`; the rest of a line is passed over.
std::optional<int64_t> ReadKey(const std::string& path, const std::string& key) {
  std::ifstream file(path);
  std::string name;
  int64_t value = 0;
  std::string rest;
  while (file >> name >> value) {
    if (name == key) {
      return value;
    }
    std::getline(file, rest);
  }
  return std::nullopt;
}

std::optional<int64_t> LeftInGroup(const std::string& directory, const GroupFiles& files) {
  const std::optional<int64_t> limit = ReadNumber(directory + "/" + files.limit);
  const std::optional<int64_t> used = ReadNumber(directory + "/" + files.used);
  if (!limit.has_value() || !used.has_value()) {
    return std::nullopt;
  }
  const std::string stat = directory + "/memory.stat";
  const int64_t file_pages =
      ReadKey(stat, files.inactive_file).value_or(0) + ReadKey(stat, files.active_file).value_or(0);
  return std::max<int64_t>(0, *limit - *used + std::min(*used, file_pages));
}

// The smaller of those that there are.
std::optional<int64_t> Smaller(std::optional<int64_t> a, std::optional<int64_t> b) {
  return a.has_value() && b.has_value() ? std::min(*a, *b) : a.has_value() ? a : b;
}

// What the group `path`, such as "/a/b", and those above it leave. In a container the path can be
// that of the host, of which only the top is mounted: directories that are not there are passed
// over.
std::optional<int64_t> LeftInGroups(std::string path, const GroupFiles& files) {
  std::optional<int64_t> left;
  while (!path.empty()) {
    left = Smaller(left, LeftInGroup(files.mount + path, files));
    path.resize(path.rfind('/'));
  }
  return Smaller(left, LeftInGroup(files.mount, files));
}

// "<number>:<controllers>:<path>", with no controllers for version 2.
std::optional<int64_t> LeftInLine(const std::string& line, const std::string& mount) {
  const std::vector<std::string> parts = absl::StrSplit(line, absl::MaxSplits(':', 2));
  if (parts.size() != 3 || parts[2].empty() || parts[2].front() != '/') {
    return std::nullopt;
  }
  if (parts[1].empty()) {
    return LeftInGroups(parts[2],
                        {mount, "memory.max", "memory.current", "inactive_file", "active_file"});
  }
  const std::vector<std::string> controllers = absl::StrSplit(parts[1], ',');
  if (std::find(controllers.begin(), controllers.end(), "memory") == controllers.end()) {
    return std::nullopt;
  }
  return LeftInGroups(parts[2],
                      {mount + "/memory", "memory.limit_in_bytes", "memory.usage_in_bytes",
                       "total_inactive_file", "total_active_file"});
}

}  // namespace

std::optional<int64_t> AvailableHostBytes(const std::string& root) {
  std::optional<int64_t> available = ReadKey(root + "/proc/meminfo", "MemAvailable:");
  if (available.has_value()) {
    *available *= 1024;
  }
  std::ifstream groups(root + "/proc/self/cgroup");
  for (std::string line; std::getline(groups, line);) {
    available = Smaller(available, LeftInLine(line, root + "/sys/fs/cgroup"));
  }
  return available;
}

}  // namespace panthera
