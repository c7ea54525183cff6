// Safetensors headers: part 0 is the file up to the tensors, part 1 the number of bytes that follow
// in decimal digits. Those bytes are zero and take no memory, however many they are.
#include <algorithm>
#include <cstring>
#include <string>
#include <vector>

#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include <nlohmann/json.hpp>

#include "runtime/base/check.h"
#include "runtime/checkpoint/safetensors.h"
#include "tests/fuzz/fuzz_target.h"

namespace panthera::testing {
namespace {

constexpr size_t kLengthBytes = 8;
constexpr char kPath[] = "run/model.safetensors";

// `header`, and behind it `zeros` bytes.
class SparseFile final : public File {
 public:
  SparseFile(const std::string& header, int64_t zeros) : header_(header), zeros_(zeros) {}

  absl::Status WriteAt(int64_t, std::span<const std::byte>) override { return ReadOnly(); }
  absl::Status ReadAt(int64_t offset, std::span<std::byte> data) override {
    const auto size = static_cast<int64_t>(header_.size());
    CHECK_GE(offset, 0);
    CHECK_LE(offset, size + zeros_ - static_cast<int64_t>(data.size()));
    std::fill(data.begin(), data.end(), std::byte{0});
    if (offset < size) {
      const auto part = std::min(static_cast<size_t>(size - offset), data.size());
      std::memcpy(data.data(), header_.data() + offset, part);
    }
    return absl::OkStatus();
  }
  absl::Status Allocate(int64_t) override { return ReadOnly(); }
  absl::StatusOr<int64_t> Bytes() override { return static_cast<int64_t>(header_.size()) + zeros_; }
  absl::Status Sync() override { return ReadOnly(); }
  absl::Status Close() override { return absl::OkStatus(); }

 private:
  static absl::Status ReadOnly() { return absl::PermissionDeniedError("only for reading"); }

  const std::string& header_;
  int64_t zeros_;
};

int64_t ZerosOf(const Parts& parts) {
  int64_t zeros = 0;
  // A file of more than 2^40 bytes teaches nothing new, but is a header of 2^27 bytes in memory.
  return parts.size() > 1 && absl::SimpleAtoi(parts[1], &zeros)
             ? std::clamp<int64_t>(zeros, 0, int64_t{1} << 40)
             : 0;
}

// The tensors must follow each other from the end of the header to the end of the file.
void CheckLayout(const SafetensorsHeader& header, int64_t file_bytes) {
  CHECK_EQ(header.file_bytes, file_bytes);
  auto end = static_cast<int64_t>(header.bytes.size());
  for (const SafetensorsEntry& entry : header.entries) {
    CHECK_EQ(entry.begin, end);
    CHECK_GE(entry.tensor.bytes(), 0);
    CHECK_LE(entry.tensor.bytes(), file_bytes - end);
    end += entry.tensor.bytes();
  }
  CHECK_EQ(end, file_bytes);
}

// What was read can be written, and is then read back as it was.
void CheckRoundTrip(const SafetensorsHeader& header) {
  std::vector<TensorDescription> tensors;
  for (const SafetensorsEntry& entry : header.entries) {
    tensors.push_back(entry.tensor);
  }
  const SafetensorsHeader written = LayOutSafetensors(tensors);
  SparseFile file(written.bytes, written.file_bytes - static_cast<int64_t>(written.bytes.size()));
  const absl::StatusOr<SafetensorsHeader> again = ReadSafetensorsHeader(file, kPath);
  CHECK_OK(again.status());
  CHECK_EQ(again->entries.size(), tensors.size());
  for (size_t i = 0; i < tensors.size(); ++i) {
    CHECK_EQ(again->entries[i].tensor.bytes(), tensors[i].bytes());
    // Tensors without bytes may change places among themselves.
    CHECK(tensors[i].bytes() == 0 || again->entries[i].tensor.name == tensors[i].name);
  }
}

class SafetensorsTarget final : public FuzzTarget {
 public:
  std::vector<Parts> Seeds() const override {
    const TensorDescription matrix = {"model.norm.weight", DType::kF32, Shape{4, 6}};
    const TensorDescription scalar = {"scalar", DType::kI64, Shape{}};
    const TensorDescription empty = {"empty", DType::kU8, Shape{0, 3}};
    const TensorDescription big = {"big", DType::kBF16, Shape{1 << 14, 2, 3, 1 << 14}};
    std::vector<Parts> seeds;
    for (const std::vector<TensorDescription>& tensors :
         {std::vector<TensorDescription>{}, {matrix}, {scalar, matrix, empty}, {matrix, big}}) {
      const SafetensorsHeader header = LayOutSafetensors(tensors);
      seeds.push_back({header.bytes, absl::StrCat(header.file_bytes -
                                                  static_cast<int64_t>(header.bytes.size()))});
    }
    return seeds;
  }

  std::vector<std::string> Words() const override {
    return {"\"dtype\"",
            "\"shape\"",
            "\"data_offsets\"",
            "\"__metadata__\"",
            "F32",
            "BF16",
            "F64",
            "I64",
            "I32",
            "U8",
            "[",
            "]",
            "{",
            "}",
            ",",
            ":",
            "-1",
            "1e300",
            "null",
            "true",
            "\\n"};
  }

  // The header's length, and a file that ends where the tensors end.
  void Repair(uint64_t choice, Parts& parts) const override {
    std::string& header = parts[0];
    if (header.size() < kLengthBytes) {
      return;
    }
    const uint64_t length = header.size() - kLengthBytes;
    std::memcpy(header.data(), &length, kLengthBytes);
    const auto json = nlohmann::json::parse(header.substr(kLengthBytes), nullptr, false);
    if (choice % 2 == 0 || !json.is_object()) {
      return;
    }
    int64_t end = 0;
    for (const nlohmann::json& entry : json) {
      const auto* offsets = entry.is_object() && entry.contains("data_offsets")
                                ? entry["data_offsets"].get_ptr<const nlohmann::json::array_t*>()
                                : nullptr;
      if (offsets != nullptr && offsets->size() == 2 && (*offsets)[1].is_number_integer()) {
        end = std::max(end, (*offsets)[1].get<int64_t>());
      }
    }
    parts.resize(2);
    parts[1] = absl::StrCat(end);
  }

  Verdict Check(const Parts& parts) override {
    SparseFile file(parts[0], ZerosOf(parts));
    const absl::StatusOr<SafetensorsHeader> header = ReadSafetensorsHeader(file, kPath);
    if (!header.ok()) {
      CHECK(absl::IsDataLoss(header.status())) << header.status().ToString();
      CheckIsOneLine(header.status());
      return Verdict::kRefused;
    }
    CheckLayout(*header, *file.Bytes());
    CheckRoundTrip(*header);
    return Verdict::kAccepted;
  }
};

}  // namespace

std::unique_ptr<FuzzTarget> MakeSafetensorsTarget() {
  return std::make_unique<SafetensorsTarget>();
}

}  // namespace panthera::testing
