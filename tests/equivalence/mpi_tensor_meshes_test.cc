// Tensor-parallel processes under mpirun do what as many threads of one process do, bit for bit.
#include <memory>
#include <mutex>
#include <string>
#include <vector>

#include <gmock/gmock.h>

#include "tests/equivalence/tiny_run.h"
#include "tests/support/mpi_test_main.h"

namespace panthera {
namespace {

using testing::MpiTestWorld;
using testing::RankWorld;
using testing::Tensors;
using testing::TinyRun;

constexpr int64_t kSteps = 2;

// What one rank holds after a few steps, and what the steps reported.
struct Course {
  std::vector<double> losses;
  std::vector<double> norms;
  std::vector<int64_t> bytes_sent;
  double validation_loss = 0;
  Tensors tensors;
};

Course TakeSteps(const TinyRun& run, RankWorld& rank_world) {
  World world = testing::WorldOf(rank_world, {}, static_cast<int>(run.options.parallel.tensor));
  const std::unique_ptr<Trainer> trainer =
      testing::NewTrainer(run.options, world, rank_world.ledger());
  const DataLoader data = run.OpenData();
  Course course;
  for (int64_t step = 0; step < kSteps; ++step) {
    const absl::StatusOr<StepResult> result = trainer->TrainStep(step, &data);
    CHECK_OK(result.status());
    course.losses.push_back(result->loss_nats);
    course.norms.push_back(result->gradient_norm);
  }
  absl::StatusOr<ValidationSet> set =
      ValidationSet::Open(run.options.data.validation,
                          {.sequence_length = run.options.model.sequence_length,
                           .vocab_size = run.options.model.vocab_size},
                          /*sequences=*/5);
  CHECK_OK(set.status());
  const absl::StatusOr<Evaluation> evaluation = trainer->Evaluate(&*set, set->size());
  CHECK_OK(evaluation.status());
  course.validation_loss = evaluation->MeanLoss();
  course.bytes_sent = {world.data_parallel->bytes_sent(), world.tensor_parallel->bytes_sent()};
  testing::CopyShards(*trainer, course.tensors);
  return course;
}

struct Variant {
  Accumulation accumulate;
  WeightStorage weights;
  Tie tie;
};

class MpiTensorMeshesTest : public ::testing::TestWithParam<Variant> {};

// Every pair of choices.
INSTANTIATE_TEST_SUITE_P(
    Variants, MpiTensorMeshesTest,
    ::testing::Values(Variant{Accumulation::kMomentum, WeightStorage::kFp32, Tie::kNone},
                      Variant{Accumulation::kMomentum, WeightStorage::kBf16Plus8, Tie::kTied},
                      Variant{Accumulation::kGradient, WeightStorage::kFp32, Tie::kTied},
                      Variant{Accumulation::kGradient, WeightStorage::kBf16Plus8, Tie::kNone}));

// Six heads over two key/value heads, which four ranks share; no rank of four has an equal part of
// anything, nor has one of two of the vocabulary or of a sequence's rows.
TEST_P(MpiTensorMeshesTest, ProcessesDoWhatThreadsDo) {
  RankWorld& process = MpiTestWorld();
  TinyRun run(kSteps);
  run.options.model.width = 20;
  run.options.model.heads = 6;
  run.options.model.kv_heads = 2;
  run.options.model.head_width = 4;
  run.options.model.ffn_width = 26;
  run.options.model.sequence_length = 15;
  run.options.model.head_chunk_rows = 6;
  run.options.train.global_batch = 8;
  run.options.optim.schedule.warmup_steps = 0;
  run.options.optim.accumulate = GetParam().accumulate;
  run.options.optim.weights = GetParam().weights;
  run.options.model.tie = GetParam().tie;
  for (const int tensor : {2, 4}) {
    if (process.size() % tensor != 0) {
      continue;
    }
    SCOPED_TRACE(std::to_string(tensor) + " ranks share each layer");
    run.options.parallel.tensor = tensor;

    const Course actual = TakeSteps(run, process);

    Course expected;
    std::mutex mutex;
    testing::RunRanks(process.size(), [&](RankWorld& thread) {
      const Course course = TakeSteps(run, thread);
      const std::lock_guard<std::mutex> lock(mutex);
      if (thread.rank() == process.rank()) {
        expected = course;
      }
    });
    EXPECT_EQ(actual.losses, expected.losses);
    EXPECT_EQ(actual.norms, expected.norms);
    EXPECT_EQ(actual.bytes_sent, expected.bytes_sent);
    EXPECT_EQ(actual.validation_loss, expected.validation_loss);
    EXPECT_FALSE(actual.tensors.empty());
    EXPECT_EQ(actual.tensors, expected.tensors);
  }
  process.Meet();
}

}  // namespace
}  // namespace panthera
