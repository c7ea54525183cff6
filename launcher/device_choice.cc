#include "launcher/device_choice.h"

#include <unistd.h>

#include <algorithm>
#include <array>
#include <map>
#include <set>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "absl/strings/str_join.h"
#include "absl/strings/str_split.h"

#include "runtime/base/check.h"
#include "runtime/device/cuda_device.h"

namespace panthera {
namespace {

VisibleGpus FindGpus(const DeviceOptions& options) {
  std::array<char, 256> host{};
  (void)gethostname(host.data(), host.size() - 1);
  VisibleGpus found{.host = host.data(), .ids = {}, .why_none = {}};
  if (options.kind == DeviceChoice::kCpu) {
    return found;
  }
  const absl::StatusOr<int> count = CountCudaDevices();
  if (count.ok()) {
    found.ids = CudaDeviceIds(*count);
  } else {
    found.why_none = std::string(count.status().message());
  }
  return found;
}

// One line for the host, one for the reason, one for each GPU; none of them holds a line break.
std::string Encode(const VisibleGpus& found) {
  std::vector<std::string> lines = {found.host, found.why_none};
  lines.insert(lines.end(), found.ids.begin(), found.ids.end());
  return absl::StrJoin(lines, "\n");
}

VisibleGpus Decode(const std::string& bytes) {
  const std::vector<std::string> lines = absl::StrSplit(bytes, '\n');
  CHECK_GE(lines.size(), 2u);
  return {.host = lines[0], .ids = {lines.begin() + 2, lines.end()}, .why_none = lines[1]};
}

absl::Status TooFewGpus(const std::string& host, std::span<const VisibleGpus> ranks) {
  int64_t workers = 0;
  std::set<std::string> gpus;
  for (const VisibleGpus& rank : ranks) {
    if (rank.host == host) {
      ++workers;
      gpus.insert(rank.ids.begin(), rank.ids.end());
    }
  }
  return absl::FailedPreconditionError(absl::StrFormat(
      "host %s: %d workers but %d GPU%s; start one worker for each GPU, or let workers share them, "
      "which is slow, with --set device.sharing=mpi",
      host, workers, gpus.size(), gpus.size() == 1 ? "" : "s"));
}

}  // namespace

std::vector<VisibleGpus> GatherVisibleGpus(HostGroup& host, const DeviceOptions& options) {
  std::vector<VisibleGpus> ranks;
  for (const std::string& bytes : host.AllGather(Encode(FindGpus(options)))) {
    ranks.push_back(Decode(bytes));
  }
  return ranks;
}

absl::StatusOr<DeviceAssignment> AssignDevices(const DeviceOptions& options,
                                               std::span<const VisibleGpus> ranks) {
  DeviceAssignment assignment;
  assignment.devices.resize(ranks.size());
  const auto has_gpus = [](const VisibleGpus& rank) { return !rank.ids.empty(); };
  const auto with = std::find_if(ranks.begin(), ranks.end(), has_gpus);
  const auto without = std::find_if_not(ranks.begin(), ranks.end(), has_gpus);
  if (options.kind == DeviceChoice::kCpu ||
      (options.kind == DeviceChoice::kAuto && with == ranks.end())) {
    return assignment;
  }
  if (with == ranks.end()) {
    return absl::FailedPreconditionError(without->why_none);
  }
  if (without != ranks.end()) {
    return absl::FailedPreconditionError(
        absl::StrCat("host ", without->host, ": ", without->why_none, "; host ", with->host,
                     " has GPUs, and all workers of a job compute on the same kind of device"));
  }
  std::map<std::string, int> sharers;
  for (size_t rank = 0; rank < ranks.size(); ++rank) {
    const std::vector<std::string>& ids = ranks[rank].ids;
    const auto chosen = std::min_element(
        ids.begin(), ids.end(),
        [&](const std::string& a, const std::string& b) { return sharers[a] < sharers[b]; });
    const int now = ++sharers[*chosen];
    if (now > 1 && options.sharing == DeviceSharing::kRefuse) {
      return TooFewGpus(ranks[rank].host, ranks);
    }
    assignment.devices[rank] = {DeviceKind::kCuda, static_cast<int>(chosen - ids.begin())};
    assignment.most_sharers = std::max(assignment.most_sharers, now);
  }
  return assignment;
}

std::string MoreGpusHint(int gpus, std::span<const std::string> arguments) {
  if (gpus <= 1) {
    return "";
  }
  return absl::StrFormat(
      "this host has %d GPUs, of which one worker uses one; to use all: mpirun "
      "-np %d panthera %s",
      gpus, gpus, absl::StrJoin(arguments, " "));
}

}  // namespace panthera
