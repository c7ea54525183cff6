// Trains a model on random tokens for a few steps and tells where the time goes: tokens per second,
// the time to the first step, peak memory, and for every op of the step its share of the time and
// what it reaches of this machine's rate of matrix products or of its memory's bandwidth, both
// measured in the same process.
//
//   OMP_NUM_THREADS=2 train_bench 124m --weights bf16+8 --steps 8 --json results.jsonl
//   mpirun -np 2 train_bench 10m
//   train_bench 124m --device cuda --sequence-length 2048 --sequences 32 --micro-batch 32
//
// A table goes to standard output, one line of JSON to the file.
#include <algorithm>
#include <chrono>
#include <cstdint>
#include <fstream>
#include <iostream>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "CLI/CLI.hpp"
#include "absl/strings/str_format.h"
#include <nlohmann/json.hpp>

#include "launcher/gemm_rate.h"
#include "launcher/trainer.h"
#include "launcher/world.h"
#include "model/cost.h"
#include "runtime/base/parallel_for.h"
#include "runtime/base/status_macros.h"
#include "runtime/math/gemm.h"
#include "runtime/math/gemm_tuning.h"
#include "runtime/math/op_times.h"
#include "tests/bench/bench_models.h"
#include "tests/bench/kernel_case.h"
#include "tests/bench/kernel_timer.h"
#include "tests/bench/memory_rate.h"
#include "tests/bench/random_text.h"
#include "tests/bench/statistics.h"
#include "tests/support/temp_dir.h"
#include <sys/resource.h>

namespace panthera::bench {
namespace {

using Clock = std::chrono::steady_clock;

struct Arguments {
  std::string model = "124m";
  std::string device = "auto";
  StepShape step;
  std::string weights = "bf16+8";
  int64_t steps = 6;
  std::string json;
};

struct Results {
  // From the start of the process's work to the end of each stage.
  double seconds_to_plan = 0;
  double seconds_to_memory = 0;
  double seconds_to_weights = 0;
  double seconds_to_first_step = 0;
  std::vector<double> step_seconds;  // without the first
  OpTimes ops;                       // of these steps
  double gemm_rate = 0;
  double memory_rate = 0;
  int64_t parameters = 0;
  int64_t tokens_per_step = 0;
  double flops_per_token = 0;
  int64_t peak_bytes = 0;    // of the process's memory on the host
  int64_t ledger_bytes = 0;  // requested of the device
};

double SecondsSince(Clock::time_point begin) {
  return std::chrono::duration<double>(Clock::now() - begin).count();
}

int64_t PeakResidentBytes() {
  rusage usage{};
  getrusage(RUSAGE_SELF, &usage);
  return int64_t{usage.ru_maxrss} * 1024;
}

absl::StatusOr<RunOptions> Options(const Arguments& arguments, int ranks, const std::string& stem) {
  ASSIGN_OR_RETURN(RunOptions options, BenchModel(arguments.model, arguments.step));
  options.optim.weights =
      arguments.weights == "fp32" ? WeightStorage::kFp32 : WeightStorage::kBf16Plus8;
  options.train.micro_batch =
      std::min(options.train.micro_batch, std::max<int64_t>(1, options.train.global_batch / ranks));
  options.device.kind = arguments.device == "cuda"  ? DeviceChoice::kCuda
                        : arguments.device == "cpu" ? DeviceChoice::kCpu
                                                    : DeviceChoice::kAuto;
  options.data.train = {{.path = stem, .weight = 1}};
  options.train.steps = arguments.steps + 1;
  options.train.run_dir = stem + "_run";
  // Nothing is saved.
  options.checkpoint.staging = CheckpointStaging::kNone;
  RETURN_IF_ERROR(options.Finish(ranks));
  return options;
}

// Bytes per second that the device's memory reads and writes.
double MeasureDeviceMemoryRate(Context& ctx) {
  if (!ctx.device().is_cuda()) {
    return MeasureMemoryRate();
  }
  const KernelCase copy = DeviceCopy(int64_t{1} << 30);
  return copy.work.bytes / MeasureKernel(ctx, copy, kGpuTiming).seconds;
}

absl::StatusOr<Results> Measure(const RunOptions& options, World& world) {
  Results results;
  ASSIGN_OR_RETURN(const DataLoader data,
                   DataLoader::Open(options.data.train,
                                    {.sequence_length = options.model.sequence_length,
                                     .vocab_size = options.model.vocab_size},
                                    options.data.seed));
  const Clock::time_point begin = Clock::now();
  ASSIGN_OR_RETURN(World plan_world,
                   PlanWorld(options.parallel, world.mesh.world_size(), world.mesh.tensor_rank));
  const StepPlan plan = Trainer::Plan(options, plan_world, world.device);
  results.seconds_to_plan = SecondsSince(begin);
  MemoryLedger ledger;
  Trainer trainer(options, world,
                  std::make_unique<Context>(world.device, ledger, plan.arena_bytes));
  results.seconds_to_memory = SecondsSince(begin);
  trainer.InitializeParameters();
  results.seconds_to_weights = SecondsSince(begin);
  ModelInstance& instance = trainer.instance();
  Context& ctx = instance.context();
  if (ctx.device().is_cuda()) {
    RETURN_IF_ERROR(ctx.gemm().UseAlgorithms(TuneProducts(ctx, plan.products)));
  }
  RETURN_IF_ERROR(trainer.TrainStep(0, &data).status());
  ctx.compute().Synchronize();
  results.seconds_to_first_step = SecondsSince(begin);

  const auto gemm_rate = [&] {
    return MeasureGemmRate(ctx, options.model, instance.dtype(), world.host_data_parallel());
  };
  results.gemm_rate = gemm_rate();
  ctx.set_op_times(&results.ops);
  for (int64_t step = 1; step < options.train.steps; ++step) {
    const Clock::time_point step_begin = Clock::now();
    RETURN_IF_ERROR(trainer.TrainStep(step, &data).status());
    ctx.compute().Synchronize();
    results.step_seconds.push_back(SecondsSince(step_begin));
  }
  ctx.set_op_times(nullptr);
  results.ops.Collect();
  results.peak_bytes = PeakResidentBytes();
  results.ledger_bytes = ledger.total_bytes();
  results.gemm_rate = std::max(results.gemm_rate, gemm_rate());
  results.memory_rate = MeasureDeviceMemoryRate(ctx);
  results.parameters = instance.params().total_elements();
  results.tokens_per_step = trainer.tokens_per_step();
  results.flops_per_token = CountFlops(options.model).model();
  return results;
}

template <typename Visit>
void ForEachMeasuredOp(const OpTimes& ops, Visit visit) {
  for (int op = 0; op < kNumOps; ++op) {
    for (int pass = 0; pass < kNumOpPasses; ++pass) {
      const OpKind kind{static_cast<Op>(op), static_cast<OpPass>(pass)};
      if (ops.at(kind).calls > 0) {
        visit(kind, ops.at(kind));
      }
    }
  }
}

double Sum(const std::vector<double>& values) {
  double sum = 0;
  for (const double value : values) {
    sum += value;
  }
  return sum;
}

void PrintOps(const Results& results) {
  const double total = Sum(results.step_seconds);
  const auto steps = static_cast<double>(results.step_seconds.size());
  std::cout << "\n| op | ms per step | share | reached |\n| --- | ---: | ---: | ---: |\n";
  ForEachMeasuredOp(results.ops, [&](OpKind kind, const OpTimes::Entry& entry) {
    std::string reached;
    if (entry.work.flops > 0) {
      reached = absl::StrFormat("%.0f %% of the product rate",
                                100 * entry.work.flops / entry.seconds / results.gemm_rate);
    } else if (entry.work.bytes > 0) {
      reached = absl::StrFormat("%.0f %% of the memory rate",
                                100 * entry.work.bytes / entry.seconds / results.memory_rate);
    }
    std::cout << absl::StrFormat("| %s | %.1f | %.1f %% | %s |\n", Name(kind),
                                 1e3 * entry.seconds / steps, 100 * entry.seconds / total, reached);
  });
  const double rest = total - results.ops.total_seconds();
  std::cout << absl::StrFormat("| between ops | %.1f | %.1f %% | |\n", 1e3 * rest / steps,
                               100 * rest / total);
}

void Print(const Arguments& arguments, const World& world, const Results& results) {
  const double step = Quantile(results.step_seconds, 0.5);
  const double rate = static_cast<double>(results.tokens_per_step) / step;
  std::cout << absl::StrFormat(
      "%s, weights %s: %.1fM parameters, %d tokens per step, %d ranks x %d threads\n",
      arguments.model, arguments.weights, static_cast<double>(results.parameters) / 1e6,
      results.tokens_per_step, world.mesh.world_size(), MaxThreads());
  std::cout << absl::StrFormat(
      "%.0f tokens/s (median of %d steps, %.3f s); products at %.0f GFLOP/s, of which the model's "
      "arithmetic takes %.0f %%; memory at %.1f GB/s\n",
      rate, results.step_seconds.size(), step, results.gemm_rate / 1e9,
      100 * rate * results.flops_per_token / results.gemm_rate, results.memory_rate / 1e9);
  std::cout << absl::StrFormat(
      "first step done after %.2f s: plan %.2f, memory %.2f, initial weights %.2f, step %.2f; peak "
      "memory %s\n",
      results.seconds_to_first_step, results.seconds_to_plan,
      results.seconds_to_memory - results.seconds_to_plan,
      results.seconds_to_weights - results.seconds_to_memory,
      results.seconds_to_first_step - results.seconds_to_weights, FormatBytes(results.peak_bytes));
  std::cout << absl::StrFormat("%s requested of the device\n", FormatBytes(results.ledger_bytes));
  PrintOps(results);
}

nlohmann::ordered_json ToJson(const Arguments& arguments, const World& world,
                              const Results& results) {
  nlohmann::ordered_json ops = nlohmann::ordered_json::array();
  ForEachMeasuredOp(results.ops, [&](OpKind kind, const OpTimes::Entry& entry) {
    ops.push_back({{"op", Name(kind)},
                   {"calls", entry.calls},
                   {"seconds", entry.seconds},
                   {"flops", entry.work.flops},
                   {"bytes", entry.work.bytes}});
  });
  return {{"stage", "train"},
          {"program", "panthera"},
          {"device", world.device.is_cuda() ? "cuda" : "cpu"},
          {"model", arguments.model},
          {"weights", arguments.weights},
          {"ranks", world.mesh.world_size()},
          {"threads", MaxThreads()},
          {"parameters", results.parameters},
          {"tokens_per_step", results.tokens_per_step},
          {"step_seconds", results.step_seconds},
          {"tokens_per_second",
           static_cast<double>(results.tokens_per_step) / Quantile(results.step_seconds, 0.5)},
          {"flops_per_token", results.flops_per_token},
          {"gemm_flops_per_second", results.gemm_rate},
          {"memory_bytes_per_second", results.memory_rate},
          {"seconds_to_first_step", results.seconds_to_first_step},
          {"peak_bytes", results.peak_bytes},
          {"ledger_bytes", results.ledger_bytes},
          {"ops", ops}};
}

absl::Status Run(const Arguments& arguments) {
  const MpiRuntime runtime;
  ShareCores(runtime);
  const testing::TempDir directory;
  const std::string stem = directory.File("tokens");
  ASSIGN_OR_RETURN(const RunOptions options, Options(arguments, runtime.size(), stem));
  RETURN_IF_ERROR(WriteRandomText(stem, int64_t{1} << 20, options.model.vocab_size));
  ASSIGN_OR_RETURN(World world,
                   ConnectWorld(runtime, options.parallel, options.device, ConnectHosts(runtime)));
  ASSIGN_OR_RETURN(const Results results, Measure(options, world));
  if (runtime.rank() == 0) {
    Print(arguments, world, results);
    if (!arguments.json.empty()) {
      std::ofstream(arguments.json, std::ios::app) << ToJson(arguments, world, results) << "\n";
    }
  }
  return absl::OkStatus();
}

}  // namespace
}  // namespace panthera::bench

int main(int argc, char** argv) {
  panthera::bench::Arguments arguments;
  CLI::App app("Measures training of a model on this machine");
  app.add_option("model", arguments.model, "10m, 124m, 1.3b or 7b")->capture_default_str();
  app.add_option("--device", arguments.device)
      ->check(CLI::IsMember({"auto", "cpu", "cuda"}))
      ->capture_default_str();
  app.add_option("--sequence-length", arguments.step.sequence_length, "tokens; 0: the model's own")
      ->check(CLI::NonNegativeNumber);
  app.add_option("--sequences", arguments.step.sequences, "per step; 0: the model's own")
      ->check(CLI::NonNegativeNumber);
  app.add_option("--micro-batch", arguments.step.micro_batch,
                 "sequences at a time; 0: the model's own")
      ->check(CLI::NonNegativeNumber);
  app.add_option("--weights", arguments.weights)
      ->check(CLI::IsMember({"fp32", "bf16+8"}))
      ->capture_default_str();
  app.add_option("--steps", arguments.steps, "measured, after one that is not")
      ->check(CLI::PositiveNumber)
      ->capture_default_str();
  app.add_option("--json", arguments.json, "file that gets one more line");
  CLI11_PARSE(app, argc, argv);
  const absl::Status status = panthera::bench::Run(arguments);
  if (!status.ok()) {
    std::cerr << "train_bench: " << status.message() << std::endl;
    return 1;
  }
  return 0;
}
