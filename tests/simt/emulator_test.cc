// The emulation itself: kernels that are right give the right result in every order of threads, and
// kernels that are wrong are caught. Races need ThreadSanitizer and wrong addresses
// AddressSanitizer; in other builds those tests are skipped.
#include <cuda_runtime.h>

#include <cmath>
#include <cstdint>
#include <string>
#include <thread>
#include <vector>

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "runtime/device/shared_memory.cuh"
#include "tests/simt/emulator/device_state.h"
#include "tests/simt/emulator/race_detector.h"

namespace panthera {
namespace {

using ::testing::HasSubstr;

#if defined(__SANITIZE_ADDRESS__)
constexpr bool kAddressChecks = true;
#else
constexpr bool kAddressChecks = false;
#endif

// What a kernel leaves out, to see that it is noticed.
enum class Fault {
  kNone,
  kNoBarrierBeforeRead,
  kNoBarrierBeforeReuse,
  kNoCopyWait,
  kOneTooFar,
  kBarrierInBranch,
  kEarlyExit,
  kAbsentLane,
};

constexpr int kThreads = 64;

// out[block] = sum of in[block * n, (block + 1) * n), added in an order that threads do not change.
__global__ void BlockSum(const float* in, float* out, int n, Fault fault) {
  PANTHERA_SHARED_ARRAY(float, sums, kThreads);
  const int thread = static_cast<int>(threadIdx.x);
  const float* row = in + static_cast<int64_t>(blockIdx.x) * n;
  float sum = 0;
  for (int i = thread; i < n; i += kThreads) {
    sum += row[i];
  }
  sums[thread] = sum;
  if (fault == Fault::kOneTooFar && thread == kThreads - 1) {
    sums[thread + 1] = sum;
  }
  if (fault == Fault::kEarlyExit && thread == 3) {
    return;
  }
  if (fault == Fault::kBarrierInBranch && thread >= 32) {
    __syncthreads();
  } else if (fault != Fault::kNoBarrierBeforeRead) {
    __syncthreads();
  }
  if (thread == 0) {
    float total = 0;
    for (int i = 0; i < kThreads; ++i) {
      total += sums[i];
    }
    out[blockIdx.x] = total;
  }
}

// Each warp: out[i] = sum over the warp's 32 values, by shuffles.
__global__ void WarpSums(const float* in, float* out, Fault fault) {
  const unsigned i = blockIdx.x * blockDim.x + threadIdx.x;
  if (fault == Fault::kAbsentLane && threadIdx.x == 5) {
    return;
  }
  float sum = in[i];
  for (int offset = 16; offset > 0; offset /= 2) {
    sum += __shfl_xor_sync(0xffffffffU, sum, offset);
  }
  out[i] = sum;
}

// Two rounds through one shared array: out[i] = in[n - 1 - i] of the same block.
__global__ void ReverseTwice(const float* in, float* out, Fault fault) {
  PANTHERA_SHARED_ARRAY(float, row, kThreads);
  const int thread = static_cast<int>(threadIdx.x);
  const float* block_in = in + static_cast<int64_t>(blockIdx.x) * 2 * kThreads;
  float* block_out = out + static_cast<int64_t>(blockIdx.x) * 2 * kThreads;
  for (int round = 0; round < 2; ++round) {
    row[thread] = block_in[round * kThreads + thread];
    __syncthreads();
    block_out[round * kThreads + thread] = row[kThreads - 1 - thread];
    if (fault != Fault::kNoBarrierBeforeReuse) {
      __syncthreads();
    }
  }
}

// A row through dynamic shared memory by asynchronous copies, two stages ahead of the sum.
__global__ void CopySum(const float* in, float* out, int stages, Fault fault) {
  float* buffers = DynamicShared<float>();
  const int thread = static_cast<int>(threadIdx.x);
  const auto begin = [&](int stage) {
    if (stage < stages) {
      simt::BeginCopy(buffers + stage % 2 * kThreads + thread, in + stage * kThreads + thread,
                      sizeof(float), sizeof(float));
    }
    simt::CommitCopies();
  };
  begin(0);
  float sum = 0;
  for (int stage = 0; stage < stages; ++stage) {
    begin(stage + 1);
    if (fault != Fault::kNoCopyWait) {
      simt::WaitForCopies(1);
    }
    __syncthreads();
    sum += buffers[stage % 2 * kThreads + (thread + 1) % kThreads];
    __syncthreads();
  }
  out[thread] = sum;
}

__global__ void SameCell(float* out) { out[0] = static_cast<float>(blockIdx.x); }

// Device memory of floats, with host copies in and out.
class Floats {
 public:
  explicit Floats(int64_t count) : count_(count) {
    void* memory = nullptr;
    EXPECT_EQ(cudaMalloc(&memory, static_cast<size_t>(count) * sizeof(float)), cudaSuccess);
    data_ = static_cast<float*>(memory);
  }
  Floats(const Floats&) = delete;
  Floats& operator=(const Floats&) = delete;
  ~Floats() { cudaFree(data_); }
  float* data() { return data_; }
  void FillWithSmallIntegers() {
    for (int64_t i = 0; i < count_; ++i) {
      data_[i] = static_cast<float>(i * 7 % 31);
    }
  }
  std::vector<float> Values() const { return {data_, data_ + count_}; }

 private:
  int64_t count_;
  float* data_ = nullptr;
};

class EmulatorTest : public ::testing::Test {
 protected:
  void SetUp() override {
    simt::DeviceState::Get().Reset();
    ASSERT_EQ(cudaStreamCreateWithFlags(&stream_, cudaStreamNonBlocking), cudaSuccess);
  }
  void TearDown() override {
    cudaStreamDestroy(stream_);
    simt::DeviceState::Get().Reset();
  }

  cudaLaunchConfig_t Config(unsigned blocks, unsigned threads, size_t dynamic_bytes = 0) const {
    cudaLaunchConfig_t config;
    config.gridDim = dim3(blocks);
    config.blockDim = dim3(threads);
    config.dynamicSmemBytes = dynamic_bytes;
    config.stream = stream_;
    return config;
  }

  // "" or what the kernel did wrong.
  std::string RunBlockSum(Fault fault, int n = 100) {
    Floats in(3 * n);
    Floats out(3);
    in.FillWithSmallIntegers();
    const cudaLaunchConfig_t config = Config(3, kThreads);
    EXPECT_EQ(cudaLaunchKernelEx(&config, &BlockSum, in.data(), out.data(), n, fault), cudaSuccess);
    const cudaError_t status = cudaStreamSynchronize(stream_);
    sums_ = out.Values();
    in_ = in.Values();
    return status == cudaSuccess ? "" : cudaGetErrorString(status);
  }

  cudaStream_t stream_ = nullptr;
  std::vector<float> in_;
  std::vector<float> sums_;
};

TEST_F(EmulatorTest, BarriersAndSharedMemoryGiveTheSameSumsInEveryOrderOfThreads) {
  constexpr int kCount = 100;
  for (const uint64_t seed : {0U, 1U, 2U, 3U, 4U}) {
    simt::DeviceState::Get().options().order_seed = seed;
    EXPECT_EQ(RunBlockSum(Fault::kNone, kCount), "");
    for (int block = 0; block < 3; ++block) {
      float expected = 0;
      for (int i = 0; i < kCount; ++i) {
        expected += in_[static_cast<size_t>(block * kCount + i)];
      }
      EXPECT_EQ(sums_[static_cast<size_t>(block)], expected) << "seed " << seed;
    }
  }
}

TEST_F(EmulatorTest, ShufflesExchangeWithinWarps) {
  Floats in(128);
  Floats out(128);
  in.FillWithSmallIntegers();
  const cudaLaunchConfig_t config = Config(2, 64);
  ASSERT_EQ(cudaLaunchKernelEx(&config, &WarpSums, in.data(), out.data(), Fault::kNone),
            cudaSuccess);
  ASSERT_EQ(cudaStreamSynchronize(stream_), cudaSuccess);
  for (size_t i = 0; i < 128; ++i) {
    float expected = 0;
    for (size_t lane = 0; lane < 32; ++lane) {
      expected += in.Values()[i / 32 * 32 + lane];
    }
    EXPECT_EQ(out.Values()[i], expected);
  }
}

TEST_F(EmulatorTest, AsynchronousCopiesArriveAtTheirWait) {
  constexpr int kStages = 5;
  Floats in(kStages * kThreads);
  Floats out(kThreads);
  in.FillWithSmallIntegers();
  const cudaLaunchConfig_t config = Config(1, kThreads, 2 * kThreads * sizeof(float));
  ASSERT_EQ(cudaLaunchKernelEx(&config, &CopySum, in.data(), out.data(), kStages, Fault::kNone),
            cudaSuccess);
  ASSERT_EQ(cudaStreamSynchronize(stream_), cudaSuccess);
  for (size_t i = 0; i < kThreads; ++i) {
    float expected = 0;
    for (size_t stage = 0; stage < kStages; ++stage) {
      expected += in.Values()[stage * kThreads + (i + 1) % kThreads];
    }
    EXPECT_EQ(out.Values()[i], expected);
  }
}

TEST_F(EmulatorTest, ARemovedCopyWaitLeavesNaNs) {
  Floats in(2 * kThreads);
  Floats out(kThreads);
  in.FillWithSmallIntegers();
  const cudaLaunchConfig_t config = Config(1, kThreads, 2 * kThreads * sizeof(float));
  ASSERT_EQ(cudaLaunchKernelEx(&config, &CopySum, in.data(), out.data(), 2, Fault::kNoCopyWait),
            cudaSuccess);
  ASSERT_EQ(cudaStreamSynchronize(stream_), cudaSuccess);
  EXPECT_TRUE(std::isnan(out.Values()[0]));
}

TEST_F(EmulatorTest, ARemovedBarrierReadsWhatWasNotWritten) {
  if (simt::kRaceDetector) {
    GTEST_SKIP() << "ThreadSanitizer ends the program at this race; see the next test";
  }
  EXPECT_EQ(RunBlockSum(Fault::kNoBarrierBeforeRead), "");
  EXPECT_TRUE(std::isnan(sums_[0]));
}

using EmulatorDeathTest = EmulatorTest;

TEST_F(EmulatorDeathTest, RemovedBarriersAreRaces) {
  if (!simt::kRaceDetector) {
    GTEST_SKIP() << "needs ThreadSanitizer: run preset cpu-tsan";
  }
  GTEST_FLAG_SET(death_test_style, "threadsafe");
  EXPECT_DEATH(RunBlockSum(Fault::kNoBarrierBeforeRead), "data race");
  EXPECT_DEATH(
      {
        Floats in(4 * kThreads);
        Floats out(4 * kThreads);
        in.FillWithSmallIntegers();
        const cudaLaunchConfig_t config = Config(2, kThreads);
        cudaLaunchKernelEx(&config, &ReverseTwice, in.data(), out.data(),
                           Fault::kNoBarrierBeforeReuse);
        cudaStreamSynchronize(stream_);
      },
      "data race");
}

TEST_F(EmulatorDeathTest, BlocksThatWriteTheSameCellAreARace) {
  if (!simt::kRaceDetector) {
    GTEST_SKIP() << "needs ThreadSanitizer: run preset cpu-tsan";
  }
  GTEST_FLAG_SET(death_test_style, "threadsafe");
  EXPECT_DEATH(
      {
        Floats out(1);
        const cudaLaunchConfig_t config = Config(2, 32);
        cudaLaunchKernelEx(&config, &SameCell, out.data());
        cudaStreamSynchronize(stream_);
      },
      "data race");
}

TEST_F(EmulatorDeathTest, AnIndexOffByOneIsAnOverflow) {
  if (!kAddressChecks) {
    GTEST_SKIP() << "needs AddressSanitizer: run preset cpu-asan";
  }
  GTEST_FLAG_SET(death_test_style, "threadsafe");
  EXPECT_DEATH(RunBlockSum(Fault::kOneTooFar), "heap-buffer-overflow");
}

TEST_F(EmulatorTest, TwoRoundsThroughOneArrayNeedAndHaveTheirBarriers) {
  Floats in(4 * kThreads);
  Floats out(4 * kThreads);
  in.FillWithSmallIntegers();
  const cudaLaunchConfig_t config = Config(2, kThreads);
  ASSERT_EQ(cudaLaunchKernelEx(&config, &ReverseTwice, in.data(), out.data(), Fault::kNone),
            cudaSuccess);
  ASSERT_EQ(cudaStreamSynchronize(stream_), cudaSuccess);
  for (size_t i = 0; i < 4 * kThreads; ++i) {
    EXPECT_EQ(out.Values()[i], in.Values()[i / kThreads * kThreads + kThreads - 1 - i % kThreads]);
  }
}

TEST_F(EmulatorTest, BarriersThatNotAllThreadsReachAreErrors) {
  EXPECT_THAT(RunBlockSum(Fault::kBarrierInBranch), HasSubstr("different barriers"));
}

TEST_F(EmulatorTest, ThreadsThatEndBeforeABarrierAreErrors) {
  EXPECT_THAT(RunBlockSum(Fault::kEarlyExit), HasSubstr("have ended"));
}

TEST_F(EmulatorTest, ShufflesWithAbsentLanesAreErrors) {
  Floats in(64);
  Floats out(64);
  in.FillWithSmallIntegers();
  const cudaLaunchConfig_t config = Config(1, 64);
  ASSERT_EQ(cudaLaunchKernelEx(&config, &WarpSums, in.data(), out.data(), Fault::kAbsentLane),
            cudaSuccess);
  EXPECT_EQ(cudaStreamSynchronize(stream_), cudaErrorLaunchFailure);
  EXPECT_THAT(cudaGetErrorString(cudaErrorLaunchFailure), HasSubstr("warp collective"));
}

TEST_F(EmulatorTest, AfterAFaultEveryCallFails) {
  EXPECT_NE(RunBlockSum(Fault::kEarlyExit), "");
  EXPECT_EQ(cudaGetLastError(), cudaErrorLaunchFailure);
  EXPECT_EQ(cudaDeviceSynchronize(), cudaErrorLaunchFailure);
}

TEST_F(EmulatorTest, WorkOnAnotherStreamIsNotDoneBeforeItIsWaitedFor) {
  cudaStream_t producer = nullptr;
  cudaEvent_t produced = nullptr;
  ASSERT_EQ(cudaStreamCreateWithFlags(&producer, cudaStreamNonBlocking), cudaSuccess);
  ASSERT_EQ(cudaEventCreateWithFlags(&produced, cudaEventDisableTiming), cudaSuccess);
  Floats source(1);
  Floats seen(2);
  ASSERT_EQ(cudaMemsetAsync(source.data(), 0, sizeof(float), producer), cudaSuccess);
  ASSERT_EQ(cudaEventRecord(produced, producer), cudaSuccess);

  ASSERT_EQ(
      cudaMemcpyAsync(seen.data(), source.data(), sizeof(float), cudaMemcpyDeviceToDevice, stream_),
      cudaSuccess);
  ASSERT_EQ(cudaStreamWaitEvent(stream_, produced), cudaSuccess);
  ASSERT_EQ(cudaMemcpyAsync(seen.data() + 1, source.data(), sizeof(float), cudaMemcpyDeviceToDevice,
                            stream_),
            cudaSuccess);
  ASSERT_EQ(cudaStreamSynchronize(stream_), cudaSuccess);
  EXPECT_TRUE(std::isnan(seen.Values()[0])) << "read without a wait";
  EXPECT_EQ(seen.Values()[1], 0.0F);
  cudaEventDestroy(produced);
  cudaStreamDestroy(producer);
}

// Each wait is for the Record that was the last one then, on its own stream.
TEST_F(EmulatorTest, AnEventMayBeRecordedOnOtherStreamsWhileWaitsForItAreOutstanding) {
  simt::DeviceState& device = simt::DeviceState::Get();
  simt::Stream* const first = device.NewStream();
  simt::Stream* const second = device.NewStream();
  simt::Stream* const reader = device.NewStream();
  simt::Event event;
  std::string done;
  device.Enqueue(first, [&] { done += "1"; });
  event.Record(*first);
  device.Enqueue(reader, event.Waiter());
  device.Enqueue(reader, [&] { done += "r"; });
  device.Enqueue(second, [&] { done += "2"; });
  event.Record(*second);
  device.Synchronize(reader);
  EXPECT_EQ(done, "1r");
  EXPECT_FALSE(event.is_complete());
  event.Complete();
  EXPECT_EQ(done, "1r2");
  for (simt::Stream* stream : {first, second, reader}) {
    device.DeleteStream(stream);
  }
}

TEST_F(EmulatorTest, AStreamAheadDoesItsWorkAtOnceAndWhatItWaitsForBefore) {
  simt::DeviceState& device = simt::DeviceState::Get();
  simt::Stream* const late = device.NewStream();
  simt::Stream* const ahead = device.NewStream();
  device.options() = {
      .execution = simt::Execution::kOneAhead, .order_seed = 0, .stream_ahead = ahead->number()};
  simt::Event event;
  std::string done;
  device.Enqueue(late, [&] { done += "a"; });
  event.Record(*late);
  device.Enqueue(late, [&] { done += "b"; });
  device.Enqueue(ahead, [&] { done += "1"; });
  EXPECT_EQ(done, "1");
  device.Enqueue(ahead, event.Waiter());
  EXPECT_EQ(done, "1a");
  device.Synchronize(late);
  EXPECT_EQ(done, "1ab");
  device.DeleteStream(late);
  device.DeleteStream(ahead);
}

// A host that polls must come to an end, and meanwhile nothing may be done that it did not poll
// for.
TEST_F(EmulatorTest, AnEventThatIsPolledIsReached) {
  cudaEvent_t done = nullptr;
  ASSERT_EQ(cudaEventCreateWithFlags(&done, cudaEventDisableTiming), cudaSuccess);
  Floats cells(2);
  ASSERT_EQ(cudaMemsetAsync(cells.data(), 0, sizeof(float), stream_), cudaSuccess);
  ASSERT_EQ(cudaEventRecord(done, stream_), cudaSuccess);
  ASSERT_EQ(cudaMemsetAsync(cells.data() + 1, 0, sizeof(float), stream_), cudaSuccess);
  int unfinished = 0;
  while (cudaEventQuery(done) == cudaErrorNotReady) {
    ++unfinished;
  }
  EXPECT_EQ(unfinished, 2) << "one for each piece of work: the filling and the event itself";
  EXPECT_EQ(cells.Values()[0], 0.0F);
  EXPECT_TRUE(std::isnan(cells.Values()[1]));
  cudaEventDestroy(done);
}

TEST_F(EmulatorTest, EverySystemThreadHasADeviceOfItsOwn) {
  Floats here(1);
  std::thread([] {
    simt::DeviceState& state = simt::DeviceState::Get();
    EXPECT_EQ(state.used_bytes(), 0u);
    EXPECT_EQ(state.counts().allocations, 0);
    Floats there(16);
    EXPECT_EQ(state.used_bytes(), 16 * sizeof(float));
    state.SetError("a fault of this thread's kernel");
    EXPECT_EQ(cudaDeviceSynchronize(), cudaErrorLaunchFailure);
    state.Reset();
  }).join();
  EXPECT_EQ(cudaDeviceSynchronize(), cudaSuccess);
  EXPECT_EQ(simt::DeviceState::Get().counts().allocations, 1);
}

TEST_F(EmulatorTest, LaunchesThatADeviceWouldRefuseAreRefused) {
  Floats out(1);
  cudaLaunchConfig_t config = Config(1, 2048);
  EXPECT_EQ(cudaLaunchKernelEx(&config, &SameCell, out.data()), cudaErrorInvalidConfiguration);
  config = Config(1, 1, 100 << 10);
  EXPECT_EQ(cudaLaunchKernelEx(&config, &SameCell, out.data()), cudaErrorInvalidValue);
  EXPECT_EQ(cudaFuncSetAttribute(&SameCell, cudaFuncAttributeMaxDynamicSharedMemorySize, 100 << 10),
            cudaSuccess);
  EXPECT_EQ(cudaLaunchKernelEx(&config, &SameCell, out.data()), cudaSuccess);
}

TEST_F(EmulatorTest, CountsWhatDoesNotBelongIntoAStep) {
  const simt::Counts& counts = simt::DeviceState::Get().counts();
  Floats cell(1);
  EXPECT_EQ(counts.allocations, 1);
  cudaStreamSynchronize(stream_);
  EXPECT_EQ(counts.host_waits, 1);
  cudaMemsetAsync(cell.data(), 0, sizeof(float));
  EXPECT_EQ(counts.default_stream_uses, 1);
}

}  // namespace
}  // namespace panthera
