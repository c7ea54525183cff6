// What a worker is doing, told by the thread that does it and read by the one that watches it.
#ifndef PANTHERA_LAUNCHER_PROGRESS_H_
#define PANTHERA_LAUNCHER_PROGRESS_H_

#include <atomic>
#include <cstdint>
#include <string>

namespace panthera {

enum class Phase : uint8_t {
  kConnecting,
  kReadingConfiguration,
  kOpeningData,
  kStartingUp,
  kLoading,
  kStep,
  kEvaluating,
  kChecking,
  kSaving,
  kEnding,
};

// A call that returns only when the peers make it too.
enum class PeerCall : uint8_t {
  kNone,
  kAllToAll,
  kAllGather,
  kBroadcast,
  kControlAllGather,
  kControlBroadcast,
};

// One worker at one moment. Sent between the ranks of a job as it lies in memory.
struct Activity {
  Phase phase = Phase::kConnecting;
  PeerCall call = PeerCall::kNone;
  int64_t step = 0;   // of kStep and what follows it; 0: none yet
  int64_t calls = 0;  // to peers, begun since the start; all ranks make the same ones
  int64_t beats = 0;  // anything that was begun or ended since the start

  bool waits_for_peers() const { return call != PeerCall::kNone; }
};

// "step 12, waiting in all-gather (call 37)" or "step 12, at work after call 36".
std::string Describe(const Activity& activity);

// Writing costs a few plain stores: only one thread may tell; any may ask.
class Progress {
 public:
  Progress() = default;
  Progress(const Progress&) = delete;
  Progress& operator=(const Progress&) = delete;

  // The worker now does this, for optimizer step `step` (counted from 1).
  void Enter(Phase phase, int64_t step = 0);
  // A part of the phase is done.
  void Beat() { Add(beats_); }
  void BeginCall(PeerCall call);
  void EndCall();

  // The fields are read one after the other; they belong together once the worker stands still.
  Activity Now() const;

 private:
  // There is one writer, so that no locked instruction is needed.
  static void Add(std::atomic<int64_t>& counter) {
    counter.store(counter.load(std::memory_order_relaxed) + 1, std::memory_order_relaxed);
  }

  std::atomic<Phase> phase_ = Phase::kConnecting;
  std::atomic<PeerCall> call_ = PeerCall::kNone;
  std::atomic<int64_t> step_ = 0;
  std::atomic<int64_t> calls_ = 0;
  std::atomic<int64_t> beats_ = 0;
};

}  // namespace panthera

#endif  // PANTHERA_LAUNCHER_PROGRESS_H_
