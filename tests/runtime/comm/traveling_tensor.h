// Tensors of known bytes for tests of communicators.
#ifndef PANTHERA_TESTS_RUNTIME_COMM_TRAVELING_TENSOR_H_
#define PANTHERA_TESTS_RUNTIME_COMM_TRAVELING_TENSOR_H_

#include <cstddef>
#include <cstdint>

#include "runtime/comm/communicator.h"
#include "runtime/device/buffer.h"
#include "runtime/device/memory_ledger.h"
#include "runtime/device/tensor.h"

namespace panthera::testing {

struct TravelingTensor {
  TravelingTensor(Communicator& comm, MemoryLedger& ledger, const Shape& shape, DType dtype)
      : buffer(comm.Allocate(Device{}, ledger, MemoryCategory::kCommunication, "test",
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

inline void FillRow(Tensor row, int from, int to) {
  for (int64_t i = 0; i < row.bytes(); ++i) {
    row.bytes_data()[i] = PatternByte(from, to, i);
  }
}

// How many bytes of `row` differ from the pattern.
inline int64_t WrongBytes(const Tensor& row, int from, int to) {
  int64_t wrong = 0;
  for (int64_t i = 0; i < row.bytes(); ++i) {
    wrong += row.bytes_data()[i] != PatternByte(from, to, i);
  }
  return wrong;
}

}  // namespace panthera::testing

#endif  // PANTHERA_TESTS_RUNTIME_COMM_TRAVELING_TENSOR_H_
