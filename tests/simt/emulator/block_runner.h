#ifndef PANTHERA_TESTS_SIMT_EMULATOR_BLOCK_RUNNER_H_
#define PANTHERA_TESTS_SIMT_EMULATOR_BLOCK_RUNNER_H_

#include <array>
#include <cstddef>
#include <cstdint>
#include <deque>
#include <functional>
#include <memory>
#include <random>
#include <string>
#include <vector>

#include "tests/simt/emulator/fiber.h"
#include "tests/simt/emulator/location.h"
#include "tests/simt/emulator/vector_types.h"

namespace simt {

inline constexpr unsigned kWarpLanes = 32;
inline constexpr unsigned kAllLanes = 0xffffffffU;

// A grid, and the order in which the threads of its blocks take turns.
struct Launch {
  const char* kernel = "";
  dim3 grid;
  dim3 block;
  size_t dynamic_shared_bytes = 0;
  // 0: threads run in index order, each until it must wait; else an order that this seed draws.
  uint64_t order_seed = 0;
  std::function<void()> thread_body;
};

// A copy into shared memory that was begun and not yet waited for.
struct PendingCopy {
  void* to;
  const void* from;
  size_t bytes;       // that are written
  size_t from_bytes;  // of them that are read; the others become 0
};

struct CudaThread {
  enum class State : uint8_t { kNotStarted, kRunnable, kAtBarrier, kInWarpCollective, kDone };

  uint3 index{};
  unsigned linear = 0;
  State state = State::kNotStarted;
  Fiber* fiber = nullptr;
  Location location;         // where it waits
  unsigned mask = 0;         // of the warp collective in which it waits
  void* argument = nullptr;  // of the same
  void* ordered_by = nullptr;
  std::deque<std::vector<PendingCopy>> copy_groups{1};  // the last one is open

  unsigned lane() const { return linear % kWarpLanes; }
};

// Runs the threads of a block, one at a time, each on a fiber of its own. A thread runs until it
// waits at a barrier or in a warp collective, or ends. One runner at a time runs on a system
// thread, and kernels reach it through Current().
//
// Shared memory is fresh for every block and filled with bytes 0xff, a NaN in every floating-point
// type, so that a read before a write shows.
class BlockRunner {
 public:
  explicit BlockRunner(const Launch& launch);
  BlockRunner(const BlockRunner&) = delete;
  BlockRunner& operator=(const BlockRunner&) = delete;
  ~BlockRunner();

  // Runs a block to its end. Returns what the kernel did that CUDA does not allow (a barrier that
  // not all threads reach, a collective with absent lanes), with the places in its source, or "".
  // After such an error the runner cannot be used again.
  std::string Run(uint3 block_index);

  // For kernels, through the stand-ins for CUDA's functions.
  static BlockRunner& Current();
  const Launch& launch() const { return launch_; }
  uint3 block_index() const { return block_index_; }
  CudaThread& thread() { return *current_; }
  // All threads of the block wait for each other.
  void Barrier(Location location);
  // The threads of `mask` wait for each other; then one of them calls act(arguments), whose entry i
  // is the `argument` of lane i, null where lane i is not in `mask`.
  using WarpArguments = std::array<void*, kWarpLanes>;
  void WarpCollective(unsigned mask, void* argument, Location location,
                      const std::function<void(const WarpArguments&)>& act);
  // The block's array that belongs to `key`, the same for all of its threads.
  void* SharedArray(const void* key, size_t bytes);
  void* dynamic_shared() const { return dynamic_shared_.get(); }

 private:
  struct SharedAllocation {
    const void* key;
    std::unique_ptr<char[]> memory;
  };

  static void RunThreads(void* runner);
  static std::unique_ptr<char[]> PoisonedMemory(size_t bytes);
  CudaThread* TakeRunnable();
  Fiber* TakeFiber(const CudaThread& thread);
  void ReleaseBarrier();
  void ArriveAtBarrier(Location location);
  // Whether the calling thread was the last one, so that it need not wait.
  bool ArriveAtCollective(unsigned mask, void* argument, Location location,
                          const std::function<void(const WarpArguments&)>& act);
  Fiber* EndThread();
  // Ends the block as soon as the calling thread waits or ends.
  void SetError(const std::string& error);
  bool AllArrived(unsigned warp, unsigned mask, Location location) const;
  std::string DescribeDeadlock() const;

  const Launch launch_;
  const unsigned num_threads_;
  uint3 block_index_{};
  size_t block_number_ = 0;
  std::vector<CudaThread> threads_;
  std::vector<unsigned> not_started_;  // taken from the back
  std::deque<unsigned> runnable_;
  std::mt19937_64 order_;
  CudaThread* current_ = nullptr;
  unsigned alive_ = 0;
  unsigned at_barrier_ = 0;
  std::string error_;

  std::vector<std::unique_ptr<Fiber>> fibers_;
  std::vector<Fiber*> idle_fibers_;
  std::vector<SharedAllocation> shared_;
  std::unique_ptr<char[]> dynamic_shared_;
  std::vector<SharedAllocation> earlier_blocks_;  // see Run

  // Addresses that stand for points in time for the race detector: the latest collective of each
  // warp, and last the latest barrier.
  std::vector<uint8_t> ordering_places_;
  uint8_t begin_ = 0;
  uint8_t barrier_ = 0;
};

}  // namespace simt

#endif  // PANTHERA_TESTS_SIMT_EMULATOR_BLOCK_RUNNER_H_
