#include "launcher/convert_command.h"

#include <iostream>
#include <map>
#include <memory>
#include <string>

#include "CLI/CLI.hpp"
#include "absl/strings/str_cat.h"

#include "launcher/byte_size.h"
#include "launcher/conversion.h"
#include "launcher/exit_codes.h"
#include "runtime/base/status_macros.h"
#include "runtime/device/memory_ledger.h"
#include "runtime/metrics/console.h"

namespace panthera {
namespace {

struct ConvertArguments {
  ConversionOptions options;
  std::string dtype;
  std::string max_shard_bytes;
};

constexpr char kFooter[] =
    "Examples:\n"
    "  panthera convert runs/quickstart published --dtype bf16    a run's newest checkpoint\n"
    "  panthera convert runs/quickstart/checkpoints/step_00000500 published\n"
    "  panthera convert Llama-2-7b llama --max-shard-bytes 1GiB\n"
    "\n"
    "OUT opens in transformers. OUT/model.toml begins a configuration for `panthera train` that\n"
    "starts from it. SOURCE stays as it is, and OUT must not be there yet.\n"
    "Exit codes: 0 done, 2 refused or failed, with nothing left behind.";

absl::StatusOr<Conversion> ConvertAsAsked(const ConvertArguments& arguments) {
  static const std::map<std::string, DType> kTypes = {
      {"f32", DType::kF32}, {"bf16", DType::kBF16}, {"f16", DType::kF16}};
  ConversionOptions options = arguments.options;
  if (!arguments.dtype.empty()) {
    options.dtype = kTypes.at(arguments.dtype);
  }
  if (!arguments.max_shard_bytes.empty()) {
    const absl::StatusOr<int64_t> bytes = ParseByteSize(arguments.max_shard_bytes);
    if (!bytes.ok()) {
      return absl::InvalidArgumentError(
          absl::StrCat("--max-shard-bytes: ", bytes.status().message()));
    }
    options.max_file_bytes = *bytes;
  }
  PosixFileSystem files;
  return Convert(files, options);
}

int RunConvert(const ConvertArguments& arguments) {
  const absl::StatusOr<Conversion> done = ConvertAsAsked(arguments);
  if (!done.ok()) {
    std::cerr << "panthera convert: " << std::string(done.status().message()) << std::endl;
    return kExitRefused;
  }
  std::cout << done->source << " -> " << arguments.options.output << ": "
            << FormatCount(static_cast<double>(done->parameters)) << " parameters in "
            << done->tensors << " tensors, " << FormatBytes(done->weight_bytes) << " in "
            << done->weight_files << (done->weight_files == 1 ? " file" : " files") << std::endl;
  return kExitDone;
}

}  // namespace

void AddConvertCommand(CLI::App& app, int& exit_code) {
  CLI::App* command = app.add_subcommand(
      "convert", "Weights of a run, a checkpoint or a Hugging Face Llama as a Hugging Face model");
  auto arguments = std::make_shared<ConvertArguments>();
  command
      ->add_option("SOURCE", arguments->options.source,
                   "directory of a Hugging Face model (Llama or Mistral, safetensors), a "
                   "checkpoint, or a run, whose newest checkpoint is taken")
      ->type_name("")
      ->required();
  command->add_option("OUT", arguments->options.output, "directory to make")
      ->type_name("")
      ->required();
  command
      ->add_option("--dtype", arguments->dtype,
                   "type of all numbers, rounded to nearest; without it every tensor keeps its own")
      ->type_name("TYPE")
      ->check(CLI::IsMember({"f32", "bf16", "f16"}));
  command
      ->add_option("--max-shard-bytes", arguments->max_shard_bytes,
                   "begins a new file where the weights would take more, such as 4GiB; 5 GB unless "
                   "given")
      ->type_name("SIZE");
  command->footer(kFooter);
  command->callback([arguments, &exit_code] { exit_code = RunConvert(*arguments); });
}

}  // namespace panthera
