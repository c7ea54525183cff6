#ifndef PANTHERA_RUNTIME_COMM_SELF_COMMUNICATOR_H_
#define PANTHERA_RUNTIME_COMM_SELF_COMMUNICATOR_H_

#include <string>
#include <vector>

#include "runtime/comm/communicator.h"
#include "runtime/comm/host_group.h"

namespace panthera {

// An axis of one rank.
class SelfCommunicator final : public Communicator {
 public:
  SelfCommunicator() : Communicator(/*rank=*/0, /*size=*/1) {}

 private:
  void DoAllToAll(const Tensor& send, Tensor recv, Stream& stream) override;
  void DoAllGather(const Tensor& shard, Tensor full, Stream& stream) override;
  void DoBroadcast(Tensor buffer, int root, Stream& stream) override;
};

// A job of one rank.
class SelfHostGroup final : public HostGroup {
 public:
  int rank() const override { return 0; }
  int size() const override { return 1; }
  std::vector<std::string> AllGather(const std::string& bytes) override { return {bytes}; }
  std::string Broadcast(const std::string& bytes, int root) override;
};

}  // namespace panthera

#endif  // PANTHERA_RUNTIME_COMM_SELF_COMMUNICATOR_H_
