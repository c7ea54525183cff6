#include "tests/runtime/comm/communicator_conformance.h"

#include <algorithm>
#include <cstdint>
#include <iterator>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "absl/functional/function_ref.h"
#include "absl/status/status.h"
#include "gtest/gtest.h"

#include "runtime/comm/reduce.h"
#include "tests/runtime/comm/traveling_tensor.h"

namespace panthera::testing {
namespace {

constexpr DType kDTypes[] = {DType::kF32, DType::kBF16, DType::kF64,
                             DType::kI64, DType::kI32,  DType::kU8};

void ForEachTypeAndLength(absl::FunctionRef<void(DType, int64_t)> body) {
  for (const DType dtype : kDTypes) {
    for (const int64_t length : {0, 1, 7, 1031}) {
      SCOPED_TRACE(::testing::Message() << length << " of " << dtype);
      body(dtype, length);
    }
  }
  body(DType::kF32, 200'003);
}

void AllToAllTransposesRows(RankWorld& world) {
  Communicator& comm = world.communicator();
  ForEachTypeAndLength([&](DType dtype, int64_t length) {
    const Shape shape{comm.size(), length};
    TravelingTensor send(comm, world.ledger(), shape, dtype, world.device());
    TravelingTensor recv(comm, world.ledger(), shape, dtype, world.device());
    for (int r = 0; r < comm.size(); ++r) {
      FillRow(send.tensor.Slice(r, r + 1), comm.rank(), r, world.stream());
    }
    comm.AllToAll(send.tensor, recv.tensor, world.stream());
    for (int r = 0; r < comm.size(); ++r) {
      EXPECT_EQ(WrongBytes(recv.tensor.Slice(r, r + 1), r, comm.rank(), world.stream()), 0)
          << "from rank " << r;
      EXPECT_EQ(WrongBytes(send.tensor.Slice(r, r + 1), comm.rank(), r, world.stream()), 0)
          << "sent to " << r;
    }
  });
}

void ExpectGathered(RankWorld& world, const Tensor& full) {
  for (int64_t r = 0; r < full.size(0); ++r) {
    EXPECT_EQ(WrongBytes(full.Slice(r, r + 1), static_cast<int>(r), 0, world.stream()), 0)
        << "row " << r;
  }
}

void AllGatherCollectsShardsInRankOrder(RankWorld& world) {
  Communicator& comm = world.communicator();
  ForEachTypeAndLength([&](DType dtype, int64_t length) {
    TravelingTensor shard(comm, world.ledger(), {length, 1}, dtype, world.device());
    TravelingTensor full(comm, world.ledger(), {comm.size(), length}, dtype, world.device());
    FillRow(shard.tensor, comm.rank(), 0, world.stream());
    comm.AllGather(shard.tensor, full.tensor, world.stream());
    ExpectGathered(world, full.tensor);
    EXPECT_EQ(WrongBytes(shard.tensor, comm.rank(), 0, world.stream()), 0);
  });
}

void AllGatherTakesTheShardFromItsOwnRow(RankWorld& world) {
  Communicator& comm = world.communicator();
  ForEachTypeAndLength([&](DType dtype, int64_t length) {
    TravelingTensor full(comm, world.ledger(), {comm.size(), length}, dtype, world.device());
    const Tensor shard = full.tensor.Slice(comm.rank(), comm.rank() + 1);
    FillRow(shard, comm.rank(), 0, world.stream());
    comm.AllGather(shard, full.tensor, world.stream());
    ExpectGathered(world, full.tensor);
  });
}

void BroadcastCopiesFromEveryRoot(RankWorld& world) {
  Communicator& comm = world.communicator();
  ForEachTypeAndLength([&](DType dtype, int64_t length) {
    TravelingTensor buffer(comm, world.ledger(), {length}, dtype, world.device());
    for (int root = 0; root < comm.size(); ++root) {
      FillRow(buffer.tensor, comm.rank(), root, world.stream());
      comm.Broadcast(buffer.tensor, root, world.stream());
      EXPECT_EQ(WrongBytes(buffer.tensor, root, root, world.stream()), 0) << "root " << root;
    }
  });
}

// When a call returns, its memory may be written again: peers must have their copy.
void CallsLeaveMemoryFreeForTheNext(RankWorld& world) {
  Communicator& comm = world.communicator();
  const Shape shape{comm.size(), 33};
  TravelingTensor send(comm, world.ledger(), shape, DType::kBF16, world.device());
  TravelingTensor recv(comm, world.ledger(), shape, DType::kBF16, world.device());
  for (int round = 0; round < 100; ++round) {
    for (int r = 0; r < comm.size(); ++r) {
      FillRow(send.tensor.Slice(r, r + 1), comm.rank() + round, r, world.stream());
    }
    comm.AllToAll(send.tensor, recv.tensor, world.stream());
    for (int r = 0; r < comm.size(); ++r) {
      EXPECT_EQ(WrongBytes(recv.tensor.Slice(r, r + 1), r + round, comm.rank(), world.stream()), 0);
    }
    const Tensor shard = send.tensor.Slice(0, 1);
    FillRow(shard, comm.rank(), 0, world.stream());
    comm.AllGather(shard, recv.tensor, world.stream());
    FillRow(shard, 77, 77, world.stream());
    ExpectGathered(world, recv.tensor);
  }
}

// A chain of calls and copies without the host waiting in between: every call sees what was
// enqueued before it, and what is enqueued after it sees its data and cannot disturb it.
void CallsAreOrderedWithTheStreamsOtherWork(RankWorld& world) {
  constexpr int64_t kLength = 500;
  Communicator& comm = world.communicator();
  Stream& stream = world.stream();
  const Shape shape{comm.size(), kLength};
  const auto on_device = [&] {
    return TravelingTensor(comm, world.ledger(), shape, DType::kU8, world.device());
  };
  const auto on_host = [&](const char* name) {
    return Buffer::Pinned(world.device(), world.ledger(), MemoryCategory::kCommunication, name,
                          shape.elements());
  };
  const Buffer source = on_host("source");
  const Buffer zeros = on_host("zeros");
  const Buffer transposed = on_host("transposed");
  const Buffer gathered = on_host("gathered");
  const Buffer broadcast = on_host("broadcast");
  const auto all = [&](const Buffer& buffer) { return buffer.View(shape, DType::kU8); };
  Stream host_stream(Device{});
  for (int r = 0; r < comm.size(); ++r) {
    FillRow(all(source).Slice(r, r + 1), comm.rank(), r, host_stream);
  }
  const TravelingTensor a = on_device();
  const TravelingTensor b = on_device();
  const TravelingTensor c = on_device();
  const auto own = [&](const TravelingTensor& rows) {
    return rows.tensor.Slice(comm.rank(), comm.rank() + 1);
  };
  const int root = comm.size() - 1;

  Copy(stream, all(source), a.tensor);
  comm.AllToAll(a.tensor, b.tensor, stream);
  Copy(stream, all(zeros), a.tensor);
  Copy(stream, b.tensor, all(transposed));
  comm.AllGather(own(b), c.tensor, stream);
  Copy(stream, all(zeros), b.tensor);
  Copy(stream, c.tensor, all(gathered));
  Copy(stream, own(c), own(b));
  comm.Broadcast(own(b), root, stream);
  Copy(stream, own(b), all(broadcast).Slice(0, 1));
  stream.Synchronize();

  for (int r = 0; r < comm.size(); ++r) {
    EXPECT_EQ(WrongBytes(all(transposed).Slice(r, r + 1), r, comm.rank(), host_stream), 0) << r;
    EXPECT_EQ(WrongBytes(all(gathered).Slice(r, r + 1), r, r, host_stream), 0) << r;
  }
  EXPECT_EQ(WrongBytes(all(broadcast).Slice(0, 1), root, root, host_stream), 0);
}

void IsHealthyWhileAllRanksAreThere(RankWorld& world) {
  EXPECT_TRUE(world.communicator().Health().ok());
  TravelingTensor buffer(world.communicator(), world.ledger(), {5}, DType::kF32, world.device());
  world.communicator().Broadcast(buffer.tensor, 0, world.stream());
  EXPECT_TRUE(world.communicator().Health().ok());
  world.stream().Synchronize();
  EXPECT_TRUE(world.communicator().Health().ok());
}

// Runs each verb once on rows of 10 floats and compares the counter with the contract's formula.
void ExpectTraffic(RankWorld& world, Device device, Stream& stream) {
  Communicator& comm = world.communicator();
  const int64_t peers = comm.size() - 1;
  const Shape shape{comm.size(), 10};
  const Buffer send = comm.Allocate(device, world.ledger(), MemoryCategory::kCommunication, "send",
                                    shape.elements() * 4);
  const Buffer recv = comm.Allocate(device, world.ledger(), MemoryCategory::kCommunication, "recv",
                                    shape.elements() * 4);
  const Tensor from = send.View(shape, DType::kF32);
  const Tensor to = recv.View(shape, DType::kF32);

  int64_t before = comm.bytes_sent();
  comm.AllToAll(from, to, stream);
  EXPECT_EQ(comm.bytes_sent() - before, peers * 10 * 4);
  before = comm.bytes_sent();
  comm.AllGather(from.Slice(0, 1), to, stream);
  EXPECT_EQ(comm.bytes_sent() - before, peers * 10 * 4);
  before = comm.bytes_sent();
  const int root = comm.size() - 1;
  comm.Broadcast(from, root, stream);
  const bool sends = comm.rank() == root && peers > 0;
  EXPECT_EQ(comm.bytes_sent() - before, sends ? from.bytes() : 0);
}

void CountsTheBytesItSends(RankWorld& world) {
  ExpectTraffic(world, world.device(), world.stream());
}

void MetaCallsOnlyCount(RankWorld& world) {
  const Device meta{DeviceKind::kMeta, 0};
  Stream stream(meta);
  ExpectTraffic(world, meta, stream);
  double value = 3.5;
  AllReduceSum(world.communicator(), {&value, 1}, stream);
  EXPECT_EQ(value, 3.5);
  uint8_t flag = 9;
  AllReduceOr(world.communicator(), {&flag, 1}, stream);
  EXPECT_EQ(flag, 9);
}

// The mesh's two axes at once: neighbours in pairs (the last may be alone), and their partners.
void SplitAxesAreIndependent(RankWorld& world) {
  const int pair = world.rank() / 2;
  const int place = world.rank() % 2;
  const std::unique_ptr<Communicator> across = world.Split(pair);
  const std::unique_ptr<Communicator> along = world.Split(place);
  ASSERT_EQ(across->rank(), place);
  ASSERT_EQ(across->size(), 2 * pair + 1 < world.size() ? 2 : 1);
  ASSERT_EQ(along->rank(), pair);
  ASSERT_EQ(along->size(), place == 0 ? (world.size() + 1) / 2 : world.size() / 2);
  const std::pair<Communicator*, int> axes[] = {{across.get(), 1}, {along.get(), 2}};
  for (int round = 0; round < 10; ++round) {
    for (const auto& [axis, stride] : axes) {
      TravelingTensor full(*axis, world.ledger(), {axis->size(), 21}, DType::kF32, world.device());
      const Tensor own = full.tensor.Slice(axis->rank(), axis->rank() + 1);
      FillRow(own, world.rank(), 0, world.stream());
      axis->AllGather(own, full.tensor, world.stream());
      const int first = world.rank() - axis->rank() * stride;
      for (int r = 0; r < axis->size(); ++r) {
        EXPECT_EQ(WrongBytes(full.tensor.Slice(r, r + 1), first + r * stride, 0, world.stream()),
                  0);
      }
    }
  }
}

// Rank 0 says nothing, rank r says 1,000 r times its own letter.
std::string Saying(int rank) {
  return std::string(static_cast<size_t>(1000 * rank), static_cast<char>('a' + rank));
}

void HostAllGatherKeepsEachLength(RankWorld& world) {
  const std::vector<std::string> all = world.host().AllGather(Saying(world.rank()));
  ASSERT_EQ(all.size(), static_cast<size_t>(world.size()));
  for (int r = 0; r < world.size(); ++r) {
    EXPECT_EQ(all[static_cast<size_t>(r)], Saying(r));
  }
  const std::string zeros("\0x\0", 3);
  EXPECT_EQ(world.host().AllGather(zeros).back(), zeros);
}

void HostAllGatherOfNothingGivesEmptyStrings(RankWorld& world) {
  EXPECT_EQ(world.host().AllGather(""),
            std::vector<std::string>(static_cast<size_t>(world.size())));
}

void HostBroadcastCopiesFromEveryRoot(RankWorld& world) {
  for (int root = 0; root < world.size(); ++root) {
    world.Meet();
    EXPECT_EQ(world.host().Broadcast(Saying(world.rank()), root), Saying(root));
  }
}

void AllGatherValueReturnsEveryRanksValue(RankWorld& world) {
  const std::vector<double> values = AllGatherValue(world.host(), 0.5 * world.rank());
  ASSERT_EQ(values.size(), static_cast<size_t>(world.size()));
  for (int r = 0; r < world.size(); ++r) {
    EXPECT_EQ(values[static_cast<size_t>(r)], 0.5 * r);
  }
}

void AgreeReturnsTheErrorOfTheLowestRank(RankWorld& world) {
  EXPECT_TRUE(Agree(world.host(), absl::OkStatus()).ok());
  for (int first = 0; first < world.size(); ++first) {
    const absl::Status own = world.rank() < first
                                 ? absl::OkStatus()
                                 : absl::NotFoundError("rank " + std::to_string(world.rank()));
    EXPECT_EQ(Agree(world.host(), own), absl::NotFoundError("rank " + std::to_string(first)));
  }
}

// Terms of very different size: every other order of summation gives other bits.
void AllReduceSumAddsInRankOrder(RankWorld& world) {
  const auto term = [](int rank, int i) {
    return (rank % 2 == 0 ? 1e16 : -1e16) * (rank / 2 + 1) + 0.1 * (rank + 1) * (i + 1);
  };
  double values[3];
  double expected[3];
  for (int i = 0; i < 3; ++i) {
    values[i] = term(world.rank(), i);
    expected[i] = term(0, i);
    for (int r = 1; r < world.size(); ++r) {
      expected[i] += term(r, i);
    }
  }
  AllReduceSum(world.communicator(), values, world.stream());
  for (int i = 0; i < 3; ++i) {
    EXPECT_EQ(values[i], expected[i]);
  }
}

void AllReduceOrRaisesAFlagThatAnyRankRaises(RankWorld& world) {
  for (int raiser = 0; raiser < world.size(); ++raiser) {
    uint8_t flags[3] = {0, static_cast<uint8_t>(world.rank() == raiser ? 4 : 0), 1};
    AllReduceOr(world.communicator(), flags, world.stream());
    EXPECT_EQ(flags[0], 0);
    EXPECT_EQ(flags[1], 1);
    EXPECT_EQ(flags[2], 1);
  }
}

#define TENSOR_CASE(name) \
  { #name, name, ConformanceCase::Moves::kTensors }
#define HOST_CASE(name) \
  { #name, name, ConformanceCase::Moves::kHostValues }
constexpr ConformanceCase kCases[] = {
    TENSOR_CASE(AllToAllTransposesRows),
    TENSOR_CASE(AllGatherCollectsShardsInRankOrder),
    TENSOR_CASE(AllGatherTakesTheShardFromItsOwnRow),
    TENSOR_CASE(BroadcastCopiesFromEveryRoot),
    TENSOR_CASE(CallsLeaveMemoryFreeForTheNext),
    TENSOR_CASE(CallsAreOrderedWithTheStreamsOtherWork),
    TENSOR_CASE(IsHealthyWhileAllRanksAreThere),
    TENSOR_CASE(CountsTheBytesItSends),
    TENSOR_CASE(MetaCallsOnlyCount),
    TENSOR_CASE(SplitAxesAreIndependent),
    HOST_CASE(HostAllGatherKeepsEachLength),
    HOST_CASE(HostAllGatherOfNothingGivesEmptyStrings),
    HOST_CASE(HostBroadcastCopiesFromEveryRoot),
    HOST_CASE(AllGatherValueReturnsEveryRanksValue),
    HOST_CASE(AgreeReturnsTheErrorOfTheLowestRank),
    HOST_CASE(AllReduceSumAddsInRankOrder),
    HOST_CASE(AllReduceOrRaisesAFlagThatAnyRankRaises),
};

}  // namespace

std::vector<ConformanceCase> ConformanceCases() { return {std::begin(kCases), std::end(kCases)}; }

std::vector<ConformanceCase> TensorConformanceCases() {
  std::vector<ConformanceCase> cases;
  std::copy_if(
      std::begin(kCases), std::end(kCases), std::back_inserter(cases),
      [](const ConformanceCase& each) { return each.moves == ConformanceCase::Moves::kTensors; });
  return cases;
}

}  // namespace panthera::testing
