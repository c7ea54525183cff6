#ifndef PANTHERA_RUNTIME_CHECKPOINT_RUN_LOCK_H_
#define PANTHERA_RUNTIME_CHECKPOINT_RUN_LOCK_H_

#include <cstdint>
#include <string>
#include <utility>

#include "absl/status/status.h"
#include "absl/status/statusor.h"

namespace panthera {

// Who works in a run directory.
struct LockHolder {
  std::string host;
  int64_t pid = 0;
  std::string job;  // the scheduler's id of the job; may be empty

  // This process; the job from SLURM_JOB_ID.
  static LockHolder ThisProcess();
};

// What a lock file says, without touching the lock.
struct LockState {
  enum class Life : uint8_t {
    kFree,     // nobody holds it
    kHeld,     // by a process that lives on this host
    kDead,     // by a process on this host that ended without releasing it
    kUnknown,  // by a process on another host
  };
  Life life = Life::kFree;
  LockHolder holder;  // unless free
};
// A directory without a lock file is free.
absl::StatusOr<LockState> ReadRunLock(const std::string& run_directory);

// "process 123 on host node7 (job 42)"
std::string Describe(const LockHolder& holder);

// Keeps a run directory for one job: RUN_DIR/lock, held by flock(2), contains the holder as text.
// Released when the object dies, and by the system when the process dies, so that a killed run
// leaves nothing to clean up. Where the file system has no locks, the text alone decides: a holder
// on the same host is asked for, one on another host is believed. Rank 0 takes the lock for all.
class RunLock {
 public:
  // kFailedPrecondition, naming the holder, if the directory is in use.
  static absl::StatusOr<RunLock> Acquire(const std::string& run_directory,
                                         const LockHolder& holder);

  RunLock(RunLock&& other) noexcept : descriptor_(std::exchange(other.descriptor_, -1)) {}
  RunLock& operator=(RunLock&& other) noexcept;
  ~RunLock();

 private:
  explicit RunLock(int descriptor) : descriptor_(descriptor) {}
  void Release();

  int descriptor_;
};

}  // namespace panthera

#endif  // PANTHERA_RUNTIME_CHECKPOINT_RUN_LOCK_H_
