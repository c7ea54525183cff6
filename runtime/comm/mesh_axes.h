#ifndef PANTHERA_RUNTIME_COMM_MESH_AXES_H_
#define PANTHERA_RUNTIME_COMM_MESH_AXES_H_

#include "absl/status/status.h"

#include "runtime/comm/communicator.h"

namespace panthera {

// One rank's ways to its peers along the axes of the mesh: those that compute on other samples, and
// those that share each layer with it. A reference like the communicators themselves, which must
// outlive it.
class MeshAxes {
 public:
  // Every rank has the whole model. Implicit, as one axis is all that most of the code knows.
  MeshAxes(Communicator& data) : data_(&data) {}  // NOLINT(google-explicit-constructor)
  MeshAxes(Communicator& data, Communicator& tensor) : data_(&data), tensor_(&tensor) {}

  Communicator& data() const { return *data_; }
  int tensor_size() const { return tensor_ == nullptr ? 1 : tensor_->size(); }
  int tensor_rank() const { return tensor_ == nullptr ? 0 : tensor_->rank(); }
  // Only where tensor_size() is above 1.
  Communicator& tensor() const { return *tensor_; }
  // Communicator::Health of both axes: the first error.
  absl::Status Health() const;

 private:
  Communicator* data_;
  Communicator* tensor_ = nullptr;
};

// Blocks the host until `event`, recorded on a stream with calls of the axes' communicators, is
// reached, or until one of them knows that it may never be; then the stream may stand still, and
// Stream's destructor must not be waited for before the communicator is destroyed.
absl::Status Await(const Event& event, MeshAxes axes);

}  // namespace panthera

#endif  // PANTHERA_RUNTIME_COMM_MESH_AXES_H_
