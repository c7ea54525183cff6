// Speed of every kernel of a training step on a GPU or CPU, next to what a copy inside the device's
// memory and a large product reach in the same process.
//
//   kernel_bench --group rows --models 7b --predictions predictions.json --json results.jsonl
//   kernel_bench --dry --device cuda        (tiny sizes, to see that everything works)
//
// A table goes to standard output, one line of JSON for each kernel to the file. Exit code 1 if a
// kernel left a part of its outputs unwritten.
#include <algorithm>
#include <cstdint>
#include <fstream>
#include <iostream>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "CLI/CLI.hpp"
#include "absl/strings/str_format.h"
#include <nlohmann/json.hpp>

#include "runtime/base/status_macros.h"
#include "runtime/device/cuda_device.h"
#include "tests/bench/kernel_case.h"
#include "tests/bench/kernel_timer.h"
#include "tests/bench/predictions.h"

namespace panthera::bench {
namespace {

// Scratch of all ops here, the matrix library's workspace included.
constexpr int64_t kArenaBytes = int64_t{512} << 20;

struct Arguments {
  std::string device = "auto";
  std::vector<std::string> groups = {"rows", "optimizer", "products", "attention", "sweep"};
  std::vector<std::string> models = {"124m", "1.3b", "7b"};
  std::string kernel;
  bool is_dry = false;
  std::string predictions;
  std::string json;
};

struct Rates {
  double copy_bytes_per_second = 0;
  double gemm_flops_per_second = 0;
};

absl::StatusOr<Device> ChooseDevice(const std::string& name) {
  const absl::StatusOr<int> gpus = CountCudaDevices();
  if (name == "cpu" || (name == "auto" && !gpus.ok())) {
    return Device{DeviceKind::kCpu, 0};
  }
  RETURN_IF_ERROR(gpus.status());
  return Device{DeviceKind::kCuda, 0};
}

std::vector<KernelCase> Cases(const Arguments& arguments) {
  std::vector<ModelShape> models = {DryModelShape()};
  if (!arguments.is_dry) {
    models = GpuModelShapes();
    std::erase_if(models, [&](const ModelShape& model) {
      return std::count(arguments.models.begin(), arguments.models.end(), model.name) == 0;
    });
  }
  std::vector<KernelCase> cases;
  const auto add = [&](std::vector<KernelCase> more) {
    for (KernelCase& kernel : more) {
      if (arguments.kernel.empty() || kernel.kernel == arguments.kernel) {
        cases.push_back(std::move(kernel));
      }
    }
  };
  const auto add_models = [&](std::vector<KernelCase> (*kernels)(const ModelShape&)) {
    for (const ModelShape& model : models) {
      add(kernels(model));
    }
  };
  for (const std::string& group : arguments.groups) {
    if (group == "rows") {
      add_models(RowKernels);
    } else if (group == "optimizer") {
      add_models(OptimizerKernels);
    } else if (group == "products") {
      add_models(ProductKernels);
    } else if (group == "attention") {
      add_models(AttentionKernels);
    } else if (group == "sweep") {
      add(arguments.is_dry ? DryAttentionSweep() : AttentionSweep());
    }
  }
  return cases;
}

// Measures cases one after the other and reports each.
class Bench {
 public:
  Bench(const Arguments& arguments, Device device, std::optional<Predictions> predictions)
      : plan_(arguments.is_dry ? kDryTiming : kGpuTiming),
        predictions_(std::move(predictions)),
        ctx_(device, ledger_, kArenaBytes) {
    std::cout << absl::StrFormat("%-22s %-24s %11s %9s %8s %8s %8s\n", "kernel", "shape", "time",
                                 "reached", "", "of floor", "bar");
  }

  // The ceilings of everything else.
  void MeasureRates(bool is_dry) {
    const KernelCase copy = DeviceCopy(int64_t{is_dry ? 1 : 4096} << 20);
    const KernelCase product = SquareProduct(is_dry ? 128 : 8192);
    rates_.copy_bytes_per_second = copy.work.bytes / Measure("ceiling", copy).seconds;
    rates_.gemm_flops_per_second = product.work.flops / Measure("ceiling", product).seconds;
  }

  KernelTime Measure(const std::string& stage, const KernelCase& kernel) {
    const KernelTime time = MeasureKernel(ctx_, kernel, plan_);
    Report(stage, kernel, time);
    all_written_ = all_written_ && time.is_written;
    return time;
  }

  absl::Status OpenJson(const std::string& path) {
    json_.open(path, std::ios::app);
    return json_ ? absl::OkStatus() : absl::NotFoundError(path + " cannot be written");
  }

  bool all_written() const { return all_written_; }

 private:
  // 0 before the rates are known.
  double FloorSeconds(const OpWork& work) const {
    const double rate =
        work.flops > 0 ? rates_.gemm_flops_per_second : rates_.copy_bytes_per_second;
    return rate > 0 ? (work.flops > 0 ? work.flops : work.bytes) / rate : 0;
  }

  void Report(const std::string& stage, const KernelCase& kernel, const KernelTime& time) {
    const bool computes = kernel.work.flops > 0;
    const double rate =
        (computes ? kernel.work.flops / 1e12 : kernel.work.bytes / 1e9) / time.seconds;
    const double floor = FloorSeconds(kernel.work);
    nlohmann::ordered_json line = {{"stage", stage},
                                   {"kernel", kernel.kernel},
                                   {"shape", kernel.shape},
                                   {"program", "panthera"},
                                   {"device", ctx_.device().is_cuda() ? "cuda" : "cpu"},
                                   {"dtype", Name(kernel.dtype)},
                                   {"seconds", time.seconds},
                                   {"spread_seconds", time.spread_seconds},
                                   {"calls", time.calls},
                                   {"bytes", kernel.work.bytes},
                                   {"flops", kernel.work.flops},
                                   {computes ? "tflops" : "gbytes_per_s", rate},
                                   {"written", time.is_written}};
    std::string ratios;
    if (floor > 0) {
      line["floor_seconds"] = floor;
      line["measured_ratio"] = floor / time.seconds;
      ratios = absl::StrFormat("%8.3f", floor / time.seconds);
    }
    const std::optional<double> bar = predictions_.has_value()
                                          ? predictions_->KernelRatio(kernel.kernel, kernel.shape)
                                          : std::nullopt;
    if (bar.has_value()) {
      line["predicted_ratio"] = *bar;
      ratios += absl::StrFormat(" %8.2f", *bar);
    }
    std::cout << absl::StrFormat("%-22s %-24s %8.1f us %9.1f %8s %s%s\n", kernel.kernel,
                                 kernel.shape, 1e6 * time.seconds, rate,
                                 computes ? "TFLOP/s" : "GB/s", ratios,
                                 time.is_written ? "" : "  NOT WRITTEN")
              << std::flush;
    json_ << line << std::endl;
  }

  TimingPlan plan_;
  std::optional<Predictions> predictions_;
  MemoryLedger ledger_;
  Context ctx_;
  std::ofstream json_;
  Rates rates_;
  bool all_written_ = true;
};

// Whether all outputs were written.
absl::StatusOr<bool> Run(const Arguments& arguments) {
  ASSIGN_OR_RETURN(const Device device, ChooseDevice(arguments.device));
  std::optional<Predictions> predictions;
  if (!arguments.predictions.empty()) {
    ASSIGN_OR_RETURN(predictions, Predictions::Load(arguments.predictions));
  }
  Bench bench(arguments, device, std::move(predictions));
  if (!arguments.json.empty()) {
    RETURN_IF_ERROR(bench.OpenJson(arguments.json));
  }
  bench.MeasureRates(arguments.is_dry);
  for (const KernelCase& kernel : Cases(arguments)) {
    bench.Measure("kernel", kernel);
  }
  return bench.all_written();
}

}  // namespace
}  // namespace panthera::bench

int main(int argc, char** argv) {
  panthera::bench::Arguments arguments;
  CLI::App app("Measures the kernels of a training step");
  app.add_option("--device", arguments.device)
      ->check(CLI::IsMember({"auto", "cpu", "cuda"}))
      ->capture_default_str();
  app.add_option("--group", arguments.groups, "groups of kernels; none: the two ceilings alone")
      ->check(CLI::IsMember({"rows", "optimizer", "products", "attention", "sweep", "none"}))
      ->capture_default_str();
  app.add_option("--models", arguments.models, "whose shapes are measured")
      ->check(CLI::IsMember({"124m", "1.3b", "7b"}))
      ->capture_default_str();
  app.add_option("--kernel", arguments.kernel, "only the one of this name");
  app.add_flag("--dry", arguments.is_dry, "tiny sizes, a few calls");
  app.add_option("--predictions", arguments.predictions, "file of expected ratios");
  app.add_option("--json", arguments.json, "file that gets one more line for each kernel");
  CLI11_PARSE(app, argc, argv);
  const absl::StatusOr<bool> all_written = panthera::bench::Run(arguments);
  if (!all_written.ok()) {
    std::cerr << "kernel_bench: " << all_written.status().message() << std::endl;
    return 2;
  }
  return *all_written ? 0 : 1;
}
