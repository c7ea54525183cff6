#include "tests/simt/emulator/block_runner.h"

#include <algorithm>
#include <cstdlib>
#include <cstring>
#include <utility>

#include "tests/simt/emulator/race_detector.h"

namespace simt {
namespace {

thread_local BlockRunner* current_runner = nullptr;

// Hides the emulator's own reads and writes from the race detector.
class Bookkeeping {
 public:
  Bookkeeping() { BeginBookkeeping(); }
  Bookkeeping(const Bookkeeping&) = delete;
  Bookkeeping& operator=(const Bookkeeping&) = delete;
  ~Bookkeeping() { EndBookkeeping(); }
};

unsigned CountThreads(const dim3& block) { return block.x * block.y * block.z; }

}  // namespace

BlockRunner::BlockRunner(const Launch& launch)
    : launch_(launch),
      num_threads_(CountThreads(launch.block)),
      threads_(num_threads_),
      order_(launch.order_seed),
      ordering_places_((num_threads_ + kWarpLanes - 1) / kWarpLanes + 1) {
  if (kRaceDetector) {
    // Creating a fiber orders what its creator did before, so all are there before the first block.
    for (unsigned i = 0; i < num_threads_; ++i) {
      fibers_.push_back(std::make_unique<Fiber>(&RunThreads, this));
    }
  }
  Release(&begin_);
}

BlockRunner::~BlockRunner() {
  for (const std::unique_ptr<Fiber>& fiber : fibers_) {
    fiber->OrderBeforeCaller();
  }
}

BlockRunner& BlockRunner::Current() { return *current_runner; }

std::unique_ptr<char[]> BlockRunner::PoisonedMemory(size_t bytes) {
  std::unique_ptr<char[]> memory = std::make_unique_for_overwrite<char[]>(bytes);
  std::memset(memory.get(), 0xff, bytes);
  return memory;
}

std::string BlockRunner::Run(uint3 block_index) {
  const Bookkeeping bookkeeping;
  block_index_ = block_index;
  // Blocks are not ordered against each other, so for the race detector nothing may be freed
  // between them.
  if (kRaceDetector) {
    std::move(shared_.begin(), shared_.end(), std::back_inserter(earlier_blocks_));
    earlier_blocks_.push_back({nullptr, std::move(dynamic_shared_)});
  }
  shared_.clear();
  dynamic_shared_ = PoisonedMemory(launch_.dynamic_shared_bytes);
  threads_.assign(num_threads_, CudaThread());
  not_started_.clear();
  for (unsigned i = 0; i < num_threads_; ++i) {
    threads_[i].linear = i;
    threads_[i].index = {i % launch_.block.x, i / launch_.block.x % launch_.block.y,
                         i / (launch_.block.x * launch_.block.y)};
    not_started_.push_back(num_threads_ - 1 - i);
  }
  if (launch_.order_seed != 0) {
    std::shuffle(not_started_.begin(), not_started_.end(), order_);
  }
  runnable_.clear();
  alive_ = num_threads_;
  at_barrier_ = 0;

  BlockRunner* const outer = std::exchange(current_runner, this);
  while (CudaThread* thread = TakeRunnable()) {
    current_ = thread;
    thread->fiber->Resume();
    if (!error_.empty()) {
      break;
    }
  }
  current_runner = outer;
  if (error_.empty() && alive_ > 0) {
    error_ = DescribeDeadlock();
  }
  ++block_number_;
  return error_;
}

CudaThread* BlockRunner::TakeRunnable() {
  const bool fresh_first = launch_.order_seed != 0 && !not_started_.empty() && (order_() & 1) != 0;
  if (!runnable_.empty() && !fresh_first) {
    if (launch_.order_seed != 0) {
      std::swap(runnable_.front(), runnable_[order_() % runnable_.size()]);
    }
    CudaThread* thread = &threads_[runnable_.front()];
    runnable_.pop_front();
    return thread;
  }
  if (not_started_.empty()) {
    return nullptr;
  }
  CudaThread* thread = &threads_[not_started_.back()];
  not_started_.pop_back();
  thread->state = CudaThread::State::kRunnable;
  thread->fiber = TakeFiber(*thread);
  return thread;
}

Fiber* BlockRunner::TakeFiber(const CudaThread& thread) {
  if (kRaceDetector) {
    // Shifted from block to block: what one fiber did is ordered, and equal threads of two blocks
    // are not.
    return fibers_[(thread.linear + block_number_) % num_threads_].get();
  }
  if (idle_fibers_.empty()) {
    fibers_.push_back(std::make_unique<Fiber>(&RunThreads, this));
    return fibers_.back().get();
  }
  Fiber* fiber = idle_fibers_.back();
  idle_fibers_.pop_back();
  return fiber;
}

void BlockRunner::RunThreads(void* argument) {
  auto* runner = static_cast<BlockRunner*>(argument);
  for (;;) {
    Acquire(&runner->begin_);
    runner->launch_.thread_body();
    Fiber* const fiber = runner->EndThread();
    fiber->Suspend();
  }
}

Fiber* BlockRunner::EndThread() {
  const Bookkeeping bookkeeping;
  CudaThread* const self = current_;
  self->state = CudaThread::State::kDone;
  --alive_;
  idle_fibers_.push_back(self->fiber);
  if (at_barrier_ > 0 && at_barrier_ == alive_) {
    ReleaseBarrier();
  }
  return self->fiber;
}

void BlockRunner::SetError(const std::string& error) {
  error_ = std::string(launch_.kernel) + ", block (" + std::to_string(block_index_.x) + ", " +
           std::to_string(block_index_.y) + ", " + std::to_string(block_index_.z) + "): " + error;
}

void BlockRunner::Barrier(Location location) {
  CudaThread* const self = current_;
  ArriveAtBarrier(location);
  self->fiber->Suspend();
  Acquire(self->ordered_by);
}

void BlockRunner::ArriveAtBarrier(Location location) {
  const Bookkeeping bookkeeping;
  Release(&barrier_);
  ++at_barrier_;
  current_->state = CudaThread::State::kAtBarrier;
  current_->location = location;
  if (at_barrier_ == alive_) {
    ReleaseBarrier();
  }
}

void BlockRunner::ReleaseBarrier() {
  void* place = &ordering_places_.back();
  Acquire(&barrier_);
  Release(place);
  at_barrier_ = 0;
  const CudaThread* first = nullptr;
  for (CudaThread& thread : threads_) {
    if (thread.state != CudaThread::State::kAtBarrier) {
      continue;
    }
    first = first == nullptr ? &thread : first;
    if (thread.location.line != first->location.line) {
      SetError("threads are at different barriers: thread " + std::to_string(first->linear) +
               " at " + first->location.ToString() + ", thread " + std::to_string(thread.linear) +
               " at " + thread.location.ToString());
      return;
    }
    thread.ordered_by = place;
    thread.state = CudaThread::State::kRunnable;
    runnable_.push_back(thread.linear);
  }
  if (alive_ != num_threads_) {
    SetError(std::to_string(num_threads_ - alive_) + " threads have ended and will not come to " +
             first->location.ToString());
    return;
  }
}

bool BlockRunner::AllArrived(unsigned warp, unsigned mask, Location location) const {
  for (unsigned lane = 0; lane < kWarpLanes; ++lane) {
    if ((mask >> lane & 1) == 0) {
      continue;
    }
    const CudaThread& thread = threads_[warp * kWarpLanes + lane];
    if (thread.state != CudaThread::State::kInWarpCollective || thread.mask != mask ||
        thread.location.line != location.line) {
      return false;
    }
  }
  return true;
}

void BlockRunner::WarpCollective(unsigned mask, void* argument, Location location,
                                 const std::function<void(const WarpArguments&)>& act) {
  CudaThread* const self = current_;
  if (!ArriveAtCollective(mask, argument, location, act)) {
    self->fiber->Suspend();
  }
  Acquire(self->ordered_by);
}

bool BlockRunner::ArriveAtCollective(unsigned mask, void* argument, Location location,
                                     const std::function<void(const WarpArguments&)>& act) {
  const Bookkeeping bookkeeping;
  CudaThread* const self = current_;
  const unsigned warp = self->linear / kWarpLanes;
  const unsigned lanes = std::min(kWarpLanes, num_threads_ - warp * kWarpLanes);
  if (lanes < kWarpLanes) {
    mask &= (1U << lanes) - 1;
  }
  if ((mask >> self->lane() & 1) == 0) {
    SetError("lane " + std::to_string(self->lane()) + " is not in its own mask at " +
             location.ToString());
    return false;
  }
  self->state = CudaThread::State::kInWarpCollective;
  self->location = location;
  self->mask = mask;
  self->argument = argument;
  CudaThread* const first = &threads_[static_cast<size_t>(warp) * kWarpLanes];
  Release(first);
  if (!AllArrived(warp, mask, location)) {
    return false;
  }
  void* const place = &ordering_places_[warp];
  Acquire(first);
  Release(place);
  WarpArguments arguments{};
  for (unsigned lane = 0; lane < lanes; ++lane) {
    arguments[lane] = (mask >> lane & 1) != 0 ? first[lane].argument : nullptr;
  }
  act(arguments);
  for (unsigned lane = 0; lane < lanes; ++lane) {
    if ((mask >> lane & 1) != 0) {
      first[lane].ordered_by = place;
      first[lane].state = CudaThread::State::kRunnable;
      if (&first[lane] != self) {
        runnable_.push_back(first[lane].linear);
      }
    }
  }
  return true;
}

void* BlockRunner::SharedArray(const void* key, size_t bytes) {
  const Bookkeeping bookkeeping;
  for (const SharedAllocation& allocation : shared_) {
    if (allocation.key == key) {
      return allocation.memory.get();
    }
  }
  shared_.push_back({key, PoisonedMemory(bytes)});
  return shared_.back().memory.get();
}

std::string BlockRunner::DescribeDeadlock() const {
  constexpr size_t kMostThreads = 4;
  std::string text = std::string(launch_.kernel) + ": threads wait for ever:";
  size_t named = 0;
  for (const CudaThread& thread : threads_) {
    const bool waits = thread.state == CudaThread::State::kAtBarrier ||
                       thread.state == CudaThread::State::kInWarpCollective;
    if (waits && named++ < kMostThreads) {
      text += " thread " + std::to_string(thread.linear) +
              (thread.state == CudaThread::State::kAtBarrier ? " at the barrier "
                                                             : " in the warp collective ") +
              thread.location.ToString() + ";";
    }
  }
  return text + " " + std::to_string(named) + " in all";
}

}  // namespace simt
