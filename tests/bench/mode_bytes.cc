// What each mode of training holds and sends, counted while it trains: ranks that are threads take
// real steps, the memory is what they requested, the traffic what their communicators sent.
//
//   mode_bytes                       on 1 and on 4 ranks
//   mode_bytes --ranks 8 --model 124m
//
// Prints a table in Markdown. Tiger's and Lion's momentum is bf16 beside bf16 weights. Every figure
// is bytes per parameter of the model.
#include <algorithm>
#include <cstdint>
#include <iostream>
#include <memory>
#include <mutex>
#include <string>
#include <vector>

#include "CLI/CLI.hpp"
#include "absl/strings/str_format.h"

#include "launcher/trainer.h"
#include "runtime/base/status_macros.h"
#include "tests/bench/bench_models.h"
#include "tests/bench/random_text.h"
#include "tests/equivalence/tiny_run.h"
#include "tests/support/temp_dir.h"

namespace panthera::bench {
namespace {

using testing::RankWorld;

struct Mode {
  const char* name;
  OptimOptions optim;
};

OptimOptions Optim(Algorithm algorithm, Accumulation accumulate, WeightStorage weights,
                   MomentumStorage momentum) {
  OptimOptions options;
  options.algorithm = algorithm;
  options.accumulate = accumulate;
  options.weights = weights;
  options.momentum = momentum;
  return options;
}

OptimOptions WithDirections(OptimOptions options) {
  options.publish = PublishMode::kDirection;
  return options;
}

OptimOptions WithAdamWOnTheTable(OptimOptions options) {
  options.table.optimizer = TableOptimizer::kAdamW;
  return options;
}

std::vector<Mode> Modes() {
  constexpr auto kFolded = Accumulation::kMomentum;
  constexpr auto kSummed = Accumulation::kGradient;
  const OptimOptions summed =
      Optim(Algorithm::kTiger, kSummed, WeightStorage::kBf16Plus8, MomentumStorage::kBf16);
  const OptimOptions folded =
      Optim(Algorithm::kTiger, kFolded, WeightStorage::kBf16Plus8, MomentumStorage::kBf16);
  const OptimOptions smallest =
      Optim(Algorithm::kTiger, kFolded, WeightStorage::kBf16, MomentumStorage::kBf16);
  return {
      {"AdamW, bf16 + fp32 master (as ZeRO-1)",
       Optim(Algorithm::kAdamW, kSummed, WeightStorage::kBf16PlusFp32, MomentumStorage::kFp32)},
      {"AdamW, bf16 + 8 bits",
       Optim(Algorithm::kAdamW, kSummed, WeightStorage::kBf16Plus8, MomentumStorage::kFp32)},
      {"Lion, bf16 + 8 bits",
       Optim(Algorithm::kLion, kSummed, WeightStorage::kBf16Plus8, MomentumStorage::kBf16)},
      {"Tiger, fp32",
       Optim(Algorithm::kTiger, kFolded, WeightStorage::kFp32, MomentumStorage::kFp32)},
      {"Tiger, bf16 + 8 bits, gradient buffer", summed},
      {"Tiger, bf16 + 8 bits, gradient buffer, directions", WithDirections(summed)},
      {"Tiger, bf16 + 8 bits", folded},
      {"Tiger, bf16 + 8 bits, directions", WithDirections(folded)},
      {"Tiger, bf16 + 8 bits, AdamW on the table", WithAdamWOnTheTable(folded)},
      {"Tiger, bf16", smallest},
      {"Tiger, bf16, directions", WithDirections(smallest)},
  };
}

// Of one rank, per parameter.
struct Bytes {
  double weights_and_state = 0;
  double gradients = 0;
  double communication = 0;
  double sent_per_step = 0;
};

// The largest of all ranks after two steps of `micro_steps` micro-steps each.
Bytes Measure(RunOptions options, const DataLoader& data, int ranks, int64_t micro_steps) {
  options.train.micro_batch = 1;
  options.train.global_batch = ranks * micro_steps;
  Bytes largest;
  std::mutex mutex;
  testing::RunRanks(ranks, [&](RankWorld& rank_world) {
    World world = testing::WorldOf(rank_world);
    const std::unique_ptr<Trainer> trainer =
        testing::NewTrainer(options, world, rank_world.ledger());
    CHECK_OK(trainer->TrainStep(0, &data).status());
    const int64_t sent_before = world.data_parallel->bytes_sent();
    CHECK_OK(trainer->TrainStep(1, &data).status());
    const int64_t sent = world.data_parallel->bytes_sent() - sent_before;
    const MemoryLedger& ledger = rank_world.ledger();
    const auto parameters = static_cast<double>(trainer->instance().params().total_elements());
    const auto per_parameter = [&](int64_t bytes) {
      return static_cast<double>(bytes) / parameters;
    };
    const std::lock_guard<std::mutex> lock(mutex);
    largest.weights_and_state = std::max(
        largest.weights_and_state, per_parameter(ledger.bytes(MemoryCategory::kWeights) +
                                                 ledger.bytes(MemoryCategory::kOptimizerState)));
    largest.gradients =
        std::max(largest.gradients, per_parameter(ledger.bytes(MemoryCategory::kGradients)));
    largest.communication = std::max(largest.communication,
                                     per_parameter(ledger.bytes(MemoryCategory::kCommunication)));
    largest.sent_per_step = std::max(largest.sent_per_step, per_parameter(sent));
  });
  return largest;
}

absl::Status PrintTable(const std::string& model, int ranks) {
  ASSIGN_OR_RETURN(RunOptions options,
                   BenchModel(model, {.sequence_length = 64, .sequences = 1, .micro_batch = 1}));
  const testing::TempDir directory;
  options.data.train = {{.path = directory.path() + "/text", .weight = 1}};
  RETURN_IF_ERROR(
      WriteRandomText(options.data.train[0].path, int64_t{1} << 16, options.model.vocab_size));
  ASSIGN_OR_RETURN(const DataLoader data,
                   DataLoader::Open(options.data.train,
                                    {.sequence_length = options.model.sequence_length,
                                     .vocab_size = options.model.vocab_size},
                                    options.data.seed));
  options.train.run_dir = directory.path() + "/run";
  options.train.steps = 2;
  std::cout << absl::StreamFormat(
      "| bytes per parameter, model %s | weights and state, 1 rank | weights and state, %d ranks | "
      "gradients | staging | sent per step, 1 micro-step | 4 micro-steps |\n"
      "| --- | --- | --- | --- | --- | --- | --- |\n",
      model, ranks);
  for (const Mode& mode : Modes()) {
    options.optim = mode.optim;
    const Bytes alone = Measure(options, data, 1, 1);
    const Bytes one = Measure(options, data, ranks, 1);
    const Bytes four = Measure(options, data, ranks, 4);
    std::cout << absl::StreamFormat("| %s | %.2f | %.2f | %.2f | %.2f | %.2f | %.2f |\n", mode.name,
                                    alone.weights_and_state, one.weights_and_state, one.gradients,
                                    one.communication, one.sent_per_step, four.sent_per_step)
              << std::flush;
  }
  return absl::OkStatus();
}

int Main(int argc, char** argv) {
  std::string model = "10m";
  int ranks = 4;
  CLI::App app("Counts what each mode of training holds and sends.");
  app.add_option("--model", model, "10m, 124m, 1.3b or 7b");
  app.add_option("--ranks", ranks, "data-parallel ranks")->check(CLI::Range(2, 64));
  CLI11_PARSE(app, argc, argv);
  const absl::Status status = PrintTable(model, ranks);
  if (!status.ok()) {
    std::cerr << "mode_bytes: " << status.message() << '\n';
    return 2;
  }
  return 0;
}

}  // namespace
}  // namespace panthera::bench

int main(int argc, char** argv) { return panthera::bench::Main(argc, argv); }
