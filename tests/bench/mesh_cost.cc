// What it costs to cut a model's training over a mesh of ranks: steps of the same model on the same
// global batch, by one rank and by meshes of as many threads in all, in turn.
//
//   mesh_cost                            2x1 and 1x2 on 2 threads, 2x2 and 1x4 on 4
//   mesh_cost --model 10m --pairs 40 --weights fp32
//
// Ranks are threads of this process, which exchange data through its memory. So a step of either
// kind begins where the other has ended, a pair shares whatever else the machine does, and what is
// measured is the cut - smaller products, copies, sums and waiting - without what MPI adds. Of each
// mesh the table has the median of the ratios of a pair (mesh / one rank) and their quartiles, in
// time and in time of all cores together, which is without waiting and other programs; the
// floor - one rank's time and that of moving what is sent at the rate of this machine's memory -
// and what was predicted before anything was measured.
//
// The bytes that each rank sends are counted and must be those of the formulas, else the exit code
// is 1.
#include <omp.h>

#include <chrono>
#include <cstddef>
#include <cstdint>
#include <ctime>
#include <iostream>
#include <memory>
#include <mutex>
#include <string>
#include <utility>
#include <vector>

#include "CLI/CLI.hpp"
#include "absl/strings/str_format.h"

#include "launcher/trainer.h"
#include "runtime/base/status_macros.h"
#include "runtime/comm/self_communicator.h"
#include "tests/bench/bench_models.h"
#include "tests/bench/memory_rate.h"
#include "tests/bench/mesh_traffic.h"
#include "tests/bench/random_text.h"
#include "tests/bench/statistics.h"
#include "tests/equivalence/tiny_run.h"
#include "tests/support/temp_dir.h"

namespace panthera::bench {
namespace {

using testing::RankWorld;
using Clock = std::chrono::steady_clock;

// Of a step: on the clock, and of all cores together, which other programs disturb less.
struct Cost {
  double seconds = 0;
  double core_seconds = 0;
};

class Stopwatch {
 public:
  Cost Read() const {
    return {std::chrono::duration<double>(Clock::now() - begin_).count(),
            CoreSeconds() - core_begin_};
  }

 private:
  static double CoreSeconds() {
    timespec time{};
    CHECK_EQ(clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &time), 0);
    return static_cast<double>(time.tv_sec) + 1e-9 * static_cast<double>(time.tv_nsec);
  }

  Clock::time_point begin_ = Clock::now();
  double core_begin_ = CoreSeconds();
};

// A mesh and the ratio that was predicted for it with model 10m on two cores, written down before
// it was measured. Two ranks on two cores in place of two threads lose the waits at the end of each
// parallel loop and gain two copies of the weights' traffic; tensor ranks multiply matrices half or
// a quarter as wide and copy ten [N, C] per block; four threads on two cores wait for each other
// either way.
struct Contestant {
  int data;
  int tensor;
  double predicted_ratio;

  int ranks() const { return data * tensor; }
};
constexpr Contestant kContestants[] = {
    {2, 1, 1.05},
    {1, 2, 1.15},
    {2, 2, 1.15},
    {1, 4, 1.25},
};

struct Arguments {
  std::string model = "10m";
  std::string weights = "bf16+8";
  StepShape step{.sequence_length = 256, .sequences = 8, .micro_batch = 0};
  int64_t pairs = 40;
};

struct Results {
  std::vector<Cost> alone;   // of a step by one rank, by pair
  std::vector<Cost> shared;  // by the mesh
  AxisBytes sent;            // by a rank in one step
  bool sent_as_formula = true;
};

// Micro-batches as large as can be: one per step and rank.
absl::StatusOr<RunOptions> OptionsFor(const Arguments& arguments, const testing::TempDir& directory,
                                      int data, int tensor) {
  ASSIGN_OR_RETURN(RunOptions options, BenchModel(arguments.model, arguments.step));
  options.optim.weights =
      arguments.weights == "fp32" ? WeightStorage::kFp32 : WeightStorage::kBf16Plus8;
  options.train.micro_batch = options.train.global_batch / data;
  options.parallel.tensor = tensor;
  options.data.train = {{.path = directory.File("text"), .weight = 1}};
  options.train.steps = arguments.pairs + 1;
  options.train.run_dir = directory.File("run");
  RETURN_IF_ERROR(options.Finish(data * tensor));
  return options;
}

World WorldOfOneRank() {
  World world;
  world.host = std::make_unique<SelfHostGroup>();
  world.data_parallel = std::make_unique<SelfCommunicator>();
  world.tensor_parallel = std::make_unique<SelfCommunicator>();
  return world;
}

// A rank of a mesh, which is a thread, and on the first one a trainer that trains alone.
class Duel {
 public:
  Duel(RankWorld& ranks, const RunOptions& alone, const RunOptions& shared, const DataLoader& data,
       Results& results, std::mutex& mutex)
      : ranks_(ranks),
        tensor_(static_cast<int>(shared.parallel.tensor)),
        data_(data),
        results_(results),
        mutex_(mutex),
        world_(testing::WorldOf(ranks, {}, tensor_)),
        trainer_(testing::NewTrainer(shared, world_, ranks.ledger())),
        options_(shared) {
    if (ranks.rank() == 0) {
      omp_set_num_threads(ranks.size());
      alone_ = testing::NewTrainer(alone, world_alone_, ledger_alone_);
      omp_set_num_threads(1);
    }
  }

  // The first pair does not count. Whose turn is first changes from pair to pair.
  void Run(int64_t pairs) {
    for (int64_t pair = 0; pair <= pairs; ++pair) {
      if (pair % 2 == 0) {
        StepAlone(pair);
        StepShared(pair);
      } else {
        StepShared(pair);
        StepAlone(pair);
      }
    }
  }

 private:
  // The others wait for the first without using a core.
  void StepAlone(int64_t step) {
    if (ranks_.rank() == 0) {
      omp_set_num_threads(ranks_.size());
      const Stopwatch watch;
      CHECK_OK(alone_->TrainStep(step, &data_).status());
      if (step > 0) {
        results_.alone.push_back(watch.Read());
      }
      omp_set_num_threads(1);
    }
    ranks_.Meet();
  }

  void StepShared(int64_t step) {
    const AxisBytes before = Sent();
    const Stopwatch watch;
    CHECK_OK(trainer_->TrainStep(step, &data_).status());
    ranks_.Meet();
    if (ranks_.rank() == 0 && step > 0) {
      results_.shared.push_back(watch.Read());
    }
    const AxisBytes sent = {Sent().data - before.data, Sent().tensor - before.tensor};
    const absl::StatusOr<AxisBytes> formula = TrafficByFormula(options_, world_.mesh);
    CHECK_OK(formula.status());
    const std::lock_guard<std::mutex> lock(mutex_);
    results_.sent = sent;
    results_.sent_as_formula =
        results_.sent_as_formula && sent.data == formula->data && sent.tensor == formula->tensor;
  }

  AxisBytes Sent() const {
    return {world_.data_parallel->bytes_sent(), world_.tensor_parallel->bytes_sent()};
  }

  RankWorld& ranks_;
  int tensor_;
  const DataLoader& data_;
  Results& results_;
  std::mutex& mutex_;
  World world_;
  std::unique_ptr<Trainer> trainer_;
  RunOptions options_;
  MemoryLedger ledger_alone_;
  World world_alone_ = WorldOfOneRank();
  std::unique_ptr<Trainer> alone_;
};

absl::StatusOr<Results> Measure(const Arguments& arguments, const testing::TempDir& directory,
                                const Contestant& contestant) {
  ASSIGN_OR_RETURN(const RunOptions alone, OptionsFor(arguments, directory, 1, 1));
  ASSIGN_OR_RETURN(RunOptions shared,
                   OptionsFor(arguments, directory, contestant.data, contestant.tensor));
  ASSIGN_OR_RETURN(const DataLoader data,
                   DataLoader::Open(alone.data.train,
                                    {.sequence_length = alone.model.sequence_length,
                                     .vocab_size = alone.model.vocab_size},
                                    alone.data.seed));
  Results results;
  std::mutex mutex;
  const std::string reason =
      testing::RunRanksFor(std::chrono::hours(2), contestant.ranks(), [&](RankWorld& ranks) {
        Duel duel(ranks, alone, shared, data, results, mutex);
        duel.Run(arguments.pairs);
      });
  if (!reason.empty()) {
    return absl::InternalError(reason);
  }
  return results;
}

std::vector<double> Of(const std::vector<Cost>& costs, double Cost::*kind) {
  std::vector<double> values;
  values.reserve(costs.size());
  for (const Cost& cost : costs) {
    values.push_back(cost.*kind);
  }
  return values;
}

// What all ranks send is read and written once, and read again where it is added or multiplied.
double FloorRatio(const Contestant& contestant, const Results& results, double memory_rate) {
  const double moved = 3.0 * contestant.ranks() * static_cast<double>(results.sent.sum());
  return 1 + moved / memory_rate / Quantile(Of(results.alone, &Cost::seconds), 0.5);
}

// mesh / one rank, by pair.
std::vector<double> Ratios(const Results& results, double Cost::*kind) {
  std::vector<double> ratios;
  for (size_t pair = 0; pair < results.alone.size(); ++pair) {
    ratios.push_back(results.shared[pair].*kind / results.alone[pair].*kind);
  }
  return ratios;
}

std::string MedianAndQuartiles(const std::vector<double>& values) {
  return absl::StrFormat("%.2f (%.2f to %.2f)", Quantile(values, 0.5), Quantile(values, 0.25),
                         Quantile(values, 0.75));
}

void PrintRow(const Contestant& contestant, const Results& results, const AxisBytes& formula,
              double memory_rate) {
  std::cout << absl::StreamFormat(
                   "| %d x %d | %d | %.0f | %.0f | %s | %s | %.2f | %.2f | %d | %d | %d | %d |\n",
                   contestant.data, contestant.tensor, contestant.ranks(),
                   1e3 * Quantile(Of(results.alone, &Cost::seconds), 0.5),
                   1e3 * Quantile(Of(results.shared, &Cost::seconds), 0.5),
                   MedianAndQuartiles(Ratios(results, &Cost::seconds)),
                   MedianAndQuartiles(Ratios(results, &Cost::core_seconds)),
                   FloorRatio(contestant, results, memory_rate), contestant.predicted_ratio,
                   results.sent.data, formula.data, results.sent.tensor, formula.tensor)
            << std::flush;
}

absl::StatusOr<bool> PrintTable(const Arguments& arguments) {
  const testing::TempDir directory;
  ASSIGN_OR_RETURN(const RunOptions options, OptionsFor(arguments, directory, 1, 1));
  RETURN_IF_ERROR(
      WriteRandomText(directory.File("text"), int64_t{1} << 18, options.model.vocab_size));
  const double memory_rate = MeasureMemoryRate();
  std::cout << absl::StreamFormat(
      "model %s, weights %s, %d sequences of %d tokens per step, medians of %d pairs on %d cores\n"
      "| data x tensor | threads | ms, one rank | ms, mesh | ratio of time | of core time | floor "
      "| predicted | sent, data axis | by formula | tensor axis | by formula |\n"
      "| --- | ---: | ---: | ---: | --- | --- | ---: | ---: | ---: | ---: | ---: | ---: |\n",
      arguments.model, arguments.weights, options.train.global_batch, options.model.sequence_length,
      arguments.pairs, omp_get_num_procs());
  bool as_formula = true;
  for (const Contestant& contestant : kContestants) {
    ASSIGN_OR_RETURN(const Results results, Measure(arguments, directory, contestant));
    ASSIGN_OR_RETURN(const RunOptions shared,
                     OptionsFor(arguments, directory, contestant.data, contestant.tensor));
    ASSIGN_OR_RETURN(const Mesh mesh, Mesh::Create(shared.parallel, 0, contestant.ranks()));
    ASSIGN_OR_RETURN(const AxisBytes formula, TrafficByFormula(shared, mesh));
    PrintRow(contestant, results, formula, memory_rate);
    as_formula = as_formula && results.sent_as_formula;
  }
  return as_formula;
}

int Main(int argc, char** argv) {
  Arguments arguments;
  CLI::App app("Measures what cutting training over a mesh of ranks costs on this machine.");
  app.add_option("--model", arguments.model, "10m, 124m, 1.3b or 7b")->capture_default_str();
  app.add_option("--weights", arguments.weights)
      ->check(CLI::IsMember({"fp32", "bf16+8"}))
      ->capture_default_str();
  app.add_option("--sequence-length", arguments.step.sequence_length, "tokens")
      ->check(CLI::PositiveNumber)
      ->capture_default_str();
  app.add_option("--sequences", arguments.step.sequences, "per step; even")
      ->check(CLI::PositiveNumber)
      ->capture_default_str();
  app.add_option("--pairs", arguments.pairs, "of steps, after one that is not measured")
      ->check(CLI::PositiveNumber)
      ->capture_default_str();
  CLI11_PARSE(app, argc, argv);
  const absl::StatusOr<bool> as_formula = PrintTable(arguments);
  if (!as_formula.ok()) {
    std::cerr << "mesh_cost: " << as_formula.status().message() << '\n';
    return 2;
  }
  if (!*as_formula) {
    std::cerr << "mesh_cost: a rank sent other bytes than the formulas say\n";
    return 1;
  }
  return 0;
}

}  // namespace
}  // namespace panthera::bench

int main(int argc, char** argv) { return panthera::bench::Main(argc, argv); }
