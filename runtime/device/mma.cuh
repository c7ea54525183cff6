// Instructions of the tensor cores, and what feeds them, from compute capability 8.0 on. Names,
// operands and the places of elements are those of NVIDIA's PTX ISA; on the host the emulation does
// the same.
#ifndef PANTHERA_RUNTIME_DEVICE_MMA_CUH_
#define PANTHERA_RUNTIME_DEVICE_MMA_CUH_

#include <cuda_runtime.h>

#include <cmath>
#include <cstdint>
#include <cstring>

#include "runtime/base/dtype.h"

namespace panthera {

#if !defined(__CUDACC__)
namespace emulated {

// The operands of MultiplyAdd of one lane.
struct MultiplyAddArgument {
  const uint32_t* a;
  uint32_t b[2];
  float* sums;
};

inline float ElementOfPair(uint32_t pair, int index) {
  BF16 element;
  element.bits = static_cast<uint16_t>(pair >> (16 * index));
  return static_cast<float>(element);
}

inline void MultiplyAddWarp(const simt::BlockRunner::WarpArguments& lanes) {
  float a[16][16];
  float b[16][8];
  float sums[16][8];
  const auto place_of_sum = [&](int lane, int part) -> float& {
    return sums[lane / 4 + part / 2 * 8][lane % 4 * 2 + part % 2];
  };
  for (int lane = 0; lane < 32; ++lane) {
    const auto& argument = *static_cast<const MultiplyAddArgument*>(lanes[lane]);
    const int group = lane / 4;
    const int column = lane % 4 * 2;
    for (int i = 0; i < 2; ++i) {
      for (int part = 0; part < 4; ++part) {
        a[group + part % 2 * 8][column + part / 2 * 8 + i] = ElementOfPair(argument.a[part], i);
      }
      for (int part = 0; part < 2; ++part) {
        b[column + part * 8 + i][group] = ElementOfPair(argument.b[part], i);
      }
    }
    for (int part = 0; part < 4; ++part) {
      place_of_sum(lane, part) = argument.sums[part];
    }
  }
  for (int row = 0; row < 16; ++row) {
    for (int k = 0; k < 16; ++k) {
      for (int column = 0; column < 8; ++column) {
        sums[row][column] += a[row][k] * b[k][column];
      }
    }
  }
  for (int lane = 0; lane < 32; ++lane) {
    for (int part = 0; part < 4; ++part) {
      static_cast<MultiplyAddArgument*>(lanes[lane])->sums[part] = place_of_sum(lane, part);
    }
  }
}

enum class Layout : uint8_t { kRows, kTransposed };

// What one lane brings to LoadMatrices, read from shared memory by this lane so that the race
// detector sees who reads, and what it takes away.
struct LoadMatricesArgument {
  uint16_t row[8];
  uint32_t parts[4];
};

inline void LoadMatricesInto(const void* row, Layout layout, simt::Location location,
                             uint32_t (&parts)[4]) {
  LoadMatricesArgument argument;
  const auto* const chunk = static_cast<const uint4*>(row);
  const uint4 loaded = *chunk;
  std::memcpy(argument.row, &loaded, sizeof(argument.row));
  simt::BlockRunner::Current().WarpCollective(
      simt::kAllLanes, &argument, location,
      [layout](const simt::BlockRunner::WarpArguments& lanes) {
        const auto lane_at = [&](int lane) {
          return static_cast<LoadMatricesArgument*>(lanes[lane]);
        };
        for (int lane = 0; lane < 32; ++lane) {
          for (int matrix = 0; matrix < 4; ++matrix) {
            const auto element = [&](int i) -> uint32_t {
              return layout == Layout::kRows
                         ? lane_at(matrix * 8 + lane / 4)->row[lane % 4 * 2 + i]
                         : lane_at(matrix * 8 + lane % 4 * 2 + i)->row[lane / 4];
            };
            lane_at(lane)->parts[matrix] = element(0) | element(1) << 16;
          }
        }
      });
  std::memcpy(parts, argument.parts, sizeof(parts));
}

}  // namespace emulated
#endif

// Two floats rounded to bf16, the first in the lower half.
__device__ inline uint32_t PackBf16(float first, float second) {
#if defined(__CUDACC__)
  uint32_t pair;
  asm("cvt.rn.bf16x2.f32 %0, %1, %2;" : "=r"(pair) : "f"(second), "f"(first));
  return pair;
#else
  return BF16(first).bits | static_cast<uint32_t>(BF16(second).bits) << 16;
#endif
}

__device__ inline float FirstOfBf16(uint32_t pair) { return __uint_as_float(pair << 16); }
__device__ inline float SecondOfBf16(uint32_t pair) { return __uint_as_float(pair & 0xffff0000U); }

// 2^x with a relative error below 2^-22; results below 2^-126 become 0.
__device__ inline float FastExp2(float x) {
#if defined(__CUDACC__)
  float power;
  asm("ex2.approx.ftz.f32 %0, %1;" : "=f"(power) : "f"(x));
  return power;
#else
  return std::exp2(x);
#endif
}

// A warp's sums [16, 8] fp32 += a [16, 16] bf16 * b [16, 8] bf16 (mma.sync.m16n8k16). With g =
// lane / 4 and t = lane % 4, a lane holds
//
//   a[0], a[1], a[2], a[3]  rows g, g + 8, g, g + 8; columns 2t and 2t + 1, plus 8 in the last two
//   b0, b1                  rows 2t and 2t + 1, plus 8 in b1; column g
//   sums[0..3]              row g, columns 2t and 2t + 1; the same of row g + 8
//
// so that sums of two neighbouring products, rounded, are the a of a next one.
__device__ inline void MultiplyAdd(const uint32_t (&a)[4], uint32_t b0, uint32_t b1,
                                   float (&sums)[4]) {
#if defined(__CUDACC__)
  asm("mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 "
      "{%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, {%0, %1, %2, %3};"
      : "+f"(sums[0]), "+f"(sums[1]), "+f"(sums[2]), "+f"(sums[3])
      : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b0), "r"(b1));
#else
  emulated::MultiplyAddArgument argument{a, {b0, b1}, sums};
  simt::BlockRunner::Current().WarpCollective(simt::kAllLanes, &argument, simt::Location::Here(),
                                              &emulated::MultiplyAddWarp);
#endif
}

// Four matrices [8, 8] of 2-byte elements from shared memory (ldmatrix.x4): lane l says where row
// l % 8 of matrix l / 8 begins, at a multiple of 16 bytes. parts[m] gets, of matrix m, row lane /
// 4, columns 2 (lane % 4) and the next.
__device__ inline void LoadMatrices(const void* row, uint32_t (&parts)[4]) {
#if defined(__CUDACC__)
  asm volatile("ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%0, %1, %2, %3}, [%4];"
               : "=r"(parts[0]), "=r"(parts[1]), "=r"(parts[2]), "=r"(parts[3])
               : "r"(static_cast<uint32_t>(__cvta_generic_to_shared(row)))
               : "memory");
#else
  emulated::LoadMatricesInto(row, emulated::Layout::kRows, simt::Location::Here(), parts);
#endif
}

// The same of the transposed matrices: rows 2 (lane % 4) and the next, column lane / 4.
__device__ inline void LoadMatricesTransposed(const void* row, uint32_t (&parts)[4]) {
#if defined(__CUDACC__)
  asm volatile("ldmatrix.sync.aligned.m8n8.x4.trans.shared.b16 {%0, %1, %2, %3}, [%4];"
               : "=r"(parts[0]), "=r"(parts[1]), "=r"(parts[2]), "=r"(parts[3])
               : "r"(static_cast<uint32_t>(__cvta_generic_to_shared(row)))
               : "memory");
#else
  emulated::LoadMatricesInto(row, emulated::Layout::kTransposed, simt::Location::Here(), parts);
#endif
}

// Whether a copy reads its source or fills its target with zeros.
enum class CopySource : uint8_t { kMemory, kZeros };

// Begins a copy of kBytes, 4 or 16, from global to shared memory (cp.async), both at multiples of
// kBytes. `global` must be valid memory even if zeros are filled in. The copy is part of the
// thread's open group; after WaitForCopies the thread that began it sees it, and after a barrier
// the others.
template <int kBytes>
__device__ inline void BeginCopy(void* shared, const void* global, CopySource source) {
  static_assert(kBytes == 4 || kBytes == 16);
  const unsigned source_bytes = source == CopySource::kMemory ? unsigned{kBytes} : 0U;
#if defined(__CUDACC__)
  const auto address = static_cast<uint32_t>(__cvta_generic_to_shared(shared));
  if constexpr (kBytes == 16) {
    asm volatile("cp.async.cg.shared.global [%0], [%1], 16, %2;" ::"r"(address), "l"(global),
                 "r"(source_bytes)
                 : "memory");
  } else {
    asm volatile("cp.async.ca.shared.global [%0], [%1], 4, %2;" ::"r"(address), "l"(global),
                 "r"(source_bytes)
                 : "memory");
  }
#else
  simt::BeginCopy(shared, global, kBytes, source_bytes);
#endif
}

// Ends the thread's open group of copies and opens the next.
__device__ inline void CommitCopies() {
#if defined(__CUDACC__)
  asm volatile("cp.async.commit_group;" ::: "memory");
#else
  simt::CommitCopies();
#endif
}

// Waits for the thread's groups but the kGroups that ended last.
template <int kGroups>
__device__ inline void WaitForCopies() {
#if defined(__CUDACC__)
  asm volatile("cp.async.wait_group %0;" ::"n"(kGroups) : "memory");
#else
  simt::WaitForCopies(kGroups);
#endif
}

}  // namespace panthera

#endif  // PANTHERA_RUNTIME_DEVICE_MMA_CUH_
