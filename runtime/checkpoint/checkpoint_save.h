#ifndef PANTHERA_RUNTIME_CHECKPOINT_CHECKPOINT_SAVE_H_
#define PANTHERA_RUNTIME_CHECKPOINT_CHECKPOINT_SAVE_H_

#include <atomic>
#include <chrono>
#include <cstdint>
#include <future>
#include <memory>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"

#include "runtime/checkpoint/checkpoint.h"
#include "runtime/checkpoint/save_plan.h"

namespace panthera {

// Which thread of a rank does the file operations of a save.
enum class SaveThread : uint8_t {
  kCaller,  // the one that calls Advance, which blocks on the disk
  kOwn,     // one that is started for them, while the caller does other things
};

// SaveCheckpoint in three parts, between which ranks talk to each other: rank 0 makes the files;
// every rank writes its pieces; rank 0 gives the checkpoint its name and removes older ones. A part
// touches files and memory, but no communicator and, with SaveThread::kOwn, no device.
class CheckpointSave {
 public:
  // Plans the save and begins its first part. Collective; every rank gets the same status. `files`,
  // `group` and the memory of the pieces must outlive the save, and nobody may change the pieces
  // before it is complete. With SaveThread::kOwn they lie in host memory, and `files` serves the
  // save's thread.
  static absl::StatusOr<std::unique_ptr<CheckpointSave>> Begin(FileSystem& files, HostGroup& group,
                                                               const std::string& run_directory,
                                                               CheckpointContents contents,
                                                               const RetentionOptions& retention,
                                                               SaveThread thread);
  CheckpointSave(const CheckpointSave&) = delete;
  CheckpointSave& operator=(const CheckpointSave&) = delete;
  // Gives up what is not complete, as if the program were killed. Blocks until the save's thread
  // has come to the end of a block.
  ~CheckpointSave() { given_up_ = true; }

  int64_t step() const { return contents_.step; }
  bool is_complete() const { return stage_ == Stage::kComplete; }
  // Whether the save's thread is at work on this rank.
  bool is_working() const { return !WaitFor(std::chrono::milliseconds(0)); }
  // Blocks until it is not, at most for `limit`; false if it still is then.
  bool WaitFor(std::chrono::milliseconds limit) const;

  // Ends the current part, for which it waits, and begins the next one, unless that was the last.
  // Collective; every rank gets the same status. After an error the older checkpoints are as they
  // were, and the save must be given up.
  absl::Status Advance();

 private:
  enum class Stage : uint8_t { kCreating, kWriting, kPublishing, kComplete };

  CheckpointSave(FileSystem& files, HostGroup& group, const std::string& run_directory,
                 CheckpointContents contents, const RetentionOptions& retention, SaveThread thread);

  absl::Status Plan();
  absl::Status BeginNextStage();
  // What is left to this rank of a stage, if anything is.
  void BeginPart(Stage stage, absl::Status (CheckpointSave::*part)());
  void BeginPartOnFirst(Stage stage, absl::Status (CheckpointSave::*part)());
  // Waits for this rank's part.
  absl::Status EndPart();

  // The parts.
  absl::Status CreateFiles();
  absl::Status WritePieces();
  absl::Status Publish();

  FileSystem& files_;
  HostGroup& group_;
  const std::string run_directory_;
  const CheckpointContents contents_;
  const RetentionOptions retention_;
  const SaveThread thread_;
  SavePlan plan_;
  Stage stage_ = Stage::kCreating;
  std::atomic<bool> given_up_ = false;

  // The part that is under way works with all that follows, until EndPart.
  RankRecord own_;  // from Describe; WritePieces adds the checksums
  std::vector<FileRecord> file_records_;
  RankRecord joined_;
  absl::Status removed_old_;
  // Destroyed first: that waits for the thread.
  std::future<absl::Status> part_;
};

}  // namespace panthera

#endif  // PANTHERA_RUNTIME_CHECKPOINT_CHECKPOINT_SAVE_H_
