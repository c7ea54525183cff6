#ifndef PANTHERA_RUNTIME_COMM_MESH_H_
#define PANTHERA_RUNTIME_COMM_MESH_H_

#include "absl/status/statusor.h"

#include "runtime/base/fields.h"

namespace panthera {

struct ParallelOptions {
  int64_t data = 0;
  int64_t tensor = 1;

  void VisitFields(FieldVisitor& visit) {
    visit.Int({"data", "data-parallel ranks; 0: all ranks divided by `tensor`"}, data,
              {0, 1 << 20});
    visit.Int({"tensor", "tensor-parallel ranks that share each layer"}, tensor, {1, 1 << 10});
  }
};

// The place of one rank in the data x tensor mesh. Neighbouring ranks form the tensor axis:
// rank = data_rank * tensor_size + tensor_rank.
struct Mesh {
  int data_rank = 0;
  int data_size = 1;
  int tensor_rank = 0;
  int tensor_size = 1;

  int world_size() const { return data_size * tensor_size; }
  int rank() const { return data_rank * tensor_size + tensor_rank; }

  // Refuses sizes whose product is not `world_size`, naming the ones that work.
  static absl::StatusOr<Mesh> Create(const ParallelOptions& options, int rank, int world_size);
};

}  // namespace panthera

#endif  // PANTHERA_RUNTIME_COMM_MESH_H_
