// In which order samples are read, as a function of (seed, global sample index). Nothing is stored
// and nothing is shuffled in memory: any rank can ask for any sample, resuming needs one integer,
// and the order does not depend on how many ranks there are.
#ifndef PANTHERA_RUNTIME_DATA_SAMPLE_ORDER_H_
#define PANTHERA_RUNTIME_DATA_SAMPLE_ORDER_H_

#include <cstdint>
#include <span>
#include <vector>

namespace panthera {

// A computed permutation of [0, size): constant memory, about a tenth of a microsecond per call.
//
// A Feistel network over pairs (l, r) with l < a, r < b, a = ceil(sqrt(size)), b = ceil(size / a):
// each round adds a keyed function of one half to the other, modulo that one's range, and swaps
// them. Every round can be undone, so the whole maps [0, a*b) onto itself; a result outside
// [0, size) is mapped again until it falls inside ("cycle walking"), which keeps it a bijection.
// The round function is Philox. Construction: Black and Rogaway, "Ciphers with arbitrary finite
// domains" (CT-RSA 2002), sections 3 and 4.
class Permutation {
 public:
  // 1 <= size <= 2^62. Each (key, stream) is another permutation.
  Permutation(int64_t size, uint64_t key, uint64_t stream);

  // The image of index, which lies in [0, size).
  int64_t operator()(int64_t index) const;

 private:
  uint64_t size_;
  uint64_t key_;
  uint64_t stream_;
  uint64_t left_range_;
  uint64_t right_range_;
};

// Which source gives sample g of a weighted mixture.
//
// After any number g of samples, source s has given within 1 of g * share_s. This is Tijdeman's
// algorithm ("The chairman assignment problem", Discrete Mathematics 32, 1980, 323-330; his bound
// is 1 - 1/(2k - 2) for k sources): at each step, of the sources that are far enough behind, the
// one whose turn would come due first. The shares are first written as integers over a common
// denominator of at most 2^20, so that the schedule repeats and one period of it is a table. Shares
// with a common denominator up to 2^16, such as 0.7 and 0.3, are exact; others are off by less than
// 2^-20.
class Mixture {
 public:
  // Weights are positive and relative to their sum; at least one, at most 2^16 - 1.
  explicit Mixture(std::span<const double> weights);

  struct Draw {
    int64_t source;
    // How many of the samples before g came from this source.
    int64_t ordinal;
  };
  Draw At(int64_t g) const;

  int64_t sources() const { return static_cast<int64_t>(counts_.size()); }
  // The share of a source, as scheduled.
  double share(int64_t source) const;

 private:
  struct Slot {
    int32_t source;
    int32_t ordinal;
  };
  // Draws of each source in one period.
  std::vector<int64_t> counts_;
  std::vector<Slot> period_;
};

// Global sample index -> (source, sample of that source). Each source goes through epochs of its
// own; in each epoch it gives each of its samples once, in an order that depends on the seed, the
// source's place in the list, and the epoch.
class SampleOrder {
 public:
  struct Source {
    int64_t samples;
    double weight;
  };
  struct Sample {
    int64_t source;
    // How often this source has been gone through before.
    int64_t epoch;
    // In [0, samples) of the source.
    int64_t index;
  };

  SampleOrder(uint64_t seed, std::span<const Source> sources);

  Sample At(int64_t g) const;

 private:
  uint64_t seed_;
  std::vector<int64_t> samples_;
  Mixture mixture_;
};

}  // namespace panthera

#endif  // PANTHERA_RUNTIME_DATA_SAMPLE_ORDER_H_
