// Three targets: documents to tokenize, the metrics of a run that goes on, and its GEMM algorithms.
#include <cmath>
#include <cstring>
#include <string>
#include <vector>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"
#include <nlohmann/json.hpp>

#include "runtime/base/check.h"
#include "runtime/data/document_reader.h"
#include "runtime/data/utf8.h"
#include "runtime/math/gemm_algorithms.h"
#include "runtime/metrics/json_lines.h"
#include "tests/fuzz/fuzz_target.h"
#include "tests/runtime/data/token_bytes.h"
#include "tests/support/temp_dir.h"

namespace panthera::testing {
namespace {

constexpr char kByteOrderMark[] = "\xEF\xBB\xBF";
constexpr char kSeparator[] = "<end>";

// Part 0 chooses how the others, which are files, are read: a byte each for the format, for what
// happens to invalid UTF-8, for the separator, and for the share of validation.
class DocumentsTarget final : public FuzzTarget {
 public:
  std::vector<Parts> Seeds() const override {
    const std::string lines =
        "{\"text\": \"first\\n\"}\n\n{\"id\": 2, \"text\": \"zweites \\u00e4\"}\n";
    return {{"0000", lines},
            {"0111", lines, "{\"text\": \"last\"}"},
            {"1000", absl::StrCat(kByteOrderMark, "one\ntwo\xC3\xA4\n"), "three"},
            {"1011", "one<end>two<end><end>three\n"},
            {"1101", "a\nb\nc\nd\ne\nf\n"}};
  }

  std::vector<std::string> Words() const override {
    return {"{\"text\": \"x\"}\n",
            "\"text\"",
            "\\ud800",
            "\\u0000",
            kByteOrderMark,
            kSeparator,
            "\xC3\xA4",
            "\xED\xA0\x80",
            "\xF0\x9F\x90\xAF",
            "\n",
            "\r\n",
            "\x1F\x8B",
            "[[[[",
            "{\"a\":"};
  }

  Verdict Check(const Parts& parts) override {
    DocumentOptions options = OptionsOf(parts[0]);
    const bool is_text = options.format == TextFormat::kText;
    for (size_t i = 1; i < parts.size(); ++i) {
      options.inputs.push_back(folder_.File(absl::StrCat("input_", i)));
      ReplaceFile(options.inputs.back(), parts[i]);
    }
    absl::StatusOr<DocumentReader> reader = DocumentReader::Open(options);
    CHECK_OK(reader.status());
    DocumentPiece piece;
    std::string all;
    bool in_document = false;
    absl::StatusOr<bool> more = reader->Next(piece);
    for (; more.ok() && *more; more = reader->Next(piece)) {
      CHECK_EQ(piece.begins_document, !in_document);
      in_document = !piece.ends_document;
      CHECK_EQ(ValidUtf8Prefix(piece.text), piece.text.size());
      CHECK(!is_text || options.separator.empty() ||
            !absl::StrContains(piece.text, options.separator));
      CHECK(options.validation_fraction > 0 || piece.part == CorpusPart::kTraining);
      all += piece.text;
    }
    if (!more.ok()) {
      CheckIsOneLine(more.status());
      CHECK(absl::StrContains(std::string(more.status().message()), folder_.path()));
      return Verdict::kRefused;
    }
    CHECK(!in_document);
    CHECK_EQ(reader->bytes_read(), reader->bytes_total());
    if (is_text) {
      CHECK_EQ(all, TextOf(parts, options));
    }
    return Verdict::kAccepted;
  }

 private:
  static DocumentOptions OptionsOf(const std::string& choices) {
    const auto choice = [&](size_t i) { return i < choices.size() && choices[i] % 2 != 0; };
    DocumentOptions options;
    options.format = choice(0) ? TextFormat::kText : TextFormat::kJsonLines;
    options.invalid_utf8 = choice(1) ? InvalidUtf8::kReplace : InvalidUtf8::kReject;
    options.separator = choice(2) ? kSeparator : "";
    options.validation_fraction = choice(3) ? 0.3 : 0;
    return options;
  }

  // What the documents of text files contain, one after the other.
  static std::string TextOf(const Parts& parts, const DocumentOptions& options) {
    std::string all;
    for (size_t i = 1; i < parts.size(); ++i) {
      std::string text = parts[i];
      if (absl::StartsWith(text, kByteOrderMark)) {
        text.erase(0, std::strlen(kByteOrderMark));
      }
      size_t separator = 0;
      while (!options.separator.empty() &&
             (separator = text.find(options.separator)) != std::string::npos) {
        all += ReplaceInvalidUtf8(text.substr(0, separator));
        text.erase(0, separator + options.separator.size());
      }
      all += ReplaceInvalidUtf8(text);
    }
    return all;
  }

  const TempDir folder_;
};

// Part 0 is metrics.jsonl; part 1, eight bytes, the step that the run goes on from.
class MetricsTarget final : public FuzzTarget {
 public:
  std::vector<Parts> Seeds() const override {
    StepMetrics metrics;
    metrics.loss_nats = 3.5;
    metrics.gradient_norm = NAN;
    std::string lines;
    for (metrics.step = 1; metrics.step < 5; ++metrics.step) {
      lines += JsonLine(metrics);
    }
    return {{lines, LittleEndian(2, 8)},
            {lines + "{\"note\":1}\n", LittleEndian(9, 8)},
            {lines + "{\"step\":6", LittleEndian(4, 8)}};
  }

  std::vector<std::string> Words() const override {
    return {"{\"step\":", "\"step\"", "\n", "\r", "{}", "}", "[", "null", "1e400", "-1", "1.5"};
  }

  Verdict Check(const Parts& parts) override {
    int64_t last_step = 0;
    if (parts.size() > 1) {
      std::memcpy(&last_step, parts[1].data(), std::min(parts[1].size(), sizeof(last_step)));
    }
    const std::string kept = KeepUpToStep(parts[0], last_step);
    CHECK_EQ(KeepUpToStep(kept, last_step), kept);
    CheckLines(parts[0], last_step, kept);
    CheckFile(parts[0], last_step, kept);
    return kept.empty() ? Verdict::kRefused : Verdict::kAccepted;
  }

 private:
  // Line by line: what is kept, and nothing else, is a whole object of no later step.
  static void CheckLines(const std::string& contents, int64_t last_step, const std::string& kept) {
    std::vector<std::string> lines = absl::StrSplit(contents, '\n');
    lines.pop_back();
    std::string expected;
    for (const std::string& line : lines) {
      const auto json = nlohmann::json::parse(line, nullptr, false);
      if (!json.is_object()) {
        continue;
      }
      const auto step = json.find("step");
      const bool is_later =
          step != json.end() &&
          (step->is_number_unsigned()
               ? last_step < 0 || step->get<uint64_t>() > static_cast<uint64_t>(last_step)
               : step->is_number_integer() && step->get<int64_t>() > last_step);
      expected += is_later ? "" : line + "\n";
    }
    CHECK_EQ(kept, expected);
  }

  // The file has what is kept, and takes further lines behind it.
  void CheckFile(const std::string& contents, int64_t last_step, const std::string& kept) const {
    const std::string path = folder_.File("metrics.jsonl");
    ReplaceFile(path, contents);
    StepMetrics metrics;
    metrics.step = last_step;
    for (const char* expected : {"", "again"}) {
      const auto file = JsonLinesFile::Open(path, last_step);
      CHECK_OK(file.status());
      CHECK_EQ(ReadBytes(path), kept + (*expected == '\0' ? "" : JsonLine(metrics)));
      if (*expected == '\0') {
        CHECK_OK((*file)->Report(metrics));
      }
    }
  }

  const TempDir folder_;
};

// Part 0 is a file of GEMM algorithms.
class GemmAlgorithmsTarget final : public FuzzTarget {
 public:
  std::vector<Parts> Seeds() const override {
    const auto matrix = [](int64_t rows, int64_t columns) {
      return Tensor(nullptr, {rows, columns}, DType::kBF16, {DeviceKind::kMeta, 0});
    };
    GemmAlgorithms algorithms({.gpu = "NVIDIA H200", .version = 130100});
    for (const Accumulate accumulate : {Accumulate::kOverwrite, Accumulate::kAdd}) {
      algorithms.Set({Transpose::kNo, matrix(8, 24), Transpose::kYes, matrix(16, 24), accumulate,
                      matrix(8, 16)},
                     {1, 2, 3, 4, 5, 6, 7, ~uint64_t{0}});
    }
    return {{GemmAlgorithmsJson(GemmAlgorithms())}, {GemmAlgorithmsJson(algorithms)}};
  }

  std::vector<std::string> Words() const override {
    return {"\"gpu\"", "\"algorithms\": {", "\\u0000", "1e400", "-1", "[[[[", "0123456789abcdef"};
  }

  Verdict Check(const Parts& parts) override {
    const absl::StatusOr<GemmAlgorithms> algorithms = ParseGemmAlgorithms(parts[0]);
    if (!algorithms.ok()) {
      CheckIsOneLine(algorithms.status());
      return Verdict::kRefused;
    }
    const absl::StatusOr<GemmAlgorithms> again =
        ParseGemmAlgorithms(GemmAlgorithmsJson(*algorithms));
    CHECK_OK(again.status());
    CHECK(*again == *algorithms);
    return Verdict::kAccepted;
  }
};

}  // namespace

std::unique_ptr<FuzzTarget> MakeGemmAlgorithmsTarget() {
  return std::make_unique<GemmAlgorithmsTarget>();
}

std::unique_ptr<FuzzTarget> MakeDocumentsTarget() { return std::make_unique<DocumentsTarget>(); }

std::unique_ptr<FuzzTarget> MakeMetricsTarget() { return std::make_unique<MetricsTarget>(); }

}  // namespace panthera::testing
