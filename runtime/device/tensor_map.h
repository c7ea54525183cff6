#ifndef PANTHERA_RUNTIME_DEVICE_TENSOR_MAP_H_
#define PANTHERA_RUNTIME_DEVICE_TENSOR_MAP_H_

#include <cuda.h>

#include <array>
#include <cstdint>

namespace panthera {

// Where bulk copies (bulk_copy.cuh) find the boxes of a tensor; a kernel's parameter.
using TensorMap = CUtensorMap;

// A tensor of bf16 in four dimensions, that of stride 1 first, and the box that a copy takes of it.
struct TensorMapShape {
  const void* first;  // at a multiple of 16 bytes
  std::array<uint64_t, 4> sizes;
  std::array<uint64_t, 3> stride_bytes;  // of all dimensions but the first; multiples of 16
  // The first is 64: 128 bytes, whose chunks copies permute as PanelTile (wgmma.cuh) says.
  std::array<uint32_t, 4> box;
};

// Aborts if CUDA's driver refuses.
TensorMap MakeTensorMap(const TensorMapShape& shape);

}  // namespace panthera

#endif  // PANTHERA_RUNTIME_DEVICE_TENSOR_MAP_H_
