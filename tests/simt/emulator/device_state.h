// The emulated GPU: memory, streams, events and launches, as far as CUDA's runtime shows them.
#ifndef PANTHERA_TESTS_SIMT_EMULATOR_DEVICE_STATE_H_
#define PANTHERA_TESTS_SIMT_EMULATOR_DEVICE_STATE_H_

#include <cstddef>
#include <cstdint>
#include <deque>
#include <functional>
#include <map>
#include <memory>
#include <string>
#include <vector>

#include "tests/simt/emulator/block_runner.h"

namespace simt {

// When work on a stream is done. CUDA promises only that it is done in the order of the stream,
// after the events that it waits for, and before a host that waits for it goes on.
enum class Execution : uint8_t {
  kLate,   // when the host or another stream waits for it: work whose wait is missing is not done
  kEarly,  // when it is enqueued
  // kEarly on one stream and kLate on all others: work of that stream whose wait is missing is done
  // before what it should have waited for.
  kOneAhead,
};

struct Options {
  Execution execution = Execution::kLate;
  uint64_t order_seed = 0;    // of Launch
  int64_t stream_ahead = -1;  // for kOneAhead: which of all streams ever made, from 0
};

// How often things were asked for that do not belong into a training step.
struct Counts {
  int64_t allocations = 0;
  int64_t events = 0;  // that were created
  int64_t host_waits = 0;
  int64_t default_stream_uses = 0;
  int64_t launches = 0;
};

class Stream {
 public:
  explicit Stream(int64_t number) : number_(number) {}

  // How many streams were made before it.
  int64_t number() const { return number_; }
  void Enqueue(std::function<void()> work) { queue_.push_back(std::move(work)); }
  bool empty() const { return queue_.empty(); }
  // Does the oldest work.
  void RunNext();

 private:
  int64_t number_;
  std::deque<std::function<void()>> queue_;
};

// A point in the work of a stream. Waits are for the Record that was the last one when they were
// enqueued, on whichever stream it was; they may outlive the handle, so they share the state.
class Event {
 public:
  void Record(Stream& stream);
  bool is_complete() const { return state_->is_complete; }
  // The device's clock when the stream last came here.
  int64_t milliseconds() const { return state_->milliseconds; }
  // is_complete(), asked by a host that will ask again: on a device time passes in between, here
  // the stream does its oldest work.
  bool Poll() const;
  // Does the stream's work up to the last Record.
  void Complete() const { Waiter()(); }
  // The same for the Record that is the last one now, to be done later.
  std::function<void()> Waiter() const;

 private:
  // Of one Record.
  struct State {
    Stream* stream = nullptr;
    bool is_complete = true;
    int64_t milliseconds = 0;
  };
  std::shared_ptr<State> state_ = std::make_shared<State>();
};

// A device and the runtime's view of it. Every system thread has its own, so that ranks of a test
// that are threads each have a GPU to themselves; what a thread made, only that thread may use or
// free, except that peers may copy from and to its memory.
class DeviceState {
 public:
  // The calling thread's.
  static DeviceState& Get();

  Options& options() { return options_; }
  Counts& counts() { return counts_; }

  // Filled with bytes 0xff. Null if `bytes` are not there.
  void* Allocate(size_t bytes);
  bool Free(void* pointer);
  size_t used_bytes() const { return used_bytes_; }

  Stream* NewStream();
  void DeleteStream(Stream* stream);
  // The numbers of those that were not deleted.
  std::vector<int64_t> Streams() const;
  Event* NewEvent();
  void DeleteEvent(Event* event);

  // `stream` may be null: the default stream, before whose work that of all others is done.
  void Enqueue(Stream* stream, std::function<void()> work);
  void Synchronize(Stream* stream);
  void SynchronizeAll();

  // Emulated time, which passes as work says that it does: a kernel, a copy and a fill
  // take a millisecond each.
  void PassTime(int64_t milliseconds) { milliseconds_ += milliseconds; }
  int64_t milliseconds() const { return milliseconds_; }

  // Of cudaFuncAttributeMaxDynamicSharedMemorySize: how much `kernel` may ask for.
  void AllowDynamicShared(const void* kernel, size_t bytes) { dynamic_limits_[kernel] = bytes; }
  size_t dynamic_shared_limit(const void* kernel) const;

  // What a kernel did wrong; every later call fails with it, as after a fault on a real device.
  const std::string& error() const { return error_; }
  void SetError(const std::string& error);
  // For tests that provoke errors: forgets the error and all pending work.
  void Reset();

 private:
  DeviceState() = default;

  Options options_;
  Counts counts_;
  std::map<Stream*, std::unique_ptr<Stream>> streams_;
  std::map<Event*, std::unique_ptr<Event>> events_;
  std::map<void*, std::unique_ptr<char[]>> allocations_;
  std::map<void*, size_t> allocation_bytes_;
  std::map<const void*, size_t> dynamic_limits_;
  int64_t streams_made_ = 0;
  size_t used_bytes_ = 0;
  int64_t milliseconds_ = 0;
  std::string error_;
};

// Runs all blocks of a grid, in index order or one that the seed draws. Returns "" or what a block
// did wrong.
std::string RunGrid(const Launch& launch);

}  // namespace simt

#endif  // PANTHERA_TESTS_SIMT_EMULATOR_DEVICE_STATE_H_
