// Tensors of known bytes for tests of communicators.
#ifndef PANTHERA_TESTS_RUNTIME_COMM_TRAVELING_TENSOR_H_
#define PANTHERA_TESTS_RUNTIME_COMM_TRAVELING_TENSOR_H_

#include <cstddef>
#include <cstdint>
#include <vector>

#include "runtime/comm/communicator.h"
#include "runtime/device/buffer.h"
#include "runtime/device/memory_ledger.h"
#include "runtime/device/stream.h"
#include "runtime/device/tensor.h"

namespace panthera::testing {

struct TravelingTensor {
  TravelingTensor(Communicator& comm, MemoryLedger& ledger, const Shape& shape, DType dtype,
                  Device device = {})
      : buffer(comm.Allocate(device, ledger, MemoryCategory::kCommunication, "test",
                             shape.elements() * SizeOf(dtype))),
        tensor(buffer.View(shape, dtype)) {}

  Buffer buffer;
  Tensor tensor;
};

// Byte `index` of what rank `from` has for rank `to`; different for all small arguments.
inline std::byte PatternByte(int from, int to, int64_t index) {
  const int64_t mixed = 89 * int64_t{from} + 57 * int64_t{to} + 13 * index + 29 * (index >> 8) + 1;
  return static_cast<std::byte>(mixed & 0xFF);
}

inline std::vector<std::byte> PatternBytes(int from, int to, int64_t count) {
  std::vector<std::byte> bytes;
  for (int64_t i = 0; i < count; ++i) {
    bytes.push_back(PatternByte(from, to, i));
  }
  return bytes;
}

// Blocks the host until `row`, of the stream's device, holds the pattern.
inline void FillRow(Tensor row, int from, int to, Stream& stream) {
  std::vector<std::byte> bytes = PatternBytes(from, to, row.bytes());
  Copy(stream, Tensor(bytes.data(), row.shape(), row.dtype(), Device{}), row);
  stream.Synchronize();
}

// How many bytes of `row` differ from the pattern once the stream's work is done.
inline int64_t WrongBytes(const Tensor& row, int from, int to, Stream& stream) {
  std::vector<std::byte> bytes(static_cast<size_t>(row.bytes()));
  Copy(stream, row, Tensor(bytes.data(), row.shape(), row.dtype(), Device{}));
  stream.Synchronize();
  const std::vector<std::byte> expected = PatternBytes(from, to, row.bytes());
  int64_t wrong = 0;
  for (size_t i = 0; i < bytes.size(); ++i) {
    wrong += bytes[i] != expected[i];
  }
  return wrong;
}

}  // namespace panthera::testing

#endif  // PANTHERA_TESTS_RUNTIME_COMM_TRAVELING_TENSOR_H_
