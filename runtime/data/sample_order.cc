#include "runtime/data/sample_order.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <numeric>
#include <utility>

#include "runtime/base/check.h"
#include "runtime/base/philox.h"

namespace panthera {
namespace {

// Even, so that the halves are back in their places at the end.
constexpr uint64_t kRounds = 8;

constexpr int64_t kMaxExactPeriod = int64_t{1} << 16;
constexpr int64_t kInexactPeriod = int64_t{1} << 20;

std::vector<double> Shares(std::span<const double> weights) {
  const double sum = std::accumulate(weights.begin(), weights.end(), 0.0);
  std::vector<double> shares;
  for (const double weight : weights) {
    CHECK_GT(weight, 0);
    shares.push_back(weight / sum);
  }
  return shares;
}

// Whether all shares are integers over `period`, up to what a few roundings in double explain.
bool IsExact(const std::vector<double>& shares, int64_t period) {
  for (const double share : shares) {
    const double scaled = share * static_cast<double>(period);
    const double nearest = std::round(scaled);
    if (nearest < 1 || std::abs(scaled - nearest) > 1e-13 * static_cast<double>(period)) {
      return false;
    }
  }
  return true;
}

// Integer draws per period, in proportion to the shares, each at least 1.
std::vector<int64_t> DrawsPerPeriod(const std::vector<double>& shares) {
  auto period = static_cast<int64_t>(shares.size());
  while (period <= kMaxExactPeriod && !IsExact(shares, period)) {
    ++period;
  }
  if (period > kMaxExactPeriod) {
    period = kInexactPeriod;
  }
  std::vector<int64_t> counts;
  for (const double share : shares) {
    counts.push_back(std::max<int64_t>(1, std::llround(share * static_cast<double>(period))));
  }
  // Rounding may miss the period by a few; the largest share feels that least.
  *std::max_element(counts.begin(), counts.end()) +=
      period - std::accumulate(counts.begin(), counts.end(), int64_t{0});
  return counts;
}

// The source of step g = 1, 2, ... when source s has been drawn drawn[s] times before. With
// lag_s = g * n_s / D - drawn_s and b = 1 / (2k - 2): among the sources with lag_s >= b, the one
// with the smallest (1 - b - lag_s) / n_s. Everything is multiplied by D * (2k - 2) and so exact.
size_t NextSource(const std::vector<int64_t>& counts, const std::vector<int64_t>& drawn,
                  int64_t period, int64_t g) {
  const auto sources = static_cast<int64_t>(counts.size());
  const int64_t scale = 2 * sources - 2;
  size_t best = counts.size();
  int64_t best_slack = 0;
  for (size_t s = 0; s < counts.size(); ++s) {
    const int64_t lag = (g * counts[s] - period * drawn[s]) * scale;
    if (lag < period) {
      continue;
    }
    const int64_t slack = period * (scale - 1) - lag;
    if (best == counts.size() || slack * counts[best] < best_slack * counts[s]) {
      best = s;
      best_slack = slack;
    }
  }
  CHECK_LT(best, counts.size()) << "no source is behind at step " << g;
  return best;
}

}  // namespace

Permutation::Permutation(int64_t size, uint64_t key, uint64_t stream)
    : size_(static_cast<uint64_t>(size)), key_(key), stream_(stream) {
  CHECK_GE(size, 1);
  CHECK_LE(size, int64_t{1} << 62);
  auto root = static_cast<uint64_t>(std::sqrt(static_cast<double>(size_)));
  while (root * root < size_) {
    ++root;
  }
  left_range_ = root;
  right_range_ = (size_ + root - 1) / root;
}

int64_t Permutation::operator()(int64_t index) const {
  auto value = static_cast<uint64_t>(index);
  CHECK_GE(index, 0);
  CHECK_LT(value, size_);
  do {
    uint64_t left = value % left_range_;
    uint64_t right = value / left_range_;
    uint64_t range = left_range_;
    uint64_t other_range = right_range_;
    for (uint64_t round = 0; round < kRounds; ++round) {
      // Both halves are below 2^32, so the upper half of the counter is free for the round.
      const Philox random = Philox4x32(key_, right | (round << 32), stream_);
      const uint64_t mixed = random.value[0] | (uint64_t{random.value[1]} << 32);
      const uint64_t sum = (left + mixed % range) % range;
      left = right;
      right = sum;
      std::swap(range, other_range);
    }
    value = right * left_range_ + left;
  } while (value >= size_);
  return static_cast<int64_t>(value);
}

Mixture::Mixture(std::span<const double> weights) {
  CHECK_GE(weights.size(), 1U);
  CHECK_LT(weights.size(), 1U << 16);
  counts_ = DrawsPerPeriod(Shares(weights));
  const int64_t period = std::accumulate(counts_.begin(), counts_.end(), int64_t{0});
  if (counts_.size() == 1) {
    period_.assign(1, Slot{0, 0});
    counts_.assign(1, 1);
    return;
  }
  std::vector<int64_t> drawn(counts_.size(), 0);
  period_.reserve(static_cast<size_t>(period));
  for (int64_t g = 1; g <= period; ++g) {
    const size_t source = NextSource(counts_, drawn, period, g);
    period_.push_back({static_cast<int32_t>(source), static_cast<int32_t>(drawn[source])});
    ++drawn[source];
  }
  CHECK(drawn == counts_) << "a period must end with every share met exactly";
}

Mixture::Draw Mixture::At(int64_t g) const {
  CHECK_GE(g, 0);
  const auto period = static_cast<int64_t>(period_.size());
  const Slot slot = period_[static_cast<size_t>(g % period)];
  return {slot.source, g / period * counts_[static_cast<size_t>(slot.source)] + slot.ordinal};
}

double Mixture::share(int64_t source) const {
  return static_cast<double>(counts_[static_cast<size_t>(source)]) /
         static_cast<double>(period_.size());
}

namespace {

std::vector<double> Weights(std::span<const SampleOrder::Source> sources) {
  std::vector<double> weights;
  for (const SampleOrder::Source& source : sources) {
    weights.push_back(source.weight);
  }
  return weights;
}

}  // namespace

SampleOrder::SampleOrder(uint64_t seed, std::span<const Source> sources)
    : seed_(seed), mixture_(Weights(sources)) {
  for (const Source& source : sources) {
    CHECK_GE(source.samples, 1);
    samples_.push_back(source.samples);
  }
}

SampleOrder::Sample SampleOrder::At(int64_t g) const {
  const Mixture::Draw draw = mixture_.At(g);
  const int64_t samples = samples_[static_cast<size_t>(draw.source)];
  const int64_t epoch = draw.ordinal / samples;
  // 48 bits for the epoch, 16 for the source.
  CHECK_LT(epoch, int64_t{1} << 48);
  const uint64_t stream = (static_cast<uint64_t>(draw.source) << 48) | static_cast<uint64_t>(epoch);
  const Permutation permutation(samples, seed_, stream);
  return {draw.source, epoch, permutation(draw.ordinal % samples)};
}

}  // namespace panthera
