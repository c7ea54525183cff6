#include "runtime/data/sample_order.h"

#include <algorithm>
#include <cmath>
#include <cstdlib>
#include <map>
#include <random>
#include <utility>
#include <vector>

#include "gtest/gtest.h"

#include "runtime/base/philox.h"

namespace panthera {
namespace {

std::vector<int64_t> Images(const Permutation& permutation, int64_t size) {
  std::vector<int64_t> images;
  for (int64_t i = 0; i < size; ++i) {
    images.push_back(permutation(i));
  }
  return images;
}

bool IsPermutation(std::vector<int64_t> images) {
  std::sort(images.begin(), images.end());
  for (size_t i = 0; i < images.size(); ++i) {
    if (images[i] != static_cast<int64_t>(i)) {
      return false;
    }
  }
  return true;
}

TEST(PermutationTest, IsABijectionForEverySize) {
  for (int64_t size = 1; size <= 600; ++size) {
    EXPECT_TRUE(IsPermutation(Images(Permutation(size, 42, 7), size))) << size;
  }
  for (const int64_t size : {65535, 65536, 65537, 100003}) {
    EXPECT_TRUE(IsPermutation(Images(Permutation(size, 1, 2), size))) << size;
  }
}

TEST(PermutationTest, StaysInRangeForHugeSizes) {
  for (const int64_t size : {(int64_t{1} << 40) + 1, (int64_t{1} << 62) - 1, int64_t{1} << 62}) {
    const Permutation permutation(size, 3, 4);
    std::vector<int64_t> images;
    for (const int64_t index : {int64_t{0}, int64_t{1}, size / 2, size - 2, size - 1}) {
      images.push_back(permutation(index));
      EXPECT_GE(images.back(), 0);
      EXPECT_LT(images.back(), size);
    }
    std::sort(images.begin(), images.end());
    EXPECT_EQ(std::unique(images.begin(), images.end()), images.end());
  }
}

// The network of sample_order.h run backwards, written from its description: where an image comes
// from. What has a unique origin everywhere is a bijection.
int64_t Origin(int64_t size, uint64_t key, uint64_t stream, int64_t image) {
  const auto n = static_cast<uint64_t>(size);
  auto a = static_cast<uint64_t>(std::floor(std::sqrt(static_cast<long double>(size))));
  a += a * a < n ? 1 : 0;
  const uint64_t b = (n + a - 1) / a;
  auto value = static_cast<uint64_t>(image);
  do {
    uint64_t left = value % a;
    uint64_t right = value / a;
    for (uint64_t round = 8; round-- > 0;) {
      // The round took (l, r) to (r, l + f(r)); in even rounds l < a, in odd ones l < b.
      const uint64_t range = round % 2 == 0 ? a : b;
      const uint64_t before = left;
      const Philox random = Philox4x32(key, before | (round << 32), stream);
      const uint64_t added =
          (random.value[0] | (static_cast<uint64_t>(random.value[1]) << 32)) % range;
      left = (right + range - added) % range;
      right = before;
    }
    value = right * a + left;
  } while (value >= n);
  return static_cast<int64_t>(value);
}

TEST(PermutationTest, EveryImageHasOneOriginInSizesBeyondAnyTable) {
  std::mt19937_64 random(3);
  const int64_t big = int64_t{1} << 32;
  for (const int64_t size : {int64_t{1}, int64_t{2}, int64_t{3}, int64_t{1000}, big - 1, big,
                             big + 1, 3 * big + 7, int64_t{1} << 45, int64_t{1} << 62}) {
    const Permutation permutation(size, 9, 11);
    for (int i = 0; i < 2000; ++i) {
      const auto index = static_cast<int64_t>(random() % static_cast<uint64_t>(size));
      const int64_t image = permutation(index);
      ASSERT_GE(image, 0);
      ASSERT_LT(image, size);
      ASSERT_EQ(Origin(size, 9, 11, image), index) << size;
      ASSERT_EQ(permutation(Origin(size, 9, 11, index)), index) << size;
    }
  }
}

// Where one index goes, over many keys: every place equally often. Chi-squared with n - 1 degrees
// of freedom has mean n - 1 and deviation sqrt(2 (n - 1)); five deviations are allowed.
TEST(PermutationTest, SendsAnIndexEverywhereEquallyOften) {
  for (const int64_t size : {2, 3, 7, 16, 100}) {
    for (const int64_t index : {int64_t{0}, size / 2, size - 1}) {
      constexpr int kKeys = 20000;
      std::vector<int> hits(static_cast<size_t>(size));
      for (uint64_t key = 0; key < kKeys; ++key) {
        ++hits[static_cast<size_t>(Permutation(size, key, 0)(index))];
      }
      const double expected = static_cast<double>(kKeys) / static_cast<double>(size);
      double chi_squared = 0;
      for (const int count : hits) {
        chi_squared += (count - expected) * (count - expected) / expected;
      }
      const double freedom = static_cast<double>(size - 1);
      EXPECT_LT(chi_squared, freedom + 5 * std::sqrt(2 * freedom)) << size << " " << index;
    }
  }
}

// Neighbours do not stay neighbours: of a random permutation of n, the mean of |p(i+1) - p(i)| is
// (n + 1) / 3 with a deviation of about n * sqrt(1/18 / n); five are allowed.
TEST(PermutationTest, TearsNeighboursApart) {
  constexpr int64_t kSize = 10007;
  const std::vector<int64_t> images = Images(Permutation(kSize, 5, 0), kSize);
  double sum = 0;
  for (size_t i = 0; i + 1 < images.size(); ++i) {
    sum += std::abs(static_cast<double>(images[i + 1] - images[i]));
  }
  const double size = static_cast<double>(kSize);
  EXPECT_NEAR(sum / (size - 1), (size + 1) / 3, 5 * size * std::sqrt(1 / (18 * size)));
}

// Whoever reads any part of an epoch sees all parts of the file: of the first indices, those from
// each of 16 equal runs are counted by the 16 equal parts of the range that they go to. With all of
// the range the rows and columns of this table are fixed and chi-squared has 15 * 15 degrees of
// freedom, with a small part of it (15 + 1) * 15; mean and variance as above. Six deviations are
// allowed: a chance of about 1e-7 for each of the 18 tables.
TEST(PermutationTest, EveryPartOfAnEpochComesFromAllPartsOfTheFile) {
  constexpr int64_t kParts = 16;
  for (const int64_t size : {(int64_t{1} << 16) - 1, int64_t{1} << 16, (int64_t{1} << 16) + 1,
                             int64_t{100000}, (int64_t{1} << 33) + 1, int64_t{1} << 50}) {
    for (const uint64_t key : {1U, 2U, 3U}) {
      const Permutation permutation(size, key, 5);
      const int64_t count = std::min<int64_t>(size, 100000);
      std::vector<double> table(kParts * kParts);
      for (int64_t i = 0; i < count; ++i) {
        const auto image_part =
            static_cast<int64_t>(static_cast<__int128>(permutation(i)) * kParts / size);
        ++table[static_cast<size_t>(i * kParts / count * kParts + image_part)];
      }
      const double expected = static_cast<double>(count) / (kParts * kParts);
      double chi_squared = 0;
      for (const double hits : table) {
        chi_squared += (hits - expected) * (hits - expected) / expected;
      }
      const double freedom = count == size ? 15 * 15 : 16 * 15;
      EXPECT_NEAR(chi_squared, freedom, 6 * std::sqrt(2 * freedom)) << size << " key " << key;
    }
  }
}

// The correlation of p(i) with p(i + lag) over n indices of a random permutation has mean -1/(n-1)
// and a deviation of 1/sqrt(n); five are allowed.
TEST(PermutationTest, NeighboursAreNotCorrelatedAtAnyShortLag) {
  constexpr int64_t kCount = 50000;
  for (const int64_t size : {kCount, (int64_t{1} << 33) + 1}) {
    const Permutation permutation(size, 21, 0);
    std::vector<double> centred;
    for (int64_t i = 0; i < kCount; ++i) {
      centred.push_back(static_cast<double>(permutation(i)) / static_cast<double>(size) - 0.5);
    }
    for (const size_t lag : {1U, 2U, 3U, 7U, 64U, 224U}) {
      double sum = 0;
      for (size_t i = 0; i + lag < centred.size(); ++i) {
        sum += centred[i] * centred[i + lag];
      }
      // The variance of a uniform number is 1/12.
      EXPECT_NEAR(12 * sum / kCount, 0, 5 / std::sqrt(kCount)) << size << " lag " << lag;
    }
  }
}

TEST(PermutationTest, DiffersByKeyAndStream) {
  const std::vector<int64_t> base = Images(Permutation(1000, 1, 1), 1000);
  for (const auto& [key, stream] : {std::pair{2, 1}, {1, 2}}) {
    const Permutation other(1000, static_cast<uint64_t>(key), static_cast<uint64_t>(stream));
    const std::vector<int64_t> images = Images(other, 1000);
    int64_t equal = 0;
    for (size_t i = 0; i < images.size(); ++i) {
      equal += images[i] == base[i] ? 1 : 0;
    }
    // One fixed point is expected between unrelated permutations; ten have probability 1e-7.
    EXPECT_LT(equal, 10);
  }
}

// The largest |count_s(g) - g * share_s| over all prefixes g.
double LargestDeviation(const Mixture& mixture, const std::vector<double>& shares, int64_t steps) {
  std::vector<int64_t> counts(shares.size(), 0);
  double largest = 0;
  for (int64_t g = 0; g < steps; ++g) {
    const Mixture::Draw draw = mixture.At(g);
    EXPECT_EQ(draw.ordinal, counts[static_cast<size_t>(draw.source)]) << g;
    ++counts[static_cast<size_t>(draw.source)];
    for (size_t s = 0; s < shares.size(); ++s) {
      const double due = shares[s] * static_cast<double>(g + 1);
      largest = std::max(largest, std::abs(static_cast<double>(counts[s]) - due));
    }
  }
  return largest;
}

std::vector<double> Normalized(std::vector<double> weights) {
  double sum = 0;
  for (const double weight : weights) {
    sum += weight;
  }
  for (double& weight : weights) {
    weight /= sum;
  }
  return weights;
}

TEST(MixtureTest, EveryPrefixIsWithinOneOfItsShare) {
  const std::vector<std::vector<double>> cases = {
      {1},
      {1, 1},
      {0.7, 0.3},
      {1, 2, 3},
      {0.45, 0.45, 0.01, 0.01, 0.01, 0.01, 0.01, 0.01, 0.01, 0.01, 0.01, 0.01},
      {0.5, 0.25, 0.125, 0.0625, 0.061875, 0.000625},
      {1e-3, 1, 1, 1},
      {0.37, 0.512, 0.2},
      std::vector<double>(100, 1.0),
  };
  for (const std::vector<double>& weights : cases) {
    const Mixture mixture(weights);
    EXPECT_LT(LargestDeviation(mixture, Normalized(weights), 30000), 1) << weights.size();
  }
}

TEST(MixtureTest, TijdemansBoundHoldsForRandomShares) {
  std::mt19937 random(1);
  for (int round = 0; round < 30; ++round) {
    const size_t sources = 2 + random() % 12;
    std::vector<double> weights;
    for (size_t s = 0; s < sources; ++s) {
      weights.push_back(1 + static_cast<double>(random() % 1000));
    }
    const double bound = 1 - 1 / (2 * static_cast<double>(sources) - 2);
    EXPECT_LT(LargestDeviation(Mixture(weights), Normalized(weights), 20000), bound + 1e-6);
  }
}

TEST(MixtureTest, DecimalSharesAreExactForever) {
  const Mixture mixture(std::vector<double>{0.7, 0.3});
  EXPECT_DOUBLE_EQ(mixture.share(0), 0.7);
  const int64_t g = int64_t{1} << 50;
  int64_t from_first = mixture.At(g).source == 0 ? mixture.At(g).ordinal : -1;
  for (int64_t i = g; from_first < 0; ++i) {
    from_first = mixture.At(i).source == 0 ? mixture.At(i).ordinal : -1;
  }
  EXPECT_NEAR(static_cast<double>(from_first), 0.7 * static_cast<double>(g), 4);
}

TEST(MixtureTest, OtherSharesAreCloseAndNoSourceIsForgotten) {
  const std::vector<double> weights = {M_PI, M_E, 1e-9};
  const Mixture mixture(weights);
  const std::vector<double> shares = Normalized(weights);
  EXPECT_NEAR(mixture.share(0), shares[0], 2.0 / (1 << 20));
  EXPECT_NEAR(mixture.share(1), shares[1], 2.0 / (1 << 20));
  EXPECT_GT(mixture.share(2), 0);
}

const SampleOrder::Source kSources[] = {{5, 2.0}, {12, 1.0}, {1, 0.5}};

TEST(SampleOrderTest, EverySourceGivesEachSampleOncePerEpoch) {
  const SampleOrder order(7, kSources);
  std::map<std::pair<int64_t, int64_t>, std::vector<int64_t>> seen;
  for (int64_t g = 0; g < 3500; ++g) {
    const SampleOrder::Sample sample = order.At(g);
    seen[{sample.source, sample.epoch}].push_back(sample.index);
  }
  int64_t whole_epochs = 0;
  for (const auto& [key, indices] : seen) {
    const int64_t samples = kSources[key.first].samples;
    ASSERT_LE(static_cast<int64_t>(indices.size()), samples);
    if (static_cast<int64_t>(indices.size()) == samples) {
      EXPECT_TRUE(IsPermutation(indices));
      ++whole_epochs;
    }
  }
  // 2000 / 5 + 1000 / 12 + 500 / 1.
  EXPECT_EQ(whole_epochs, 400 + 83 + 500);
}

TEST(SampleOrderTest, EpochsSourcesAndSeedsDiffer) {
  const SampleOrder::Source two[] = {{200, 1.0}, {200, 1.0}};
  std::map<std::pair<int64_t, int64_t>, std::vector<int64_t>> orders;
  for (const uint64_t seed : {1U, 2U}) {
    const SampleOrder order(seed, two);
    for (int64_t g = 0; g < 800; ++g) {
      const SampleOrder::Sample sample = order.At(g);
      orders[{static_cast<int64_t>(seed) * 10 + sample.source, sample.epoch}].push_back(
          sample.index);
    }
  }
  ASSERT_EQ(orders.size(), 8U);
  for (auto a = orders.begin(); a != orders.end(); ++a) {
    for (auto b = std::next(a); b != orders.end(); ++b) {
      EXPECT_NE(a->second, b->second);
    }
  }
}

// Two epochs, seeds or sources are unrelated orders: the number of places at which they agree is
// near Poisson with mean 1, above 10 with a probability of 1e-8.
TEST(SampleOrderTest, EpochsSourcesAndSeedsAreUnrelated) {
  constexpr int64_t kSamples = 3000;
  const SampleOrder::Source two[] = {{kSamples, 1.0}, {kSamples, 1.0}};
  std::vector<std::vector<int64_t>> orders(12);
  for (const uint64_t seed : {1U, 2U}) {
    const SampleOrder order(seed, two);
    for (int64_t g = 0; g < 3 * 2 * kSamples; ++g) {
      const SampleOrder::Sample sample = order.At(g);
      orders[static_cast<size_t>(6 * (static_cast<int64_t>(seed) - 1) + 3 * sample.source +
                                 sample.epoch)]
          .push_back(sample.index);
    }
  }
  for (size_t a = 0; a < orders.size(); ++a) {
    ASSERT_EQ(orders[a].size(), static_cast<size_t>(kSamples));
    for (size_t b = a + 1; b < orders.size(); ++b) {
      int64_t equal = 0;
      for (size_t i = 0; i < orders[a].size(); ++i) {
        equal += orders[a][i] == orders[b][i] ? 1 : 0;
      }
      EXPECT_LE(equal, 10) << a << " " << b;
    }
  }
}

// The mixture of the whole order, not of Mixture alone: at every prefix each source has given its
// share up to less than one sample, also while their epochs end at different times.
TEST(SampleOrderTest, EveryPrefixHoldsItsShareOfEverySource) {
  const SampleOrder order(7, kSources);
  const double shares[] = {2.0 / 3.5, 1.0 / 3.5, 0.5 / 3.5};
  int64_t counts[3] = {};
  for (int64_t g = 0; g < 20000; ++g) {
    ++counts[order.At(g).source];
    for (int s = 0; s < 3; ++s) {
      ASSERT_LT(std::abs(static_cast<double>(counts[s]) - shares[s] * static_cast<double>(g + 1)),
                1)
          << g << " " << s;
    }
  }
}

TEST(SampleOrderTest, StartingAnywhereEqualsGoingThere) {
  const SampleOrder order(7, kSources);
  std::vector<SampleOrder::Sample> sequential;
  for (int64_t g = 0; g < 100; ++g) {
    sequential.push_back(order.At(g));
  }
  const SampleOrder resumed(7, kSources);
  for (int64_t g = 99; g >= 0; --g) {
    const SampleOrder::Sample sample = resumed.At(g);
    EXPECT_EQ(sample.source, sequential[static_cast<size_t>(g)].source);
    EXPECT_EQ(sample.epoch, sequential[static_cast<size_t>(g)].epoch);
    EXPECT_EQ(sample.index, sequential[static_cast<size_t>(g)].index);
  }
}

// A resumed run, perhaps with another build, must see the same data. The numbers are from a second
// implementation of Philox4x32-10 and the Feistel network in another language.
TEST(SampleOrderTest, TheOrderIsPinned) {
  const SampleOrder::Source one[] = {{1000, 1.0}};
  const SampleOrder order(1234, one);
  std::vector<int64_t> indices;
  for (const int64_t g : {0, 1, 2, 999, 1000, 1000000}) {
    indices.push_back(order.At(g).index);
  }
  EXPECT_EQ(indices, (std::vector<int64_t>{963, 867, 339, 510, 793, 242}));
}

}  // namespace
}  // namespace panthera
