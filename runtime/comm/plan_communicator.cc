#include "runtime/comm/plan_communicator.h"

#include "runtime/base/check.h"

namespace panthera {

// Communicator's verbs do all that can be done without data and come here only with a real device.
void PlanCommunicator::DoAllToAll(const Tensor& send, Tensor, Stream&) {
  CHECK(send.device().is_meta()) << "a plan has no peers to exchange data of " << send.device();
}

void PlanCommunicator::DoAllGather(const Tensor& shard, Tensor, Stream&) {
  CHECK(shard.device().is_meta()) << "a plan has no peers to exchange data of " << shard.device();
}

void PlanCommunicator::DoBroadcast(Tensor buffer, int, Stream&) {
  CHECK(buffer.device().is_meta()) << "a plan has no peers to exchange data of " << buffer.device();
}

PlanHostGroup::PlanHostGroup(int rank, int size) : rank_(rank), size_(size) {
  CHECK_GE(rank, 0);
  CHECK_LT(rank, size);
}

std::vector<std::string> PlanHostGroup::AllGather(const std::string& bytes) {
  return std::vector<std::string>(static_cast<size_t>(size_), bytes);
}

std::string PlanHostGroup::Broadcast(const std::string& bytes, int root) {
  CHECK_GE(root, 0);
  CHECK_LT(root, size_);
  return bytes;
}

}  // namespace panthera
