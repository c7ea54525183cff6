#include "launcher/plan_command.h"

#include <omp.h>

#include <algorithm>
#include <iostream>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "CLI/CLI.hpp"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"

#include "launcher/argument_error.h"
#include "launcher/byte_size.h"
#include "launcher/config_arguments.h"
#include "launcher/config_file.h"
#include "launcher/exit_codes.h"
#include "launcher/memory_advice.h"
#include "launcher/save_staging.h"
#include "launcher/trainer.h"
#include "launcher/world.h"
#include "model/cost.h"
#include "runtime/base/status_macros.h"
#include "runtime/metrics/console.h"

namespace panthera {
namespace {

struct PlanArguments {
  ConfigArguments config;
  int ranks = 1;
  std::string device = "cpu";
  std::string memory;
  int threads = 0;  // 0: this machine's cores, shared among the ranks
};

constexpr char kFooter[] =
    "Examples:\n"
    "  panthera plan configs/llama_124m.toml --ranks 2\n"
    "  panthera plan configs/llama_7b_64gpu.toml --ranks 64 --device cuda --memory 80GiB";

void PrintModel(const RunOptions& options) {
  const ParameterCount count = CountParameters(options.model);
  const FlopsPerToken flops = CountFlops(options.model);
  std::cout << absl::StrFormat(
      "parameters          %s (%d): embedding %s, attention %s, feed-forward %s, norms %s, head "
      "%s\n",
      FormatCount(static_cast<double>(count.total())), count.total(),
      FormatCount(static_cast<double>(count.embedding)),
      FormatCount(static_cast<double>(count.attention)),
      FormatCount(static_cast<double>(count.mlp)), FormatCount(static_cast<double>(count.norms)),
      FormatCount(static_cast<double>(count.head)));
  std::cout << "FLOPs per token     " << FormatCount(flops.model()) << " (forward "
            << FormatCount(flops.forward) << ", backward " << FormatCount(flops.backward)
            << "), with recomputation " << FormatCount(flops.hardware()) << "\n";
  const auto tokens =
      static_cast<double>(options.train.global_batch * options.model.sequence_length);
  std::cout << "a step              " << FormatCount(tokens) << " tokens, "
            << FormatCount(flops.model() * tokens) << "FLOPs; the run "
            << FormatCount(tokens * static_cast<double>(options.train.steps)) << " tokens\n";
}

void PrintMemory(const RunOptions& options, const StepPlan& plan) {
  std::cout << "memory of a rank    " << FormatBytes(plan.total_bytes()) << "\n";
  const auto parameters = static_cast<double>(CountParameters(options.model).total());
  for (int c = 0; c < kNumMemoryCategories; ++c) {
    const auto category = static_cast<MemoryCategory>(c);
    if (category == MemoryCategory::kPinned) {
      continue;
    }
    const int64_t bytes = plan.memory.bytes(category) +
                          (category == MemoryCategory::kActivations ? plan.arena_bytes : 0);
    if (category == MemoryCategory::kCheckpoint && bytes == 0) {
      continue;
    }
    std::cout << absl::StrFormat("  %-18s%-10s%.2f bytes per parameter\n", Name(category),
                                 FormatBytes(bytes), static_cast<double>(bytes) / parameters);
  }
  if (const int64_t pinned = plan.memory.bytes(MemoryCategory::kPinned); pinned > 0) {
    std::cout << absl::StrFormat("%-20s%s\n", Name(MemoryCategory::kPinned), FormatBytes(pinned));
    for (const MemoryLedger::Entry& entry : plan.memory.entries()) {
      if (entry.category == MemoryCategory::kPinned && entry.name == SaveStaging::kName) {
        std::cout << absl::StrFormat("  %-18s%s\n", entry.name, FormatBytes(entry.bytes));
      }
    }
  }
}

// One axis: what a rank sends to its peers there, and how much it computes meanwhile, which tells
// how fast links must be to keep up.
void PrintAxis(const char* name, int64_t bytes, int ranks, double flops) {
  if (ranks > 1) {
    std::cout << absl::StrFormat("  %-18s%-10sto %d %s; %sFLOPs for each byte\n", name,
                                 FormatBytes(bytes), ranks - 1, ranks == 2 ? "rank" : "ranks",
                                 FormatCount(flops / static_cast<double>(bytes)));
  }
}

void PrintTraffic(const RunOptions& options, const Mesh& mesh, const AxisBytes& sent) {
  std::cout << "sent by a rank      " << FormatBytes(sent.sum()) << " per step\n";
  const auto tokens =
      static_cast<double>(options.train.global_batch * options.model.sequence_length);
  const double flops =
      CountFlops(options.model).hardware() * tokens / static_cast<double>(mesh.world_size());
  PrintAxis("data axis", sent.data, mesh.data_size, flops);
  PrintAxis("tensor axis", sent.tensor, mesh.tensor_size, flops);
}

// What fills the arena when it is fullest: the most under one name first.
void PrintArena(const StepPlan& plan) {
  constexpr size_t kMostLines = 5;
  std::map<std::string, int64_t> sums;
  for (const Arena::Allocation& allocation : plan.arena_peak) {
    sums[allocation.name] += allocation.bytes;
  }
  std::vector<std::pair<int64_t, std::string>> largest;
  for (const auto& [name, bytes] : sums) {
    largest.emplace_back(bytes, name);
  }
  std::sort(largest.rbegin(), largest.rend());
  largest.resize(std::min(largest.size(), kMostLines));
  std::cout << "most of activations\n";
  for (const auto& [bytes, name] : largest) {
    std::cout << absl::StrFormat("  %-9s  %s\n", FormatBytes(bytes), name);
  }
}

// The threads of a rank if this machine's cores were shared among the ranks.
int ThreadsOfARank(const PlanArguments& arguments) {
  if (arguments.threads > 0) {
    return arguments.threads;
  }
  const int cores = omp_get_num_procs();
  return std::max(1, cores / std::min(arguments.ranks, cores));
}

absl::StatusOr<int> Plan(const PlanArguments& arguments) {
  RunOptions options;
  RETURN_IF_ERROR(LoadConfig(arguments.config.path, arguments.config.overrides, options));
  RETURN_IF_ERROR(options.Finish(arguments.ranks));
  std::optional<int64_t> memory;
  if (!arguments.memory.empty()) {
    const absl::StatusOr<int64_t> bytes = ParseByteSize(arguments.memory);
    if (!bytes.ok()) {
      return absl::InvalidArgumentError(
          absl::StrCat("--memory: ", std::string(bytes.status().message())));
    }
    memory = *bytes;
  }
  const Device target{arguments.device == "cuda" ? DeviceKind::kCuda : DeviceKind::kCpu, 0};
  ASSIGN_OR_RETURN(World world, PlanWorld(options.parallel, arguments.ranks));
  const int threads = ThreadsOfARank(arguments);
  omp_set_num_threads(threads);
  const StepPlan plan = Trainer::Plan(options, world, target);
  ASSIGN_OR_RETURN(const int64_t micro_steps, CountMicroSteps(options.train, world.mesh.data_size));

  const std::string mesh =
      absl::StrFormat(" (data %d x tensor %d)", world.mesh.data_size, world.mesh.tensor_size);
  std::cout << arguments.config.path << " on " << arguments.ranks << " x " << arguments.device
            << (target.is_cpu() ? absl::StrFormat(" of %d threads", threads) : "")
            << (world.mesh.tensor_size > 1 ? mesh : "") << ", " << micro_steps << " micro-steps of "
            << options.train.micro_batch << " sequences\n";
  PrintModel(options);
  PrintMemory(options, plan);
  PrintTraffic(options, world.mesh, plan.sent);
  if (!memory.has_value()) {
    return kExitDone;
  }
  if (plan.total_bytes() <= *memory) {
    std::cout << "fits                yes: " << FormatBytes(*memory - plan.total_bytes()) << " of "
              << FormatBytes(*memory) << " are left for libraries\n";
    return kExitDone;
  }
  std::cout << "fits                no: " << FormatBytes(plan.total_bytes() - *memory)
            << " more than " << FormatBytes(*memory) << "\n";
  PrintArena(plan);
  std::cout << AdviseForMemory(options, arguments.ranks, target, *memory);
  return kExitDoesNotFit;
}

int RunPlan(const PlanArguments& arguments) {
  const absl::StatusOr<int> exit_code = Plan(arguments);
  if (!exit_code.ok()) {
    std::cerr << "panthera plan: " << std::string(exit_code.status().message()) << std::endl;
    return kExitRefused;
  }
  return *exit_code;
}

}  // namespace

void AddPlanCommand(CLI::App& app, int& exit_code) {
  CLI::App* command = app.add_subcommand(
      "plan", "What a run will need - memory, traffic, FLOPs - without starting it");
  auto arguments = std::make_shared<PlanArguments>();
  AddConfigArguments(*command, Presence::kRequired, arguments->config);
  command->add_option("--ranks", arguments->ranks, "workers of the job")
      ->type_name("N")
      ->check(NumberOfAtLeast(1))
      ->capture_default_str();
  command->add_option("--device", arguments->device, "what a worker computes on")
      ->check(CLI::IsMember({"cpu", "cuda"}))
      ->type_name("cpu|cuda")
      ->capture_default_str();
  command
      ->add_option("--threads", arguments->threads,
                   "threads of a worker on the CPU, each of which has scratch memory; 0: this "
                   "machine's cores divided by the workers")
      ->type_name("N")
      ->check(NumberBetween(0, 4096))
      ->capture_default_str();
  command
      ->add_option("--memory", arguments->memory,
                   "memory of a worker; tells whether it fits and what would (exit code 1 if not)")
      ->type_name("SIZE");
  command->footer(kFooter);
  command->callback([arguments, &exit_code] { exit_code = RunPlan(*arguments); });
}

}  // namespace panthera
