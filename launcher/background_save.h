#ifndef PANTHERA_LAUNCHER_BACKGROUND_SAVE_H_
#define PANTHERA_LAUNCHER_BACKGROUND_SAVE_H_

#include <cstdint>
#include <memory>
#include <string>

#include "absl/status/status.h"

#include "launcher/progress.h"
#include "launcher/watched_calls.h"
#include "launcher/world.h"
#include "runtime/checkpoint/checkpoint_save.h"
#include "runtime/checkpoint/retention.h"

namespace panthera {

// A save of a training run that goes on while the run takes steps; one at a time. The watchdog sees
// of it what the run waits for: while it does not, a slow disk is nothing to worry about, and a
// busy one does not hide that the run stands still.
class BackgroundSave {
 public:
  // All references must outlive it.
  BackgroundSave(FileSystem& disk, const World& world) : world_(world), files_(disk, &progress_) {}

  // Begins one. Collective; every rank gets the same status. What `contents` points to must stay as
  // it is until the save is done.
  absl::Status Begin(const std::string& run_directory, CheckpointContents contents,
                     const RetentionOptions& retention);

  // The same on every rank.
  bool is_under_way() const { return save_ != nullptr; }
  // Whether this rank's thread is at work on it.
  bool is_working() const { return is_under_way() && save_->is_working(); }
  // The last step that is saved completely; -1: none.
  int64_t saved_step() const { return saved_step_; }

  // Goes on with the save that is under way, for when no rank is working on it: else blocks until
  // none is. Collective; every rank gets the same status. After an error none is under way.
  absl::Status Advance();
  // Brings the save that is under way, if there is one, to its end. Blocks on the disk and the
  // peers. Collective; every rank gets the same status.
  absl::Status Finish();

 private:
  // Blocks until this rank's thread has done its part, and tells the watchdog as long as it comes
  // on.
  void Await();

  const World& world_;
  Progress progress_;  // of the save's thread
  WatchedFileSystem files_;
  int64_t saved_step_ = -1;
  std::unique_ptr<CheckpointSave> save_;
};

}  // namespace panthera

#endif  // PANTHERA_LAUNCHER_BACKGROUND_SAVE_H_
