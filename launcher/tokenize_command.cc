#include "launcher/tokenize_command.h"

#include <unistd.h>

#include <algorithm>
#include <chrono>
#include <cstdint>
#include <filesystem>
#include <iostream>
#include <memory>
#include <string>
#include <system_error>
#include <utility>
#include <vector>

#include "CLI/CLI.hpp"
#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "absl/strings/str_join.h"

#include "launcher/argument_error.h"
#include "launcher/exit_codes.h"
#include "runtime/base/status_macros.h"
#include "runtime/data/corpus_record.h"
#include "runtime/data/corpus_tokenizer.h"
#include "runtime/data/document_reader.h"
#include "runtime/data/durable_file.h"
#include "runtime/data/tokenizer.h"
#include "runtime/data/tokenizer_training.h"

namespace panthera {
namespace {

constexpr char kHelp[] =
    "Turns text into the token files that `panthera train` reads\n"
    "\n"
    "Writes STEM.bin and STEM.idx (Megatron's format) and STEM.json, which records how they were\n"
    "made. Every document ends with the tokenizer's end-of-document id. Memory does not grow with\n"
    "the input. Running the same command again finds its outputs and does nothing.";

constexpr char kExamples[] =
    "Validation text: with --validation-fraction 0.05, one document in twenty is set aside where\n"
    "JSON lines or separators make documents; otherwise it is the last 5% of every text file.\n"
    "\n"
    "Examples:\n"
    "  panthera tokenize book.txt --output data/book --train-tokenizer data/book.model\n"
    "  panthera tokenize news/*.jsonl --output data/train --tokenizer llama.model \\\n"
    "      --validation-fraction 0.01 --validation-output data/validation\n"
    "  panthera tokenize stories.txt --output data/stories --tokenizer bytes \\\n"
    "      --document-separator '<|endoftext|>'\n";

struct TokenizeArguments {
  DocumentOptions documents;
  std::string output;
  std::string validation_output;
  std::string tokenizer;
  std::string train_tokenizer;
  std::string format = "auto";
  std::string invalid_utf8 = "reject";
  int64_t vocab_size = 4096;
  bool overwrite = false;
};

// "\n", "\t" and "\\" as a shell user writes them.
std::string Unescape(const std::string& text) {
  std::string result;
  for (size_t i = 0; i < text.size(); ++i) {
    const char next = text[i] == '\\' && i + 1 < text.size() ? text[i + 1] : '\0';
    const bool escape = next == 'n' || next == 't' || next == '\\';
    result.push_back(!escape ? text[i] : next == 'n' ? '\n' : next == 't' ? '\t' : '\\');
    i += escape ? 1 : 0;
  }
  return result;
}

// A bar on a terminal, and a line every few seconds elsewhere; nothing for short work.
class ProgressPrinter {
 public:
  using Clock = std::chrono::steady_clock;

  ~ProgressPrinter() {
    if (on_terminal_ && printed_) {
      std::cerr << "\r\x1B[K" << std::flush;
    }
  }

  void Print(const CorpusProgress& progress) {
    const Clock::time_point now = Clock::now();
    if (now - last_ < (on_terminal_ ? std::chrono::milliseconds(200) : std::chrono::seconds(5))) {
      return;
    }
    last_ = now;
    printed_ = true;
    const double seconds = std::chrono::duration<double>(now - start_).count();
    const double done = static_cast<double>(progress.bytes_read);
    const double share = done / static_cast<double>(std::max<int64_t>(progress.bytes_total, 1));
    const std::string numbers = absl::StrFormat(
        "%3.0f%%  %.1f of %.1f MB, %.1f MB/s, %.1f M tokens, %.0f s left", 100 * share, done / 1e6,
        static_cast<double>(progress.bytes_total) / 1e6, done / 1e6 / seconds,
        static_cast<double>(progress.tokens) / 1e6, seconds * (1 - share) / share);
    if (!on_terminal_) {
      std::cerr << "tokenize: " << numbers << std::endl;
      return;
    }
    constexpr size_t kWidth = 24;
    const auto filled = std::min(kWidth, static_cast<size_t>(share * static_cast<double>(kWidth)));
    std::cerr << "\r[" << std::string(filled, '=') << std::string(kWidth - filled, ' ') << "] "
              << numbers << "\x1B[K" << std::flush;
  }

 private:
  bool on_terminal_ = isatty(STDERR_FILENO) == 1;
  bool printed_ = false;
  Clock::time_point start_ = Clock::now();
  Clock::time_point last_ = start_;
};

std::vector<std::string> OutputFiles(const TokenizeArguments& arguments) {
  std::vector<std::string> files = {arguments.output + ".bin", arguments.output + ".idx",
                                    arguments.output + ".json"};
  if (!arguments.validation_output.empty()) {
    files.push_back(arguments.validation_output + ".bin");
    files.push_back(arguments.validation_output + ".idx");
  }
  if (!arguments.train_tokenizer.empty()) {
    files.push_back(arguments.train_tokenizer);
  }
  return files;
}

absl::Status CheckArguments(const TokenizeArguments& arguments) {
  if (arguments.tokenizer.empty() == arguments.train_tokenizer.empty()) {
    return absl::InvalidArgumentError(
        "give either --tokenizer MODEL (or bytes), or --train-tokenizer MODEL to train one");
  }
  if (arguments.output == arguments.validation_output) {
    return absl::InvalidArgumentError("--output and --validation-output must differ");
  }
  for (const std::string& output : OutputFiles(arguments)) {
    for (const std::string& input : arguments.documents.inputs) {
      std::error_code missing;
      if (std::filesystem::equivalent(input, output, missing)) {
        return absl::InvalidArgumentError(
            absl::StrCat("the input ", input, " would be overwritten; choose another --output"));
      }
    }
  }
  return absl::OkStatus();
}

std::string DescribeTokenizer(const TokenizeArguments& arguments, const Tokenizer* tokenizer) {
  return tokenizer != nullptr ? tokenizer->fingerprint()
                              : absl::StrCat("trained, ", arguments.vocab_size, " pieces");
}

// The summary of an earlier run of the same command; empty if there is none. Other files in the
// way of the outputs are an error.
absl::StatusOr<std::string> FindEarlierRun(const TokenizeArguments& arguments,
                                           const std::string& recipe) {
  if (arguments.overwrite) {
    return "";
  }
  std::vector<std::string> existing;
  const std::vector<std::string> outputs = OutputFiles(arguments);
  for (const std::string& output : outputs) {
    std::error_code ignored;
    if (std::filesystem::exists(output, ignored)) {
      existing.push_back(output);
    }
  }
  if (existing.empty()) {
    return "";
  }
  absl::StatusOr<std::string> summary = ReadCorpusRecord(arguments.output + ".json", recipe);
  if (summary.ok() && existing.size() == outputs.size()) {
    return absl::StrCat(*summary, "Up to date: nothing was written.\n");
  }
  return absl::AlreadyExistsError(absl::StrCat(
      absl::StrJoin(existing, ", "), existing.size() == 1 ? " exists and is" : " exist and are",
      " not from this very command; pass --overwrite to replace, or choose another "
      "--output"));
}

std::string DescribePart(const char* name, const CorpusPartReport& part, const std::string& stem) {
  return absl::StrFormat(
      "%s: %d %s, %d tokens, %.3f bytes per token -> %s.bin, %s.idx\n", name, part.documents,
      part.documents == 1 ? "document" : "documents", part.tokens,
      static_cast<double>(part.bytes) / static_cast<double>(part.tokens), stem, stem);
}

std::string Summarize(const TokenizeArguments& arguments, const Tokenizer& tokenizer,
                      const CorpusReport& report) {
  std::string summary =
      absl::StrCat("tokenizer: ", tokenizer.name(), ", ", tokenizer.vocab_size(), " ids\n",
                   DescribePart("training", report.training, arguments.output));
  if (!arguments.validation_output.empty()) {
    summary += DescribePart("validation", report.validation, arguments.validation_output);
  }
  return summary + absl::StrFormat(
                       "unigram entropy: %.4f nats per training token (the loss of "
                       "the best guess without context)\n",
                       UnigramEntropy(report.training.counts));
}

absl::Status MakeDirectories(const TokenizeArguments& arguments) {
  for (const std::string& output : OutputFiles(arguments)) {
    const std::filesystem::path directory = std::filesystem::path(output).parent_path();
    std::error_code error;
    if (!directory.empty() && !std::filesystem::create_directories(directory, error) && error) {
      return absl::PermissionDeniedError(absl::StrCat("cannot make the directory ",
                                                      directory.string(), ": ", error.message(),
                                                      "; choose another --output"));
    }
  }
  return absl::OkStatus();
}

// Returns what to print.
absl::StatusOr<std::string> Tokenize(const TokenizeArguments& arguments) {
  RETURN_IF_ERROR(CheckArguments(arguments));
  std::unique_ptr<Tokenizer> tokenizer;
  if (!arguments.tokenizer.empty()) {
    ASSIGN_OR_RETURN(tokenizer, OpenTokenizer(arguments.tokenizer));
  }
  const std::string recipe = CorpusRecipe(
      arguments.documents, DescribeTokenizer(arguments, tokenizer.get()), OutputFiles(arguments));
  ASSIGN_OR_RETURN(std::string earlier, FindEarlierRun(arguments, recipe));
  if (!earlier.empty()) {
    return earlier;
  }
  // Opened again for what follows; here, inputs that are not there are refused before anything is
  // made.
  RETURN_IF_ERROR(DocumentReader::Open(arguments.documents).status());
  RETURN_IF_ERROR(MakeDirectories(arguments));

  if (tokenizer == nullptr) {
    TokenizerTrainingOptions training;
    training.documents = arguments.documents;
    training.vocab_size = arguments.vocab_size;
    std::cerr << "tokenize: training a tokenizer with " << arguments.vocab_size << " pieces"
              << std::endl;
    ASSIGN_OR_RETURN(std::string model, TrainSentencePiece(training));
    ASSIGN_OR_RETURN(tokenizer, TokenizerFromBytes(arguments.train_tokenizer, std::move(model)));
  }
  const std::string record_path = arguments.output + ".json";
  // Goes before the files that it describes are replaced, so that it never stands beside others.
  const auto remove_record = [&] {
    std::error_code absent;
    std::filesystem::remove(record_path, absent);
  };
  CorpusReport report;
  {
    ProgressPrinter printer;
    ASSIGN_OR_RETURN(
        report,
        TokenizeCorpus(
            arguments.documents, *tokenizer, arguments.output, arguments.validation_output,
            [&](const CorpusProgress& progress) { printer.Print(progress); }, remove_record));
  }
  if (!arguments.train_tokenizer.empty()) {
    RETURN_IF_ERROR(WriteDurableFile(arguments.train_tokenizer, tokenizer->model_bytes()));
  }
  std::string summary = Summarize(arguments, *tokenizer, report);
  RETURN_IF_ERROR(WriteCorpusRecord(record_path, recipe, *tokenizer, report, summary));
  return summary;
}

int Run(TokenizeArguments arguments) {
  DocumentOptions& documents = arguments.documents;
  documents.separator = Unescape(documents.separator);
  documents.format = arguments.format == "text"    ? TextFormat::kText
                     : arguments.format == "jsonl" ? TextFormat::kJsonLines
                                                   : TextFormat::kAuto;
  documents.invalid_utf8 =
      arguments.invalid_utf8 == "replace" ? InvalidUtf8::kReplace : InvalidUtf8::kReject;
  const absl::StatusOr<std::string> summary = Tokenize(arguments);
  if (!summary.ok()) {
    std::cerr << "panthera tokenize: " << std::string(summary.status().message()) << std::endl;
    return kExitRefused;
  }
  std::cout << *summary << std::flush;
  return kExitDone;
}

}  // namespace

void AddTokenizeCommand(CLI::App& app, int& exit_code) {
  auto arguments = std::make_shared<TokenizeArguments>();
  CLI::App* command = app.add_subcommand("tokenize", kHelp);
  command->footer(kExamples);
  DocumentOptions& documents = arguments->documents;
  command
      ->add_option("inputs", documents.inputs,
                   "files of UTF-8 text, or of JSON objects with a text, one per line")
      ->required()
      ->type_name("INPUT");
  command->add_option("--output", arguments->output, "path of the outputs, without ending")
      ->required()
      ->type_name("STEM");
  command
      ->add_option("--tokenizer", arguments->tokenizer,
                   "SentencePiece model; or \"bytes\": the 256 byte values and an end, 257 ids")
      ->type_name("MODEL");
  CLI::Option* train =
      command
          ->add_option("--train-tokenizer", arguments->train_tokenizer,
                       "first train a SentencePiece model on the inputs and write it here")
          ->type_name("MODEL");
  command->add_option("--vocab-size", arguments->vocab_size, "ids of the tokenizer that is trained")
      ->needs(train)
      ->check(NumberBetween(1, 1 << 20))
      ->type_name("N")
      ->capture_default_str();

  command
      ->add_option("--format", arguments->format,
                   "how documents lie in the files; auto: jsonl if a name ends in .jsonl or "
                   ".ndjson, else text")
      ->check(CLI::IsMember({"auto", "text", "jsonl"}))
      ->type_name("FORMAT")
      ->capture_default_str();
  command->add_option("--json-key", documents.json_key, "field of a JSON line that holds the text")
      ->type_name("KEY")
      ->capture_default_str();
  command
      ->add_option("--document-separator", documents.separator,
                   "what stands between documents in a text file, such as '\\n\\n'; without it a "
                   "file is one document")
      ->type_name("TEXT");
  command
      ->add_option("--invalid-utf8", arguments->invalid_utf8,
                   "what to do with bytes that are not UTF-8: reject the file, or replace each "
                   "with U+FFFD")
      ->check(CLI::IsMember({"reject", "replace"}))
      ->type_name("CHOICE")
      ->capture_default_str();
  CLI::Option* fraction = command
                              ->add_option("--validation-fraction", documents.validation_fraction,
                                           "share of the text to set aside for validation")
                              ->check(NumberBetween(1e-6, 0.999))
                              ->type_name("F");
  CLI::Option* validation = command
                                ->add_option("--validation-output", arguments->validation_output,
                                             "path of the validation files, without ending")
                                ->type_name("STEM");
  fraction->needs(validation);
  validation->needs(fraction);
  command->add_flag("--overwrite", arguments->overwrite, "replace outputs that exist");
  command->callback([arguments, &exit_code] { exit_code = Run(*arguments); });
}

}  // namespace panthera
