#include "runtime/math/gemm_algorithms.h"

#include <utility>

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/string_view.h"
#include <nlohmann/json.hpp>

#include "runtime/base/check.h"
#include "runtime/base/json_integer.h"
#include "runtime/base/one_line.h"

namespace panthera {
namespace {

using Json = nlohmann::ordered_json;

constexpr char kFormat[] = "panthera-gemm-algorithms";
constexpr int64_t kVersion = 1;
// A file of ours nests two levels; printing a deep one would take a stack frame for every level.
constexpr int kDeepest = 4;
constexpr size_t kDigitsPerWord = 16;

// "bf16 8192x4096/4096@16^T": type, rows, columns, row stride, alignment, whether it is transposed.
// Of a batch: "bf16 3*524288:64x64/64@16".
std::string Describe(const Matrix& x, Transpose transpose) {
  const std::string batch = x.batch == 1 ? "" : absl::StrCat(x.batch, "*", x.batch_stride, ":");
  return absl::StrCat(Name(x.dtype), " ", batch, x.rows, "x", x.columns, "/", x.row_stride, "@",
                      GemmAlignment(x), transpose == Transpose::kYes ? "^T" : "");
}

std::string Digits(const GemmAlgorithm& algorithm) {
  std::string digits;
  for (const uint64_t word : algorithm) {
    absl::StrAppend(&digits, absl::Hex(word, absl::kZeroPad16));
  }
  return digits;
}

std::optional<uint64_t> ParseWord(absl::string_view digits) {
  uint64_t word = 0;
  for (const char digit : digits) {
    if (digit >= '0' && digit <= '9') {
      word = word * 16 + static_cast<uint64_t>(digit - '0');
    } else if (digit >= 'a' && digit <= 'f') {
      word = word * 16 + static_cast<uint64_t>(digit - 'a') + 10;
    } else {
      return std::nullopt;
    }
  }
  return word;
}

std::optional<GemmAlgorithm> ParseDigits(absl::string_view digits) {
  GemmAlgorithm algorithm{};
  if (digits.size() != algorithm.size() * kDigitsPerWord) {
    return std::nullopt;
  }
  for (size_t i = 0; i < algorithm.size(); ++i) {
    const std::optional<uint64_t> word =
        ParseWord(digits.substr(i * kDigitsPerWord, kDigitsPerWord));
    if (!word.has_value()) {
      return std::nullopt;
    }
    algorithm[i] = *word;
  }
  return algorithm;
}

absl::Status Damaged() {
  return absl::DataLossError("it is not the JSON that was written: the file was damaged");
}

}  // namespace

int64_t GemmAlignment(const Matrix& matrix) {
  constexpr uint64_t kWidestAccess = 16;
  const int64_t size = SizeOf(matrix.dtype);
  uint64_t bits = reinterpret_cast<uintptr_t>(matrix.data) |
                  static_cast<uint64_t>(matrix.row_stride * size) | kWidestAccess;
  if (matrix.batch > 1) {
    bits |= static_cast<uint64_t>(matrix.batch_stride * size);
  }
  return static_cast<int64_t>(bits & (~bits + 1));
}

std::string DescribeForm(const Product& product) {
  return absl::StrCat(
      Describe(product.c, Transpose::kNo), product.accumulate == Accumulate::kAdd ? " += " : " = ",
      Describe(product.a, product.transpose_a), " * ", Describe(product.b, product.transpose_b));
}

void GemmAlgorithms::Set(const Product& product, const GemmAlgorithm& algorithm) {
  algorithms_[DescribeForm(product)] = algorithm;
}

std::optional<GemmAlgorithm> GemmAlgorithms::Find(const Product& product) const {
  const auto found = algorithms_.find(DescribeForm(product));
  if (found == algorithms_.end()) {
    return std::nullopt;
  }
  return found->second;
}

void GemmAlgorithms::Add(const GemmAlgorithms& others) {
  CHECK(others.library_ == library_) << others.library_.gpu << " and " << library_.gpu;
  algorithms_.insert(others.algorithms_.begin(), others.algorithms_.end());
}

std::string GemmAlgorithmsJson(const GemmAlgorithms& algorithms) {
  Json products = Json::object();
  for (const auto& [product, algorithm] : algorithms.algorithms_) {
    products[product] = Digits(algorithm);
  }
  const Json json = {{"format", kFormat},
                     {"version", kVersion},
                     {"gpu", algorithms.library_.gpu},
                     {"cublaslt", algorithms.library_.version},
                     {"algorithms", std::move(products)}};
  return json.dump(1) + "\n";
}

absl::StatusOr<GemmAlgorithms> ParseGemmAlgorithms(const std::string& text) {
  try {
    const Json json =
        Json::parse(text, [](int depth, Json::parse_event_t, Json&) { return depth <= kDeepest; });
    if (json.at("format").get<std::string>() != kFormat) {
      return absl::DataLossError("it is not a file of GEMM algorithms");
    }
    // A number with a fraction, or beyond the range of integers, would be converted.
    if (!json.at("version").is_number_integer() || !json.at("cublaslt").is_number_integer()) {
      return Damaged();
    }
    if (const auto version = JsonInteger(json.at("version")); version != kVersion) {
      return absl::FailedPreconditionError(absl::StrCat(
          "it has version ", version, " of the format, this program reads ", kVersion));
    }
    GemmAlgorithms algorithms(
        {json.at("gpu").get<std::string>(), JsonInteger(json.at("cublaslt"))});
    for (const auto& [product, digits] : json.at("algorithms").items()) {
      const std::optional<GemmAlgorithm> algorithm = ParseDigits(digits.get<std::string>());
      if (!algorithm.has_value()) {
        return absl::DataLossError(absl::StrCat("the algorithm of \"", OneLine(product),
                                                "\" is not of 128 hexadecimal digits"));
      }
      algorithms.algorithms_[product] = *algorithm;
    }
    return algorithms;
  } catch (const Json::exception&) {
    // Its message can hold bytes of the file that are no text.
    return Damaged();
  }
}

}  // namespace panthera
