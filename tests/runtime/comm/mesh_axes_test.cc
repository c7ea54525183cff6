#include "runtime/comm/mesh_axes.h"

#include "absl/status/status.h"
#include "gtest/gtest.h"

#include "runtime/comm/self_communicator.h"
#include "runtime/device/stream.h"

namespace panthera {
namespace {

// A communicator that has lost a peer.
class LostCommunicator final : public Communicator {
 public:
  LostCommunicator() : Communicator(/*rank=*/0, /*size=*/2) {}

  absl::Status Health() override { return absl::UnavailableError("rank 1 is gone"); }

 private:
  void DoAllToAll(const Tensor& /*send*/, Tensor /*recv*/, Stream& /*stream*/) override {}
  void DoAllGather(const Tensor& /*shard*/, Tensor /*full*/, Stream& /*stream*/) override {}
  void DoBroadcast(Tensor /*buffer*/, int /*root*/, Stream& /*stream*/) override {}
};

TEST(MeshAxesTest, OneAxisHasNoTensorPeers) {
  LostCommunicator data;
  const MeshAxes axes = data;
  EXPECT_EQ(&axes.data(), &data);
  EXPECT_EQ(axes.tensor_size(), 1);
  EXPECT_EQ(axes.tensor_rank(), 0);
}

TEST(AwaitTest, TellsOfPeersThatWereLostOnEitherAxis) {
  SelfCommunicator self;
  LostCommunicator lost;
  Stream stream(Device{});
  Event done(Device{});
  done.Record(stream);
  EXPECT_EQ(Await(done, self), absl::OkStatus());
  EXPECT_EQ(Await(done, MeshAxes(self, self)), absl::OkStatus());
  const absl::Status gone = absl::UnavailableError("rank 1 is gone");
  EXPECT_EQ(Await(done, lost), gone);
  EXPECT_EQ(Await(done, MeshAxes(lost, self)), gone);
  EXPECT_EQ(Await(done, MeshAxes(self, lost)), gone);
}

}  // namespace
}  // namespace panthera
