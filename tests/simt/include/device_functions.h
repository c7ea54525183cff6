// CUDA's functions for kernels: barriers, warp collectives, asynchronous copies, atomics, and the
// arithmetic whose rounding CUDA fixes. Meanings are those of NVIDIA's CUDA C++ Programming Guide;
// names that begin with `simt::` are what the thin wrappers around PTX call on the host.
#ifndef PANTHERA_TESTS_SIMT_INCLUDE_DEVICE_FUNCTIONS_H_
#define PANTHERA_TESTS_SIMT_INCLUDE_DEVICE_FUNCTIONS_H_

#include <atomic>
#include <bit>
#include <cmath>
#include <cstdint>
#include <cstring>
#include <type_traits>

#include "tests/simt/emulator/block_runner.h"
#include "tests/simt/emulator/location.h"
#include "tests/simt/emulator/race_detector.h"

inline void __syncthreads(simt::Location location = simt::Location::Here()) {
  simt::BlockRunner::Current().Barrier(location);
}

namespace simt {

inline unsigned Lane() { return BlockRunner::Current().thread().lane(); }

template <typename T>
struct ShuffleArgument {
  T value;
  T result;
  unsigned source;  // lane
};

// The value of lane `source`; undefined in CUDA where that lane is not in `mask`, and then NaN or
// all bits set.
template <typename T>
T Shuffle(unsigned mask, T value, unsigned source, Location location) {
  static_assert(std::is_trivially_copyable_v<T>);
  ShuffleArgument<T> argument{value, value, source};
  BlockRunner::Current().WarpCollective(
      mask, &argument, location, [](const BlockRunner::WarpArguments& arguments) {
        for (void* pointer : arguments) {
          if (pointer == nullptr) {
            continue;
          }
          auto* self = static_cast<ShuffleArgument<T>*>(pointer);
          const auto* from = static_cast<ShuffleArgument<T>*>(arguments[self->source]);
          if (from != nullptr) {
            self->result = from->value;
          } else {
            std::memset(&self->result, 0xff, sizeof(T));
          }
        }
      });
  return argument.result;
}

}  // namespace simt

inline void __syncwarp(unsigned mask = simt::kAllLanes,
                       simt::Location location = simt::Location::Here()) {
  simt::BlockRunner::Current().WarpCollective(mask, nullptr, location,
                                              [](const simt::BlockRunner::WarpArguments&) {});
}

template <typename T>
T __shfl_sync(unsigned mask, T value, int source, int width = 32,
              simt::Location location = simt::Location::Here()) {
  const unsigned segment = static_cast<unsigned>(width);
  return simt::Shuffle(mask, value,
                       (simt::Lane() & ~(segment - 1)) + (static_cast<unsigned>(source) % segment),
                       location);
}

template <typename T>
T __shfl_xor_sync(unsigned mask, T value, int lane_mask, int width = 32,
                  simt::Location location = simt::Location::Here()) {
  const unsigned segment = static_cast<unsigned>(width);
  const unsigned lane = simt::Lane();
  const unsigned source = lane ^ static_cast<unsigned>(lane_mask);
  const bool inside = (source & ~(segment - 1)) <= (lane & ~(segment - 1));
  return simt::Shuffle(mask, value, inside ? source : lane, location);
}

template <typename T>
T __shfl_down_sync(unsigned mask, T value, unsigned delta, int width = 32,
                   simt::Location location = simt::Location::Here()) {
  const unsigned segment = static_cast<unsigned>(width);
  const unsigned lane = simt::Lane();
  const bool inside = lane % segment + delta < segment;
  return simt::Shuffle(mask, value, inside ? lane + delta : lane, location);
}

template <typename T>
T __shfl_up_sync(unsigned mask, T value, unsigned delta, int width = 32,
                 simt::Location location = simt::Location::Here()) {
  const unsigned segment = static_cast<unsigned>(width);
  const unsigned lane = simt::Lane();
  const bool inside = lane % segment >= delta;
  return simt::Shuffle(mask, value, inside ? lane - delta : lane, location);
}

// Bit i: whether lane i's predicate is not 0.
inline unsigned __ballot_sync(unsigned mask, int predicate,
                              simt::Location location = simt::Location::Here()) {
  simt::ShuffleArgument<unsigned> argument{predicate != 0 ? 1U : 0U, 0, 0};
  simt::BlockRunner::Current().WarpCollective(
      mask, &argument, location, [](const simt::BlockRunner::WarpArguments& arguments) {
        unsigned ballot = 0;
        for (unsigned lane = 0; lane < simt::kWarpLanes; ++lane) {
          if (arguments[lane] != nullptr) {
            ballot |= static_cast<simt::ShuffleArgument<unsigned>*>(arguments[lane])->value << lane;
          }
        }
        for (void* pointer : arguments) {
          if (pointer != nullptr) {
            static_cast<simt::ShuffleArgument<unsigned>*>(pointer)->result = ballot;
          }
        }
      });
  return argument.result;
}
inline int __any_sync(unsigned mask, int predicate,
                      simt::Location location = simt::Location::Here()) {
  return __ballot_sync(mask, predicate, location) != 0 ? 1 : 0;
}

// Integers only: sums of floating-point numbers would depend on the order of the threads.
template <typename T>
T atomicAdd(T* place, T value) {
  static_assert(std::is_integral_v<T>, "a sum of floats by atomics has no fixed order");
  return std::atomic_ref<T>(*place).fetch_add(value, std::memory_order_relaxed);
}
template <typename T>
T atomicOr(T* place, T value) {
  static_assert(std::is_integral_v<T>);
  return std::atomic_ref<T>(*place).fetch_or(value, std::memory_order_relaxed);
}
template <typename T>
T atomicMax(T* place, T value) {
  static_assert(std::is_integral_v<T>);
  const std::atomic_ref<T> largest(*place);
  T seen = largest.load(std::memory_order_relaxed);
  while (seen < value && !largest.compare_exchange_weak(seen, value, std::memory_order_relaxed)) {
  }
  return seen;
}

// Rounded to nearest even, never contracted.
inline float __fadd_rn(float a, float b) { return a + b; }
inline float __fsub_rn(float a, float b) { return a - b; }
inline float __fmul_rn(float a, float b) { return a * b; }
inline float __fmaf_rn(float a, float b, float c) { return std::fma(a, b, c); }
inline float __fdiv_rn(float a, float b) { return a / b; }
inline float __fsqrt_rn(float a) { return std::sqrt(a); }
inline float rsqrtf(float a) { return 1.0F / std::sqrt(a); }
inline unsigned __float_as_uint(float a) { return std::bit_cast<unsigned>(a); }
inline float __uint_as_float(unsigned a) { return std::bit_cast<float>(a); }
inline unsigned __umulhi(unsigned a, unsigned b) {
  return static_cast<unsigned>((static_cast<uint64_t>(a) * b) >> 32);
}
// Byte i is the one of {a, b} that nibble i of `selector` numbers, from 0 to 7.
inline unsigned __byte_perm(unsigned a, unsigned b, unsigned selector) {
  const uint64_t bytes = a | static_cast<uint64_t>(b) << 32;
  unsigned result = 0;
  for (unsigned i = 0; i < 4; ++i) {
    const unsigned number = (selector >> (4 * i)) & 7U;
    result |= static_cast<unsigned>((bytes >> (8 * number)) & 0xffU) << (8 * i);
  }
  return result;
}
inline int __clz(int a) { return std::countl_zero(static_cast<unsigned>(a)); }
inline int __popc(unsigned a) { return std::popcount(a); }
template <typename T>
T __ldg(const T* place) {
  return *place;
}

namespace simt {

// cp.async: begins a copy of `from_bytes` bytes to shared memory, filled up to `bytes` with zeros.
// `to` holds NaNs until the copy is waited for.
inline void BeginCopy(void* to, const void* from, size_t bytes, size_t from_bytes) {
  NoteWrite(to, bytes);
  std::memset(to, 0xff, bytes);
  BlockRunner::Current().thread().copy_groups.back().push_back({to, from, bytes, from_bytes});
}
// cp.async.commit_group: ends the open group.
inline void CommitCopies() { BlockRunner::Current().thread().copy_groups.emplace_back(); }
// cp.async.wait_group: this thread's groups are done except the newest `groups` of those ended.
inline void WaitForCopies(size_t groups) {
  auto& pending = BlockRunner::Current().thread().copy_groups;
  while (pending.size() > groups + 1) {
    for (const PendingCopy& copy : pending.front()) {
      NoteRead(copy.from, copy.from_bytes);
      NoteWrite(copy.to, copy.bytes);
      std::memcpy(copy.to, copy.from, copy.from_bytes);
      std::memset(static_cast<char*>(copy.to) + copy.from_bytes, 0, copy.bytes - copy.from_bytes);
    }
    pending.pop_front();
  }
}

}  // namespace simt

#endif  // PANTHERA_TESTS_SIMT_INCLUDE_DEVICE_FUNCTIONS_H_
