#include "runtime/comm/mesh_axes.h"

#include <chrono>
#include <thread>

#include "runtime/base/status_macros.h"

namespace panthera {

absl::Status MeshAxes::Health() const {
  RETURN_IF_ERROR(data_->Health());
  return tensor_ == nullptr ? absl::OkStatus() : tensor_->Health();
}

absl::Status Await(const Event& event, MeshAxes axes) {
  constexpr std::chrono::microseconds kBetweenLooks(50);
  while (!event.is_done()) {
    RETURN_IF_ERROR(axes.Health());
    std::this_thread::sleep_for(kBetweenLooks);
  }
  return axes.Health();
}

}  // namespace panthera
