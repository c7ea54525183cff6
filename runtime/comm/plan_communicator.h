#ifndef PANTHERA_RUNTIME_COMM_PLAN_COMMUNICATOR_H_
#define PANTHERA_RUNTIME_COMM_PLAN_COMMUNICATOR_H_

#include <string>
#include <vector>

#include "runtime/comm/communicator.h"
#include "runtime/comm/host_group.h"

namespace panthera {

// Claims to be rank `rank` of `size` so that a step of kMeta can be planned by one process. It
// counts the traffic; a call with tensors of a real device aborts unless the size is 1.
class PlanCommunicator final : public Communicator {
 public:
  PlanCommunicator(int rank, int size) : Communicator(rank, size) {}

 private:
  void DoAllToAll(const Tensor& send, Tensor recv, Stream& stream) override;
  void DoAllGather(const Tensor& shard, Tensor full, Stream& stream) override;
  void DoBroadcast(Tensor buffer, int root, Stream& stream) override;
};

// The control plane of a planned job: every rank is taken to say what this one says.
class PlanHostGroup final : public HostGroup {
 public:
  PlanHostGroup(int rank, int size);

  int rank() const override { return rank_; }
  int size() const override { return size_; }
  std::vector<std::string> AllGather(const std::string& bytes) override;
  std::string Broadcast(const std::string& bytes, int root) override;

 private:
  int rank_;
  int size_;
};

}  // namespace panthera

#endif  // PANTHERA_RUNTIME_COMM_PLAN_COMMUNICATOR_H_
