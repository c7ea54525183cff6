#ifndef PANTHERA_RUNTIME_COMM_HOST_GROUP_H_
#define PANTHERA_RUNTIME_COMM_HOST_GROUP_H_

#include <cstring>
#include <string>
#include <type_traits>
#include <vector>

#include "absl/status/status.h"

#include "runtime/base/check.h"

namespace panthera {

// The control plane of all ranks of a job: small messages between hosts, outside the step. Every
// rank must issue the same calls in the same order. Every call may block on the peers.
class HostGroup {
 public:
  HostGroup() = default;
  HostGroup(const HostGroup&) = delete;
  HostGroup& operator=(const HostGroup&) = delete;
  virtual ~HostGroup() = default;

  virtual int rank() const = 0;
  virtual int size() const = 0;
  // Every rank's bytes, in rank order, on every rank. Lengths may differ.
  virtual std::vector<std::string> AllGather(const std::string& bytes) = 0;
  // Rank `root`'s bytes on every rank.
  virtual std::string Broadcast(const std::string& bytes, int root) = 0;
};

// OK on every rank if `status` is OK on every rank; otherwise, on every rank, the error of the
// lowest rank that has one. Ranks that disagree about going on would wait for each other for ever:
// every decision that rests on a rank's own view of files or memory passes through here.
absl::Status Agree(HostGroup& group, const absl::Status& status);

// Every rank's value, in rank order. T is a number or a struct without pointers; all ranks run the
// same binary, so its bytes mean the same everywhere.
template <typename T>
std::vector<T> AllGatherValue(HostGroup& group, const T& value) {
  static_assert(std::is_trivially_copyable_v<T>);
  const std::vector<std::string> all =
      group.AllGather(std::string(reinterpret_cast<const char*>(&value), sizeof(T)));
  std::vector<T> values(all.size());
  for (size_t r = 0; r < all.size(); ++r) {
    CHECK_EQ(all[r].size(), sizeof(T)) << "from rank " << r;
    std::memcpy(&values[r], all[r].data(), sizeof(T));
  }
  return values;
}

}  // namespace panthera

#endif  // PANTHERA_RUNTIME_COMM_HOST_GROUP_H_
