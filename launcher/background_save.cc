#include "launcher/background_save.h"

#include <chrono>
#include <utility>

#include "runtime/base/check.h"
#include "runtime/base/status_macros.h"

namespace panthera {
namespace {

// Between looks at what a thread does that the run waits for; less than any limit for stalls.
constexpr std::chrono::milliseconds kLook(100);

}  // namespace

absl::Status BackgroundSave::Begin(const std::string& run_directory, CheckpointContents contents,
                                   const RetentionOptions& retention) {
  CHECK(!is_under_way());
  ASSIGN_OR_RETURN(save_, CheckpointSave::Begin(files_, *world_.host, run_directory,
                                                std::move(contents), retention, SaveThread::kOwn));
  return absl::OkStatus();
}

absl::Status BackgroundSave::Advance() {
  CHECK(is_under_way());
  Await();
  const absl::Status status = save_->Advance();
  if (save_->is_complete()) {
    saved_step_ = save_->step();
  }
  if (save_->is_complete() || !status.ok()) {
    save_ = nullptr;
  }
  return status;
}

absl::Status BackgroundSave::Finish() {
  while (is_under_way()) {
    RETURN_IF_ERROR(Advance());
  }
  return absl::OkStatus();
}

void BackgroundSave::Await() {
  int64_t beats = -1;
  while (!save_->WaitFor(kLook)) {
    if (const int64_t now = progress_.Now().beats; now != beats) {
      beats = now;
      world_.Beat();
    }
  }
}

}  // namespace panthera
