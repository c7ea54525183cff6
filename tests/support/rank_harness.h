// Ranks for tests of distributed code: as threads of the test process, or as the processes of an
// mpirun (mpi_test_main.h). The body of a test is the same for both.
#ifndef PANTHERA_TESTS_SUPPORT_RANK_HARNESS_H_
#define PANTHERA_TESTS_SUPPORT_RANK_HARNESS_H_

#include <chrono>
#include <functional>
#include <memory>
#include <string>

#include "absl/functional/function_ref.h"

#include "runtime/comm/communicator.h"
#include "runtime/comm/host_group.h"
#include "runtime/comm/mesh_axes.h"
#include "runtime/device/memory_ledger.h"
#include "runtime/device/stream.h"

namespace panthera::testing {

// What one rank of a test has.
class RankWorld {
 public:
  using HostGroupFactory = std::function<std::unique_ptr<HostGroup>(int color)>;
  using CommunicatorFactory = std::function<std::unique_ptr<Communicator>(int color)>;

  // Tensors of the test lie on `device`.
  RankWorld(HostGroupFactory host_factory, CommunicatorFactory factory, Device device = {});
  RankWorld(const RankWorld&) = delete;
  RankWorld& operator=(const RankWorld&) = delete;

  int rank() const { return host_->rank(); }
  int size() const { return host_->size(); }

  HostGroup& host() { return *host_; }
  // Returns when every rank has come.
  void Meet() { (void)host_->AllGather(""); }
  // Over all ranks.
  Communicator& communicator() { return *communicator_; }
  // Over the ranks that pass the same color, in the order of their ranks. All ranks must call it.
  std::unique_ptr<Communicator> Split(int color) { return factory_(color); }
  // The same for the control plane.
  std::unique_ptr<HostGroup> SplitHost(int color) { return host_factory_(color); }

  MemoryLedger& ledger() { return ledger_; }
  Device device() const { return stream_.device(); }
  // The device's.
  Stream& stream() { return stream_; }

 private:
  HostGroupFactory host_factory_;
  std::unique_ptr<HostGroup> host_;
  CommunicatorFactory factory_;
  std::unique_ptr<Communicator> communicator_;
  MemoryLedger ledger_;
  Stream stream_;
};

// The axes of a mesh of the ranks of a test.
class MeshWorld {
 public:
  // `tensor_size` neighbouring ranks at a time share each layer. All ranks must call it.
  MeshWorld(RankWorld& world, int tensor_size);

  MeshAxes axes() { return {*data_, *tensor_}; }
  Communicator& data() { return *data_; }
  Communicator& tensor() { return *tensor_; }

 private:
  std::unique_ptr<Communicator> data_;
  std::unique_ptr<Communicator> tensor_;
};

// The same ranks and their communicators, with tensors on another device. All ranks must call it;
// `world` must outlive the result.
RankWorld OnDevice(RankWorld& world, Device device);

using RankBody = absl::FunctionRef<void(RankWorld&)>;

// Runs body on `size` ranks, each a thread of its own with its rank in its log lines and
// ParallelFor on one thread. GoogleTest's assertions in the body count for the calling test; a
// failed ASSERT ends its rank's body. When a rank returns while others wait for it, when ranks
// issue different calls, or when the deadline passes, the waiting ranks are ended (their stacks are
// unwound) and the test fails with the reason.
void RunRanks(int size, RankBody body);

// The same, but returns the reason for which ranks were ended, or "" if every rank ran to its end.
// Ranks that neither finish nor communicate within a grace period after the deadline abort the
// process.
std::string RunRanksFor(std::chrono::seconds deadline, int size, RankBody body);

}  // namespace panthera::testing

#endif  // PANTHERA_TESTS_SUPPORT_RANK_HARNESS_H_
