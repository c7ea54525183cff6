#include "launcher/evaluation.h"

#include <cmath>
#include <memory>
#include <mutex>
#include <utility>
#include <vector>

#include <gmock/gmock.h>

#include "model/init.h"
#include "tests/equivalence/tiny_run.h"

namespace panthera {
namespace {

using testing::RankWorld;
using testing::RunRanks;
using testing::TinyRun;

constexpr int64_t kArenaBytes = int64_t{1} << 24;

ValidationSet OpenValidation(const RunOptions& options) {
  absl::StatusOr<ValidationSet> set = ValidationSet::Open(
      options.data.validation,
      {.sequence_length = options.model.sequence_length, .vocab_size = options.model.vocab_size},
      0);
  CHECK_OK(set.status());
  return *std::move(set);
}

// What `ranks` ranks with batches of `batch` find on `sequences` sequences; all must find the same.
Evaluation Measure(const TinyRun& run, int ranks, int64_t batch, int64_t sequences) {
  std::vector<Evaluation> results(static_cast<size_t>(ranks));
  RunRanks(ranks, [&](RankWorld& world) {
    RunOptions options = run.options;
    ASSERT_EQ(options.Finish(1), absl::OkStatus());
    ModelInstance instance(options.model, WeightStorage::kFp32, world.communicator(),
                           std::make_unique<Context>(Device(), world.ledger(), kArenaBytes),
                           batch * options.model.sequence_length);
    InitializeShards(instance.params(), 3);
    instance.params().Publish(world.communicator(), world.stream(), world.stream());
    const ValidationSet set = OpenValidation(options);
    absl::StatusOr<Evaluation> evaluation =
        Evaluator(instance, batch).Run(&set, sequences, world.communicator());
    ASSERT_TRUE(evaluation.ok()) << evaluation.status();
    results[static_cast<size_t>(world.rank())] = *std::move(evaluation);
  });
  for (const Evaluation& result : results) {
    EXPECT_EQ(result.loss_nats, results[0].loss_nats);
    EXPECT_EQ(result.correct, results[0].correct);
    EXPECT_EQ(result.sequences, sequences);
  }
  return results[0];
}

// `relative` bounds the difference of two sums of losses, all of which are positive.
void ExpectNear(const Evaluation& a, const Evaluation& b, double relative) {
  ASSERT_EQ(a.loss_nats.size(), b.loss_nats.size());
  for (size_t t = 0; t < a.loss_nats.size(); ++t) {
    EXPECT_GT(b.loss_nats[t], 0);
    EXPECT_NEAR(a.loss_nats[t], b.loss_nats[t], relative * b.loss_nats[t]) << t;
  }
  EXPECT_EQ(a.correct, b.correct);
}

// n doubles summed in two orders: each sum errs by at most (n - 1) 2^-53 of it.
double OrderBound(int64_t n) { return 2 * static_cast<double>(n - 1) * 0x1p-53; }

TEST(EvaluationTest, MoreRanksThanSequencesGiveTheResultOfOneRank) {
  const TinyRun run(2);
  ExpectNear(Measure(run, 4, 1, 2), Measure(run, 1, 1, 2), OrderBound(2));
}

TEST(EvaluationTest, UnequalSharesGiveTheResultOfOneRank) {
  const TinyRun run(2);
  ExpectNear(Measure(run, 3, 1, 7), Measure(run, 1, 1, 7), OrderBound(7));
}

TEST(EvaluationTest, BatchesWithARemainderGiveTheResultOfSingleSequences) {
  const TinyRun run(2);
  const Evaluation single = Measure(run, 1, 1, 7);
  // Products of another shape may sum their few dozen terms in another order. A loss of about
  // log(23) passes through two blocks; 256 roundings to fp32 are far more than it meets in
  // sequence.
  const double bound = 256 * 0x1p-24;
  ExpectNear(Measure(run, 1, 3, 7), single, bound);
  ExpectNear(Measure(run, 2, 3, 7), single, bound);
}

TEST(EvaluationTest, OnMetaMeasuresTheArenaForEveryCount) {
  const TinyRun run(2);
  RunOptions options = run.options;
  ASSERT_EQ(options.Finish(1), absl::OkStatus());
  RunRanks(1, [&](RankWorld& world) {
    const auto planned = [&](int64_t batch, int64_t sequences) {
      MemoryLedger ledger;
      ModelInstance instance(options.model, WeightStorage::kFp32, world.communicator(),
                             Context::Plan({}, ledger), batch * options.model.sequence_length);
      Evaluator evaluator(instance, batch);
      EXPECT_TRUE(evaluator.Run(nullptr, sequences, world.communicator()).ok());
      return instance.context().arena().peak_bytes();
    };
    EXPECT_EQ(planned(5, 0), planned(5, 12));
    EXPECT_GE(planned(5, 0), planned(1, 0));
    EXPECT_GT(planned(5, 0), 0);
  });
}

TEST(EvaluationTest, MeansAreOverSequencesAndPositions) {
  const Evaluation evaluation{.loss_nats = {2, 4, 6, 8}, .correct = {2, 1, 0, 1}, .sequences = 2};
  EXPECT_EQ(evaluation.MeanLoss(), 2.5);
  EXPECT_EQ(evaluation.MeanLoss(1, 3), 2.5);
  EXPECT_EQ(evaluation.MeanLoss(3, 4), 4);
  EXPECT_EQ(evaluation.Accuracy(), 0.5);
  EXPECT_EQ(evaluation.Accuracy(0, 1), 1);
}

}  // namespace
}  // namespace panthera
