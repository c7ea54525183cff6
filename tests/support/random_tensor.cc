#include "tests/support/random_tensor.h"

#include <cstring>
#include <random>

#include "runtime/base/check.h"
#include "runtime/device/cuda_device.h"

namespace panthera::testing {

namespace {

thread_local Device tensor_device;

}  // namespace

TensorsOn::TensorsOn(Device device) { tensor_device = device; }
TensorsOn::~TensorsOn() { tensor_device = Device(); }

HostTensor::HostTensor(const Shape& shape, DType dtype) {
  const int64_t bytes = shape.elements() * SizeOf(dtype);
  std::byte* const memory = tensor_device.is_cuda()
                                ? cuda::AllocatePinned(tensor_device, bytes, "test tensor")
                                : new std::byte[static_cast<size_t>(bytes)];
  memory_ = std::unique_ptr<std::byte[], Free>(memory, Free{tensor_device});
  std::memset(memory, 0xFF, static_cast<size_t>(bytes));
  tensor_ = Tensor(memory, shape, dtype, tensor_device);
}

void HostTensor::Free::operator()(std::byte* memory) const {
  if (device.is_cuda()) {
    cuda::FreePinned(memory);
  } else {
    delete[] memory;
  }
}

Tensor OnHost(const Tensor& tensor) {
  return {tensor.bytes_data(), tensor.shape(), tensor.dtype(), {DeviceKind::kCpu, 0}};
}

void WaitForDevice(Device device) {
  if (device.is_cuda()) {
    cuda::SynchronizeDevice(device);
  }
}

HostTensor Zeros(const Shape& shape, DType dtype) {
  HostTensor zeros(shape, dtype);
  if (zeros.tensor().bytes() > 0) {
    std::memset(zeros.tensor().bytes_data(), 0, static_cast<size_t>(zeros.tensor().bytes()));
  }
  return zeros;
}

std::vector<double> RandomDoubles(int64_t count, uint64_t seed, double deviation) {
  std::mt19937_64 generator(seed);
  std::normal_distribution<double> normal(0, deviation);
  std::vector<double> values(static_cast<size_t>(count));
  for (double& value : values) {
    value = normal(generator);
  }
  return values;
}

HostTensor RandomTensor(const Shape& shape, DType dtype, uint64_t seed, double deviation) {
  return FromDoubles(RandomDoubles(shape.elements(), seed, deviation), shape, dtype);
}

HostTensor RandomTokens(int64_t count, int64_t end, uint64_t seed) {
  std::mt19937_64 generator(seed);
  std::uniform_int_distribution<int32_t> uniform(0, static_cast<int32_t>(end - 1));
  HostTensor tokens({count}, DType::kI32);
  for (int64_t n = 0; n < count; ++n) {
    tokens.tensor().data<int32_t>()[n] = uniform(generator);
  }
  return tokens;
}

HostTensor FromDoubles(std::span<const double> values, const Shape& shape, DType dtype) {
  CHECK_EQ(static_cast<int64_t>(values.size()), shape.elements());
  HostTensor tensor(shape, dtype);
  DispatchFloat(dtype, [&]<typename T>() {
    T* out = tensor.tensor().data<T>();
    for (const double value : values) {
      *out++ = static_cast<T>(static_cast<float>(value));
    }
  });
  return tensor;
}

HostTensor FromTokens(std::span<const int32_t> tokens) {
  HostTensor tensor({static_cast<int64_t>(tokens.size())}, DType::kI32);
  int32_t* out = tensor.tensor().data<int32_t>();
  for (const int32_t token : tokens) {
    *out++ = token;
  }
  return tensor;
}

HostTensor CopyOf(const Tensor& tensor) {
  WaitForDevice(tensor.device());
  HostTensor copy(tensor.shape(), tensor.dtype());
  if (tensor.bytes() > 0) {
    std::memcpy(copy.tensor().bytes_data(), tensor.bytes_data(),
                static_cast<size_t>(tensor.bytes()));
  }
  return copy;
}

Tensor MetaTensor(const Shape& shape, DType dtype) {
  return {nullptr, shape, dtype, {DeviceKind::kMeta, 0}};
}

std::vector<double> ToDoubles(const Tensor& tensor) {
  WaitForDevice(tensor.device());
  std::vector<double> values(static_cast<size_t>(tensor.elements()));
  if (tensor.dtype() == DType::kI32) {
    const int32_t* in = tensor.data<int32_t>();
    for (double& value : values) {
      value = static_cast<double>(*in++);
    }
    return values;
  }
  DispatchFloat(tensor.dtype(), [&]<typename T>() {
    const T* in = tensor.data<T>();
    for (double& value : values) {
      value = static_cast<double>(static_cast<float>(*in++));
    }
  });
  return values;
}

}  // namespace panthera::testing
