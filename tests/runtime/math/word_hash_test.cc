#include "runtime/math/word_hash.h"

#include <omp.h>

#include <cstdint>
#include <cstring>
#include <memory>
#include <set>
#include <vector>

#include <gtest/gtest.h>

#include "runtime/math/context.h"
#include "tests/support/devices.h"
#include "tests/support/random_tensor.h"

namespace panthera {
namespace {

using testing::HostTensor;
using testing::MetaTensor;
using testing::RandomTensor;

// On every device that there is. Tensors are memory that the device and the host can reach.
class WordHashTest : public ::testing::TestWithParam<Device> {
 protected:
  uint64_t HashOf(const Tensor& x, int64_t first_word = 0, uint64_t before = 0) {
    const HostTensor sum({1}, DType::kI64);
    std::memcpy(testing::OnHost(sum).bytes_data(), &before, sizeof(before));
    HashWords(stream_, x, first_word, sum);
    testing::WaitForDevice(GetParam());
    uint64_t hash = 0;
    std::memcpy(&hash, testing::OnHost(sum).bytes_data(), sizeof(hash));
    return hash;
  }

 private:
  testing::TensorsOn memory_{GetParam()};
  Stream stream_{GetParam()};
};
INSTANTIATE_TEST_SUITE_P(Devices, WordHashTest, ::testing::ValuesIn(testing::ComputeDevices()),
                         testing::DeviceName);

uint8_t* BytesOf(const Tensor& x) {
  return reinterpret_cast<uint8_t*>(testing::OnHost(x).bytes_data());
}

HostTensor RandomBytes(int64_t count, uint64_t seed) {
  HostTensor x({count}, DType::kU8);
  const HostTensor values = testing::RandomTokens(count, 256, seed);
  const int32_t* value = testing::OnHost(values).data<int32_t>();
  for (int64_t i = 0; i < count; ++i) {
    BytesOf(x)[i] = static_cast<uint8_t>(value[i]);
  }
  return x;
}

// From the definition, a byte and a word at a time.
uint64_t Expected(const uint8_t* bytes, int64_t count, int64_t first_word) {
  uint64_t sum = 0;
  for (int64_t begin = 0; begin < count; begin += 8) {
    uint64_t z = 0;
    for (int64_t i = begin; i < begin + 8 && i < count; ++i) {
      z += uint64_t{bytes[i]} << (8 * (i - begin));
    }
    z += (static_cast<uint64_t>(first_word + begin / 8) + 1) * 0x9e3779b97f4a7c15U;
    z = (z ^ z >> 30) * 0xbf58476d1ce4e5b9U;
    z = (z ^ z >> 27) * 0x94d049bb133111ebU;
    sum += z ^ z >> 31;
  }
  return sum;
}

// The first outputs of SplitMix64 with seed 1234567, as Rosetta Code lists them: words that are
// 1234567 each give the states that it goes through.
TEST_P(WordHashTest, AWordAddsWhatSplitMix64Gives) {
  const HostTensor x({3}, DType::kI64);
  for (int i = 0; i < 3; ++i) {
    testing::OnHost(x).data<int64_t>()[i] = 1234567;
  }
  EXPECT_EQ(HashOf(x.tensor().Slice(0, 1)), 6457827717110365317U);
  EXPECT_EQ(HashOf(x.tensor().Slice(0, 2)), 6457827717110365317U + 3203168211198807973U);
  EXPECT_EQ(HashOf(x), 6457827717110365317U + 3203168211198807973U + 9817491932198370423U);
}

// Around the sizes of words, packs and blocks, beginning where a pack can and where none can.
TEST_P(WordHashTest, IsTheSumOfMixedWordsOnEveryDevice) {
  constexpr int64_t kCount = 70'000;
  const HostTensor x = RandomBytes(kCount, 1);
  for (const int64_t begin : {0, 1, 2, 4, 8, 16, 31}) {
    for (const int64_t count : {0, 1, 7, 8, 9, 15, 16, 17, 4096, 32'768, 32'775, 69'900}) {
      const Tensor part = x.tensor().Slice(begin, begin + count);
      EXPECT_EQ(HashOf(part, 5), Expected(BytesOf(part), count, 5)) << begin << " " << count;
    }
  }
  for (const DType dtype : {DType::kF32, DType::kBF16}) {
    const HostTensor values = RandomTensor({301, 7}, dtype, 2);
    EXPECT_EQ(HashOf(values), Expected(BytesOf(values), values.tensor().bytes(), 0)) << dtype;
  }
}

TEST_P(WordHashTest, AddsToWhatIsThereSoThatPartsInAnyOrderGiveTheWhole) {
  const HostTensor x = RandomTensor({1003}, DType::kF32, 3);
  const uint64_t whole = HashOf(x);
  const uint64_t end = HashOf(x.tensor().Slice(600, 1003), 300);
  EXPECT_EQ(HashOf(x.tensor().Slice(0, 600), 0, end), whole);
}

TEST_P(WordHashTest, EveryBitThatFlipsChangesTheHash) {
  for (const DType dtype : {DType::kF32, DType::kBF16, DType::kU8}) {
    // An odd number, so that the last word is not full.
    const HostTensor x = dtype == DType::kU8 ? RandomBytes(13, 4) : RandomTensor({13}, dtype, 4);
    std::set<uint64_t> seen = {HashOf(x)};
    for (int64_t byte = 0; byte < x.tensor().bytes(); ++byte) {
      for (int bit = 0; bit < 8; ++bit) {
        const auto mask = static_cast<uint8_t>(1 << bit);
        BytesOf(x)[byte] ^= mask;
        EXPECT_TRUE(seen.insert(HashOf(x)).second) << dtype << " byte " << byte << " bit " << bit;
        BytesOf(x)[byte] ^= mask;
      }
    }
    EXPECT_EQ(seen.size(), static_cast<size_t>(1 + 8 * x.tensor().bytes()));
  }
}

TEST_P(WordHashTest, AnyTwoElementsThatChangePlacesChangeTheHash) {
  const HostTensor x({33}, DType::kBF16);
  auto* elements = reinterpret_cast<uint16_t*>(BytesOf(x));
  for (uint16_t i = 0; i < 33; ++i) {
    elements[i] = static_cast<uint16_t>(i + 1);
  }
  std::set<uint64_t> seen = {HashOf(x)};
  for (int i = 0; i < 33; ++i) {
    for (int j = 0; j < i; ++j) {
      std::swap(elements[i], elements[j]);
      EXPECT_TRUE(seen.insert(HashOf(x)).second) << i << " and " << j;
      std::swap(elements[i], elements[j]);
    }
  }
}

TEST_P(WordHashTest, BitsDoNotDependOnTheNumberOfThreads) {
  const int threads = omp_get_max_threads();
  const HostTensor x = RandomBytes(700'001, 5);
  const uint64_t expected = Expected(BytesOf(x), 700'001, 0);
  for (const int number : {1, 2, 5}) {
    omp_set_num_threads(number);
    EXPECT_EQ(HashOf(x), expected) << number;
  }
  omp_set_num_threads(threads);
}

TEST(WordHashMetaTest, ComputesNothing) {
  Stream stream(Device{DeviceKind::kMeta, 0});
  HashWords(stream, MetaTensor({int64_t{1} << 40}, DType::kF32), 0, MetaTensor({1}, DType::kI64));
}

TEST(WordHashDeathTest, RefusesASumOfAnotherTypeOrDevice) {
  Stream stream{Device{}};
  const HostTensor x = testing::Zeros({4}, DType::kF32);
  EXPECT_DEATH(HashWords(stream, x, 0, HostTensor({1}, DType::kF64)), "fp64 vs. int64");
  EXPECT_DEATH(HashWords(stream, x, 0, MetaTensor({1}, DType::kI64)), "meta");
}

}  // namespace
}  // namespace panthera
