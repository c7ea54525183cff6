#include "runtime/data/sample_order.h"

#include <algorithm>
#include <cmath>
#include <cstdlib>
#include <map>
#include <random>
#include <utility>
#include <vector>

#include "gtest/gtest.h"

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
