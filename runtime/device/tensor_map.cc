#include "runtime/device/tensor_map.h"

#include <cuda_runtime.h>

#include "runtime/device/cuda_check.h"

namespace panthera {
namespace {

using EncodeFunction = decltype(&cuTensorMapEncodeTiled);

// The driver's function, found by CUDA's runtime: programs are not linked with the driver, so that
// they start without one.
EncodeFunction FindEncodeFunction() {
  constexpr unsigned kSince = 12000;
  void* function = nullptr;
  cudaDriverEntryPointQueryResult result = cudaDriverEntryPointSymbolNotFound;
  CHECK_CUDA(cudaGetDriverEntryPointByVersion("cuTensorMapEncodeTiled", &function, kSince,
                                              cudaEnableDefault, &result));
  CHECK(result == cudaDriverEntryPointSuccess) << "the driver has no cuTensorMapEncodeTiled";
  return reinterpret_cast<EncodeFunction>(function);
}

}  // namespace

TensorMap MakeTensorMap(const TensorMapShape& shape) {
  static const EncodeFunction encode = FindEncodeFunction();
  constexpr std::array<uint32_t, 4> kEveryElement = {1, 1, 1, 1};
  TensorMap map;
  const CUresult result =
      encode(&map, CU_TENSOR_MAP_DATA_TYPE_BFLOAT16, static_cast<uint32_t>(shape.sizes.size()),
             const_cast<void*>(shape.first), shape.sizes.data(), shape.stride_bytes.data(),
             shape.box.data(), kEveryElement.data(), CU_TENSOR_MAP_INTERLEAVE_NONE,
             CU_TENSOR_MAP_SWIZZLE_128B, CU_TENSOR_MAP_L2_PROMOTION_L2_256B,
             CU_TENSOR_MAP_FLOAT_OOB_FILL_NONE);
  CHECK(result == CUDA_SUCCESS) << "cuTensorMapEncodeTiled: error " << result;
  return map;
}

}  // namespace panthera
