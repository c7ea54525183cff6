#include "launcher/generate_command.h"

#include <iostream>
#include <memory>
#include <optional>
#include <ostream>
#include <string>
#include <utility>
#include <vector>

#include "CLI/CLI.hpp"
#include "absl/strings/str_cat.h"

#include "launcher/argument_error.h"
#include "launcher/exit_codes.h"
#include "launcher/run_directory.h"
#include "launcher/sampling.h"
#include "launcher/training_checkpoint.h"
#include "launcher/world.h"
#include "runtime/base/log.h"
#include "runtime/base/status_macros.h"
#include "runtime/comm/plan_communicator.h"
#include "runtime/comm/self_communicator.h"

namespace panthera {
namespace {

struct GenerateArguments {
  std::string run;
  std::string prompt;
  std::optional<int64_t> step;
  int64_t tokens = 200;
  int64_t samples = 1;
  SamplingOptions sampling;
};

constexpr char kFooter[] =
    "Examples:\n"
    "  panthera generate runs/quickstart --prompt \"And God said\" --temperature 0.8 --top-p 0.95\n"
    "  panthera generate runs/quickstart --samples 3 --seed 7\n"
    "  mpirun -np 4 panthera generate runs/large      (each worker holds a quarter of the model)\n"
    "\n"
    "The text goes to standard output. The same seed, prompt and checkpoint give the same text.";

struct TextLength {
  int64_t prompt_tokens;
  int64_t more_tokens;
};

// The model with memory to generate texts of a length, and the parameters of the checkpoint.
absl::StatusOr<std::unique_ptr<ModelInstance>> LoadModel(FileSystem& files, const SavedModel& saved,
                                                         const TextLength& length, World& world,
                                                         MemoryLedger& ledger) {
  const RunOptions& options = saved.options;
  const int64_t rows = options.model.sequence_length;
  MemoryLedger plan;
  SelfCommunicator self;
  PlanCommunicator tensor(world.mesh.tensor_rank, world.mesh.tensor_size);
  ModelInstance meta(options.model, options.optim.weights, {self, tensor}, Context::Plan({}, plan),
                     rows);
  Generator(meta, options.model.vocab_size).Plan(length.prompt_tokens, length.more_tokens);
  auto instance = std::make_unique<ModelInstance>(
      options.model, options.optim.weights, world.axes(),
      std::make_unique<Context>(Device(), ledger, meta.context().arena().peak_bytes()), rows);
  RETURN_IF_ERROR(AdviseOnDamage(
      LoadParameters(files, *world.host, *world.data_parallel, *instance, saved.checkpoint)));
  return instance;
}

// Prints a sample as it grows. A character may take several tokens, so what is printed is the part
// of the decoded text that later tokens cannot change.
class TextPrinter {
 public:
  // Writes to `out`.
  TextPrinter(const Tokenizer& tokenizer, std::ostream& out) : tokenizer_(tokenizer), out_(out) {}

  void Add(int32_t token) {
    tokens_.push_back(token);
    const std::string text = tokenizer_.Decode(tokens_);
    // U+FFFD at the end stands for bytes that the next token may complete.
    if (text.size() > printed_ && !EndsInReplacement(text)) {
      Print(text);
    }
  }
  void Finish() { Print(tokenizer_.Decode(tokens_)); }

 private:
  static bool EndsInReplacement(const std::string& text) {
    static const std::string kReplacement = "\xEF\xBF\xBD";
    return text.size() >= kReplacement.size() &&
           text.compare(text.size() - kReplacement.size(), kReplacement.size(), kReplacement) == 0;
  }
  void Print(const std::string& text) {
    if (text.size() > printed_) {
      out_ << text.substr(printed_) << std::flush;
      printed_ = text.size();
    }
  }

  const Tokenizer& tokenizer_;
  std::ostream& out_;
  std::vector<int32_t> tokens_;
  size_t printed_ = 0;
};

absl::Status Generate(const GenerateArguments& arguments, World& world) {
  PosixFileSystem files;
  ASSIGN_OR_RETURN(const SavedModel saved,
                   OpenSavedModel(files, *world.host, arguments.run, arguments.step));
  RETURN_IF_ERROR(
      CheckTensorParallel(saved.options.model, world.mesh.tensor_size, "number of workers"));
  if (saved.tokenizer == nullptr) {
    return absl::FailedPreconditionError(
        absl::StrCat(saved.checkpoint.directory(),
                     ": the run had no tokenizer; set data.tokenizer when training"));
  }
  const Tokenizer& tokenizer = *saved.tokenizer;
  // A document begins after the mark that ends the one before it.
  std::vector<int32_t> prompt = {tokenizer.eos_id()};
  tokenizer.Encode(arguments.prompt, TextStart::kDocument, prompt);
  const TextLength length{static_cast<int64_t>(prompt.size()), arguments.tokens};
  MemoryLedger ledger;
  ASSIGN_OR_RETURN(const std::unique_ptr<ModelInstance> instance,
                   LoadModel(files, saved, length, world, ledger));
  Generator generator(*instance, tokenizer.vocab_size());
  // All ranks draw the same tokens; one writes them.
  std::ostream nowhere(nullptr);
  std::ostream& out = world.mesh.rank() == 0 ? std::cout : nowhere;
  for (int64_t sample = 0; sample < arguments.samples; ++sample) {
    SamplingOptions sampling = arguments.sampling;
    sampling.seed += sample;
    TextPrinter printer(tokenizer, out);
    for (size_t i = 1; i < prompt.size(); ++i) {
      printer.Add(prompt[i]);
    }
    const auto print = [&](int32_t token) {
      if (token == tokenizer.eos_id()) {
        return false;
      }
      printer.Add(token);
      return true;
    };
    RETURN_IF_ERROR(generator.Generate(prompt, arguments.tokens, sampling, print));
    printer.Finish();
    out << (sample + 1 < arguments.samples ? "\n\n" : "\n") << std::flush;
  }
  return absl::OkStatus();
}

int RunGenerate(const GenerateArguments& arguments) {
  const MpiRuntime runtime;
  SetLogRank(runtime.size() == 1 ? -1 : runtime.rank());
  ShareCores(runtime);
  absl::StatusOr<World> world = ConnectWorld(runtime, {.data = 1, .tensor = runtime.size()},
                                             {.kind = DeviceChoice::kCpu}, ConnectHosts(runtime));
  const absl::Status status = world.ok() ? Generate(arguments, *world) : world.status();
  if (status.ok()) {
    return kExitDone;
  }
  if (runtime.rank() == 0) {
    std::cerr << "panthera generate: " << std::string(status.message()) << std::endl;
  }
  return kExitRefused;
}

}  // namespace

void AddGenerateCommand(CLI::App& app, int& exit_code) {
  CLI::App* command = app.add_subcommand("generate", "Continues a text with a trained model");
  auto arguments = std::make_shared<GenerateArguments>();
  command
      ->add_option("RUN", arguments->run,
                   "run directory (its newest checkpoint is taken) or checkpoint directory")
      ->type_name("")
      ->required();
  command->add_option("--prompt", arguments->prompt, "text to continue; none: a new document")
      ->type_name("TEXT");
  command->add_option("--tokens", arguments->tokens, "at most this many new tokens")
      ->type_name("N")
      ->check(NumberOfAtLeast(1))
      ->capture_default_str();
  command
      ->add_option("--temperature", arguments->sampling.temperature,
                   "below 1 safer, above 1 wilder; 0: always the most likely token")
      ->type_name("X")
      ->check(NumberOfAtLeast(0))
      ->capture_default_str();
  command
      ->add_option("--top-k", arguments->sampling.top_k,
                   "choose among this many most likely tokens; 0: among all")
      ->type_name("N")
      ->check(NumberOfAtLeast(0))
      ->capture_default_str();
  command
      ->add_option("--top-p", arguments->sampling.top_p,
                   "choose among the fewest tokens that together have this probability")
      ->type_name("P")
      ->check(NumberBetween(0, 1))
      ->capture_default_str();
  command->add_option("--seed", arguments->sampling.seed, "another number, another text")
      ->type_name("N")
      ->capture_default_str();
  command
      ->add_option("--samples", arguments->samples, "texts to write, with seeds SEED, SEED+1, ...")
      ->type_name("N")
      ->check(NumberOfAtLeast(1))
      ->capture_default_str();
  command->add_option("--step", arguments->step, "the checkpoint of this step")->type_name("N");
  command->footer(kFooter);
  command->callback([arguments, &exit_code] { exit_code = RunGenerate(*arguments); });
}

}  // namespace panthera
