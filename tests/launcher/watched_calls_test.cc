#include "launcher/watched_calls.h"

#include <memory>

#include "absl/status/status.h"
#include "gtest/gtest.h"

namespace panthera {
namespace {

// A communicator that has lost a peer.
class LostCommunicator final : public Communicator {
 public:
  LostCommunicator() : Communicator(/*rank=*/0, /*size=*/2) {}

  absl::Status Health() override { return absl::UnavailableError("rank 1 is gone"); }

 private:
  void DoAllToAll(const Tensor&, Tensor, Stream&) override {}
  void DoAllGather(const Tensor&, Tensor, Stream&) override {}
  void DoBroadcast(Tensor, int, Stream&) override {}
};

TEST(WatchedCommunicatorTest, IsAsHealthyAsTheOneItWatches) {
  Progress progress;
  const std::unique_ptr<Communicator> watched =
      WatchCalls(std::make_unique<LostCommunicator>(), progress);
  EXPECT_EQ(watched->Health(), absl::UnavailableError("rank 1 is gone"));
}

TEST(WatchedCommunicatorTest, TellsOfEveryCall) {
  Progress progress;
  const std::unique_ptr<Communicator> watched =
      WatchCalls(std::make_unique<LostCommunicator>(), progress);
  Stream stream(Device{});
  float values[2] = {};
  const Tensor all(values, {2, 1}, DType::kF32, Device{});
  watched->AllGather(all.Slice(0, 1), all, stream);
  watched->Broadcast(all, 1, stream);
  EXPECT_EQ(progress.Now().calls, 2);
  EXPECT_FALSE(progress.Now().waits_for_peers());
}

}  // namespace
}  // namespace panthera
