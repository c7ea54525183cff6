#ifndef PANTHERA_LAUNCHER_EVALUATION_H_
#define PANTHERA_LAUNCHER_EVALUATION_H_

#include <cstdint>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"

#include "launcher/batch_feed.h"
#include "launcher/model_instance.h"
#include "runtime/comm/communicator.h"
#include "runtime/data/loader.h"

namespace panthera {

// What a model makes of held-out text: sums over sequences, by position in the sequence.
struct Evaluation {
  std::vector<double> loss_nats;  // [T], summed over `sequences`
  std::vector<double> correct;    // [T], targets with the largest logit
  int64_t sequences = 0;

  // Means over all positions, or over positions [begin, end).
  double MeanLoss() const { return MeanLoss(0, static_cast<int64_t>(loss_nats.size())); }
  double MeanLoss(int64_t begin, int64_t end) const;
  double Accuracy() const { return Accuracy(0, static_cast<int64_t>(correct.size())); }
  double Accuracy(int64_t begin, int64_t end) const;
};

// Where evaluation puts its batches and sums. Owns memory for `sequences` at a time.
class Evaluator {
 public:
  Evaluator(ModelInstance& instance, int64_t sequences);

  // The first `count` sequences of `set`, shared among the ranks. Every rank gets the result of
  // all, which are summed in host memory. Blocks on the peers. On kMeta computes nothing and
  // measures the arena for every count; `set` may be null then. An error is this rank's alone: its
  // peers wait for it in vain and must be ended. `after_batch` is called after every batch of this
  // rank.
  absl::StatusOr<Evaluation> Run(
      const ValidationSet* set, int64_t count, Communicator& host_data_parallel,
      absl::FunctionRef<void()> after_batch = [] {});

 private:
  // The sequences [begin, end) in full batches, then what is left one by one: only two shapes of
  // batch occur, and the plan knows what the libraries need for both.
  absl::Status RunBatches(const ValidationSet* set, int64_t begin, int64_t end,
                          absl::FunctionRef<void()> after_batch);
  absl::Status RunBatch(const ValidationSet* set, int64_t first, int64_t count);

  ModelInstance& instance_;
  int64_t tokens_;
  BatchFeed batches_;
  Buffer memory_;
  Tensor sums_;  // [2, T] f64: losses, correct
};

}  // namespace panthera

#endif  // PANTHERA_LAUNCHER_EVALUATION_H_
