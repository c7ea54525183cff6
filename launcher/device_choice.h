// Which device each worker of a job computes on.
#ifndef PANTHERA_LAUNCHER_DEVICE_CHOICE_H_
#define PANTHERA_LAUNCHER_DEVICE_CHOICE_H_

#include <cstdint>
#include <span>
#include <string>
#include <vector>

#include "absl/status/statusor.h"

#include "launcher/run_options.h"
#include "runtime/comm/host_group.h"
#include "runtime/device/device.h"

namespace panthera {

// What one worker finds on its host.
struct VisibleGpus {
  std::string host;
  // By ordinal, what tells each GPU from all others of the job. A launcher may have given every
  // worker a GPU of its own, so two workers' ordinals 0 need not be the same.
  std::vector<std::string> ids;
  // Where there is none: why, and what to do.
  std::string why_none;
};

struct DeviceAssignment {
  // By rank.
  std::vector<Device> devices;
  // The most workers that compute on one GPU; 1 on CPUs.
  int most_sharers = 1;
};

// What every worker of the job finds, by rank. Looks for GPUs only where `options` may use them.
// Blocks on all ranks.
std::vector<VisibleGpus> GatherVisibleGpus(HostGroup& host, const DeviceOptions& options);

// Gives each worker, in the order of ranks, the GPU that it sees and the fewest others use; of
// equals the one with the lowest ordinal: so workers of a host who see the same GPUs take them in
// turn. An error where kinds of devices would differ between workers, where GPUs are asked for and
// there is none, or where workers would share a GPU against options.sharing; it names the host and
// what to do. All ranks have the same arguments and get the same result.
absl::StatusOr<DeviceAssignment> AssignDevices(const DeviceOptions& options,
                                               std::span<const VisibleGpus> ranks);

// For a worker that was started alone on a host with `gpus` of them: the line that tells how to use
// them all, with the program's `arguments`; "" where it uses all there are.
std::string MoreGpusHint(int gpus, std::span<const std::string> arguments);

}  // namespace panthera

#endif  // PANTHERA_LAUNCHER_DEVICE_CHOICE_H_
