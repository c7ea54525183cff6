// A training loop as the trainer's, over the small model, on ranks that are threads.
#ifndef PANTHERA_TESTS_OPTIM_SMALL_TRAINING_H_
#define PANTHERA_TESTS_OPTIM_SMALL_TRAINING_H_

#include <cstdint>
#include <functional>
#include <string>
#include <vector>

#include "optim/seen_rows.h"
#include "tests/optim/synced_worker.h"
#include "tests/support/rank_harness.h"

namespace panthera::testing {

inline constexpr int kMicroSteps = 3;
inline constexpr int kParts = 4;  // of a micro-step, dealt to its ranks

// Finished options, without lazy rows.
OptimOptions TrainingOptions(Algorithm algorithm, Accumulation accumulate, WeightStorage weights,
                             MomentumStorage momentum = MomentumStorage::kFp32);

// What is added to the gradient of one of the parts of a micro-step: something that is not finite
// where it is to be poisoned, and 0 elsewhere.
using Poison = std::function<float(int step, int64_t micro, int64_t part, ParamId, int64_t)>;

float NoPoison(int step, int64_t micro, int64_t part, ParamId id, int64_t element);
// In steps 1 and 2 infinities in tensors of several kinds, in the first, a middle and the last
// micro-step; nothing where the options would end the run.
Poison PoisonFor(const OptimOptions& options);

// What all ranks hold in the end, element by element, and what they reported.
struct Outcome {
  Elements weights;
  Elements state1;
  Elements state2;
  std::vector<double> norms;
  std::vector<double> losses;
  std::vector<std::vector<int>> tensors;  // of each step's report, by ParamId::index
  std::vector<int64_t> masked;
  std::vector<bool> skipped;
  std::vector<bool> found;
  // What each rank has in the end of all ranks' weights.
  std::vector<std::string> replicas;
};

// Whether everything is the same but for losses, norms and replicas.
bool SameBits(const Outcome& a, const Outcome& b);

// On `ranks` ranks that share the parts of each micro-step, with small-integer gradients, whose
// sums are exact in any order, and means where the number of ranks is a power of two. Each of them
// may in turn be several tensor-parallel ranks that share the parameters; the gradients of vectors
// are then the sum of what each adds. With lazy rows each part has one token, and about half of the
// table's rows have none in a step. Reports are checked to be the same on every rank, and so are
// the vectors in the end.
class SmallTraining {
 public:
  SmallTraining(const OptimOptions& options, int ranks, Poison poison, Device device = {})
      : options_(options), ranks_(ranks), poison_(std::move(poison)), device_(device) {}

  double loss = 1;
  int tensor_ranks = 1;
  int64_t micro_steps = kMicroSteps;
  double learning_rate = 0.01;
  std::function<float(ParamId, int64_t)> weights = [](ParamId id, int64_t i) {
    return 0.5F * Noise(77, id, i);
  };

  // On ranks that are threads.
  Outcome Run(int steps);
  // On one of the ranks, all of which must call it; adds what this one holds and, on rank 0, the
  // reports.
  void RunOn(RankWorld& world, int steps, Outcome& outcome) const;
  // Of no rank yet.
  static Outcome EmptyOutcome();

 private:
  void Step(int step, SyncedWorker& worker, SeenRows& seen, RankWorld& world,
            Outcome& outcome) const;
  // What a rank's backward pass gives as the gradient of an element, whose whole is `whole`.
  float ShareOf(float whole, const Worker& worker, int tensor_rank, ParamId id,
                int64_t element) const;
  void Report(int step, SyncedWorker& worker, RankWorld& world, Outcome& outcome) const;

  OptimOptions options_;
  int ranks_;
  Poison poison_;
  Device device_;
};

}  // namespace panthera::testing

#endif  // PANTHERA_TESTS_OPTIM_SMALL_TRAINING_H_
