#ifndef PANTHERA_RUNTIME_DATA_DURABLE_FILE_H_
#define PANTHERA_RUNTIME_DATA_DURABLE_FILE_H_

#include <cstdint>
#include <cstdio>
#include <memory>
#include <string>
#include <string_view>

#include "absl/status/status.h"
#include "absl/status/statusor.h"

namespace panthera {

// A file that appears under its name only when it is complete and on disk. Bytes go to
// "PATH.partial"; Publish flushes them to the device, renames, and flushes the directory. A file
// that is not published is removed when the object dies; what a killed process leaves behind is
// overwritten by the next one.
class DurableFile {
 public:
  static absl::StatusOr<DurableFile> Create(const std::string& path);

  DurableFile(DurableFile&&) = default;
  DurableFile& operator=(DurableFile&&) = delete;
  ~DurableFile();

  // Errors (a full disk) may also show only in Publish.
  absl::Status Append(const void* data, int64_t bytes);
  // At most once; nothing may be appended afterwards. Blocks until the bytes are on the device.
  absl::Status Publish();

 private:
  struct CloseFile {
    void operator()(std::FILE* file) const { std::fclose(file); }
  };

  DurableFile(std::string path, std::FILE* file) : path_(std::move(path)), file_(file) {}
  std::string partial_path() const { return path_ + ".partial"; }

  std::string path_;
  std::unique_ptr<std::FILE, CloseFile> file_;
};

// Writes and publishes a whole file.
absl::Status WriteDurableFile(const std::string& path, std::string_view content);

}  // namespace panthera

#endif  // PANTHERA_RUNTIME_DATA_DURABLE_FILE_H_
