// Tensors that own their memory, for tests.
#ifndef PANTHERA_TESTS_SUPPORT_RANDOM_TENSOR_H_
#define PANTHERA_TESTS_SUPPORT_RANDOM_TENSOR_H_

#include <cstddef>
#include <cstdint>
#include <memory>
#include <span>
#include <vector>

#include "runtime/base/dtype.h"
#include "runtime/base/shape.h"
#include "runtime/device/tensor.h"

namespace panthera::testing {

// While an object of this class lives, tensors made by this thread are memory that a GPU and the
// host can reach, and views on that GPU. One at a time; a CPU changes nothing.
class TensorsOn {
 public:
  explicit TensorsOn(Device device);
  TensorsOn(const TensorsOn&) = delete;
  TensorsOn& operator=(const TensorsOn&) = delete;
  ~TensorsOn();
};

// A tensor in memory of exactly its size, so that a sanitizer sees every access outside it. Filled
// with bytes 0xFF (NaN in every float type) until written to.
class HostTensor {
 public:
  HostTensor(const Shape& shape, DType dtype);
  HostTensor(HostTensor&&) = default;
  HostTensor& operator=(HostTensor&&) = default;

  const Tensor& tensor() const { return tensor_; }
  operator Tensor() const { return tensor_; }  // NOLINT(google-explicit-constructor)

 private:
  struct Free {
    Device device;
    void operator()(std::byte* memory) const;
  };
  std::unique_ptr<std::byte[], Free> memory_;
  Tensor tensor_;
};

// The same memory, viewed as the CPU's.
Tensor OnHost(const Tensor& tensor);

// Blocks until the host may read what was enqueued on the device. Everything below that reads a
// tensor does so first.
void WaitForDevice(Device device);

HostTensor Zeros(const Shape& shape, DType dtype);
// Normal values of mean 0 and the given deviation, rounded to dtype. Equal seeds give equal values.
HostTensor RandomTensor(const Shape& shape, DType dtype, uint64_t seed, double deviation = 1);
// Uniform integers in [0, end), kI32.
HostTensor RandomTokens(int64_t count, int64_t end, uint64_t seed);
// The values, rounded to dtype.
HostTensor FromDoubles(std::span<const double> values, const Shape& shape, DType dtype);
HostTensor FromTokens(std::span<const int32_t> tokens);
HostTensor CopyOf(const Tensor& tensor);
// A tensor of kMeta: shape and dtype without data.
Tensor MetaTensor(const Shape& shape, DType dtype);

// The elements of a float or kI32 tensor.
std::vector<double> ToDoubles(const Tensor& tensor);

// Doubles of the same distribution, for references that need no rounding.
std::vector<double> RandomDoubles(int64_t count, uint64_t seed, double deviation = 1);

}  // namespace panthera::testing

#endif  // PANTHERA_TESTS_SUPPORT_RANDOM_TENSOR_H_
