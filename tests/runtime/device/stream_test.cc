#include "runtime/device/stream.h"

#include <cstdint>
#include <vector>

#include <gtest/gtest.h>

#include "runtime/device/buffer.h"
#include "tests/support/devices.h"

namespace panthera {
namespace {

constexpr int64_t kCount = 1000;

// A device with two arrays on it and one on the host, from and to which it copies.
class StreamTest : public ::testing::TestWithParam<Device> {
 protected:
  Buffer OnDevice(const char* name) {
    return {GetParam(), ledger_, MemoryCategory::kData, name, kCount * SizeOf(DType::kF32)};
  }
  Buffer OnHost(const char* name) {
    return Buffer::Pinned(GetParam(), ledger_, MemoryCategory::kData, name,
                          kCount * SizeOf(DType::kF32));
  }
  static Tensor All(const Buffer& buffer) { return buffer.View({kCount}, DType::kF32); }
  static std::vector<float> Values(const Tensor& host) {
    return {host.data<float>(), host.data<float>() + kCount};
  }
  // A host array of value, value + 1, ...
  Buffer Count(float value) {
    Buffer host = OnHost("numbers");
    for (int64_t i = 0; i < kCount; ++i) {
      All(host).data<float>()[i] = value + static_cast<float>(i);
    }
    return host;
  }

  MemoryLedger ledger_;
};

TEST_P(StreamTest, MemoryOfADeviceIsZeroed) {
  Stream stream(GetParam());
  const Buffer device = OnDevice("device");
  const Buffer host = Count(1);
  Copy(stream, All(device), All(host));
  stream.Synchronize();
  EXPECT_EQ(Values(All(host)), std::vector<float>(kCount, 0.0F));
}

TEST_P(StreamTest, CopiesGoThereAndBack) {
  Stream stream(GetParam());
  const Buffer from = Count(5);
  const Buffer device = OnDevice("device");
  const Buffer to = OnHost("back");
  Copy(stream, All(from), All(device));
  Copy(stream, All(device), All(to));
  stream.Synchronize();
  EXPECT_EQ(Values(All(to)), Values(All(from)));
}

TEST_P(StreamTest, WorkAfterAWaitSeesWhatCameBeforeTheEvent) {
  Stream producer(GetParam());
  Stream consumer(GetParam());
  Event produced(GetParam());
  const Buffer from = Count(7);
  const Buffer device = OnDevice("device");
  const Buffer to = OnHost("seen");
  Copy(producer, All(from), All(device));
  produced.Record(producer);
  consumer.WaitFor(produced);
  Copy(consumer, All(device), All(to));
  consumer.Synchronize();
  EXPECT_EQ(Values(All(to)), Values(All(from)));
  EXPECT_TRUE(produced.is_done());
}

TEST_P(StreamTest, TheHostCanWaitForAnEvent) {
  Stream stream(GetParam());
  Event done(GetParam());
  const Buffer from = Count(9);
  const Buffer device = OnDevice("device");
  const Buffer to = OnHost("back");
  Copy(stream, All(from), All(device));
  Copy(stream, All(device), All(to));
  done.Record(stream);
  done.Synchronize();
  EXPECT_EQ(Values(All(to)), Values(All(from)));
}

TEST_P(StreamTest, MeasuresTheTimeBetweenEvents) {
  Stream stream(GetParam());
  Event begin(GetParam(), cuda::Timing::kMeasured);
  Event end(GetParam(), cuda::Timing::kMeasured);
  begin.Record(stream);
  end.Record(stream);
  end.Synchronize();
  EXPECT_GE(end.MillisecondsSince(begin), 0.0F);
}

TEST_P(StreamTest, PinnedMemoryIsInTheLedgerAndTheHosts) {
  const Buffer host = OnHost("staging");
  EXPECT_TRUE(host.device().is_cpu());
  EXPECT_EQ(ledger_.bytes(MemoryCategory::kData), kCount * SizeOf(DType::kF32));
  EXPECT_EQ(Values(All(host)), std::vector<float>(kCount, 0.0F));
}

INSTANTIATE_TEST_SUITE_P(Devices, StreamTest, ::testing::ValuesIn(testing::ComputeDevices()),
                         testing::DeviceName);

TEST(MetaStreamTest, CopiesNothing) {
  constexpr Device kMeta{DeviceKind::kMeta, 0};
  Stream stream(kMeta);
  const Tensor nowhere(nullptr, {kCount}, DType::kF32, kMeta);
  Copy(stream, nowhere, nowhere);
}

}  // namespace
}  // namespace panthera
