#ifndef PANTHERA_OPTIM_REPLICA_CHECK_H_
#define PANTHERA_OPTIM_REPLICA_CHECK_H_

#include <cstdint>
#include <string>
#include <vector>

#include "optim/optimizer.h"
#include "runtime/comm/mesh_axes.h"
#include "runtime/device/buffer.h"
#include "runtime/math/context.h"
#include "runtime/params/parameter_store.h"

namespace panthera {

// Bits of a group that are not what they must be.
struct FlippedBits {
  enum class Evidence : uint8_t {
    kOtherRanks,  // the ranks' copies of the same weights differ
    kRecord,      // a rank's own tensor is not what it was when it was recorded
  };

  Evidence evidence = Evidence::kOtherRanks;
  GroupId group;
  // "weights", "low bits", "master weights" or the name of an optimizer state.
  std::string tensor;
  // The ranks of the mesh that hold them, ascending. Of kOtherRanks those that differ from more
  // than half of all that hold the same; where no more than half agree, such as with two ranks, all
  // of them.
  std::vector<int> ranks;

  bool operator==(const FlippedBits&) const = default;
};

// Finds bits of weights and optimizer state that have changed by themselves, by faulty memory or a
// faulty transfer, from hashes of 64 bits (HashWords). Between steps:
//
//   after a step    Record() hashes what this rank alone holds: its shards of weights, low bits and
//                   master weights, and its optimizer state.
//   before the next Find() hashes the same again, and the values of all groups as layers read them
//                   with the low bits that are replicated, and compares the former with the record
//                   and the latter among all ranks that hold the same: data-parallel ranks and,
//                   of replicated groups, tensor-parallel ones.
//
// What is found: any difference between the ranks' copies at the time of Find, so whatever went
// wrong in a copy while or after it was published, and a publication that was missed; and whatever
// changed in a rank's own tensors between Record and Find, while it was evaluated and saved.
//
// What is not: what changes in a rank's own tensors while a step is under way, from Find to the
// next Record. From weights it gets into the next update and is then published to all ranks alike.
// Neither is a copy that is overwritten by the next publication before Find looks at it. With
// PublishMode::kDirection neither of these hides: no weight is ever overwritten by another rank's,
// and one that differs goes on differing until Find looks.
//
// Cost: Record reads this rank's shards and state once, Find once more and all values as well; no
// memory is written but 8 bytes for each tensor. Each sends 8 bytes for each of them to the host,
// and Find to the other ranks.
class ReplicaCheck {
 public:
  // Memory is allocated here, entered as communication. The references must outlive the check; the
  // store must be allocated. `host_axes` connect the same ranks as the store's, and take tensors of
  // the CPU.
  ReplicaCheck(Context& ctx, const ParameterStore& store, const Optimizer& optimizer,
               MeshAxes host_axes);

  // Remembers what this rank's tensors hold after the work that ctx.compute() has so far. Blocks
  // until that is done.
  void Record();
  // What has changed since Record, which must have come before on every rank, and where ranks
  // differ; by evidence and group. The same on data-parallel ranks; tensor-parallel ones have other
  // slices, so that ranks of a mesh must agree whether anything was found. Waits for publications;
  // blocks until the work of ctx.compute() is done, and on the peers. May be called again.
  std::vector<FlippedBits> Find();

 private:
  struct Part {
    GroupId group;
    std::string name;
    Tensor tensor;
  };

  int64_t num_replicas() const { return static_cast<int64_t>(replicas_.size()); }
  int64_t num_parts() const { return static_cast<int64_t>(parts_.size()); }
  // Where the hash of replica i lies, and after all replicas those of parts.
  Tensor hash(int64_t index) const;
  void HashParts();
  void HashReplicas();
  // What the hashes of tensor i on all ranks, less what was recorded of it, say; in order.
  FlippedBits Compare(int64_t index, const std::vector<int64_t>& by_rank) const;
  // Appends what the tensor-parallel ranks' hashes of replicated groups say.
  void CompareReplicatedGroups(const std::vector<int64_t>& read,
                               std::vector<FlippedBits>& found) const;
  int MeshRank(int data_rank, int tensor_rank) const {
    return data_rank * host_axes_.tensor_size() + tensor_rank;
  }

  Context& ctx_;
  const ParameterStore& store_;
  MeshAxes host_axes_;
  std::vector<Part> replicas_;  // what all ranks have alike
  std::vector<Part> parts_;     // of this rank alone
  Buffer memory_;
  Tensor hashes_;                 // [replicas + parts] kI64
  std::vector<int64_t> written_;  // [replicas + parts] of the latest Record, zeros for replicas
};

// "the weights of group block 3 on rank 1 differ from those of the other ranks": what was found
// first, and how much else, in one line without an end. `found` must not be empty.
std::string Describe(const ParameterStore& store, const std::vector<FlippedBits>& found);

}  // namespace panthera

#endif  // PANTHERA_OPTIM_REPLICA_CHECK_H_
