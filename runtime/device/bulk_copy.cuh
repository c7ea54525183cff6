// Hopper's bulk copies from global to shared memory, and the barriers in shared memory on which
// their arrival is awaited (cp.async.bulk.tensor and mbarrier of NVIDIA's PTX ISA).
#ifndef PANTHERA_RUNTIME_DEVICE_BULK_COPY_CUH_
#define PANTHERA_RUNTIME_DEVICE_BULK_COPY_CUH_

#include <cuda_runtime.h>

#include <cstdint>

#include "runtime/device/tensor_map.h"

namespace panthera {

// Counts arrivals of threads and bytes of copies in shared memory. When all that a phase expects
// have come, the next phase begins; phases alternate in parity, and the first has parity 0.
class PhaseBarrier {
 public:
  // By one thread, before the block's next barrier.
  __device__ void Init(unsigned arrivals) {
    asm volatile("mbarrier.init.shared::cta.b64 [%0], %1;" ::"r"(address()), "r"(arrivals)
                 : "memory");
  }
  // What the thread has done before is visible to those that wait.
  __device__ void Arrive() {
    asm volatile("mbarrier.arrive.shared::cta.b64 _, [%0];" ::"r"(address()) : "memory");
  }
  // Arrives, and makes the phase wait for so many bytes of copies.
  __device__ void ArriveExpecting(unsigned bytes) {
    asm volatile("mbarrier.arrive.expect_tx.shared::cta.b64 _, [%0], %1;" ::"r"(address()),
                 "r"(bytes)
                 : "memory");
  }
  // Waits until the phase of this parity is over. Of the phase before the first one may be said to
  // have parity 1: it is over from the beginning.
  __device__ void Wait(unsigned parity) {
    asm volatile(
        "{\n"
        ".reg .pred over;\n"
        "AGAIN:\n"
        "mbarrier.try_wait.parity.shared::cta.b64 over, [%0], %1;\n"
        "@over bra DONE;\n"
        "bra AGAIN;\n"
        "DONE:\n"
        "}" ::"r"(address()),
        "r"(parity)
        : "memory");
  }
  __device__ uint32_t address() { return static_cast<uint32_t>(__cvta_generic_to_shared(&state_)); }

 private:
  uint64_t state_;
};

// After a thread has initialised barriers, so that copies find them.
__device__ inline void PublishBarriers() {
  asm volatile("fence.mbarrier_init.release.cluster;" ::: "memory");
}

// Begins to copy the box of a map whose first element has these coordinates, that of the dimension
// of stride 1 first; the barrier counts its bytes. Elements outside of the tensor become zeros.
__device__ inline void BeginBoxCopy(const TensorMap& map, int c0, int c1, int c2, int c3,
                                    PhaseBarrier& barrier, void* shared) {
  asm volatile(
      "cp.async.bulk.tensor.4d.shared::cluster.global.mbarrier::complete_tx::bytes "
      "[%0], [%1, {%3, %4, %5, %6}], [%2];" ::"r"(
          static_cast<uint32_t>(__cvta_generic_to_shared(shared))),
      "l"(&map), "r"(barrier.address()), "r"(c0), "r"(c1), "r"(c2), "r"(c3)
      : "memory");
}

// Of the threads of a block that use the barrier `id`, from 1 to 15, `threads` in all: waits until
// all have come, or comes without waiting.
__device__ inline void SyncThreads(int id, int threads) {
  asm volatile("bar.sync %0, %1;" ::"r"(id), "r"(threads) : "memory");
}
__device__ inline void ArriveThreads(int id, int threads) {
  asm volatile("bar.arrive %0, %1;" ::"r"(id), "r"(threads) : "memory");
}

}  // namespace panthera

#endif  // PANTHERA_RUNTIME_DEVICE_BULK_COPY_CUH_
