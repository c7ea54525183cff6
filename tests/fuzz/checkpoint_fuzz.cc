// Two targets: manifests alone, and whole checkpoint directories that a run resumes from.
#include <algorithm>
#include <cstddef>
#include <string>
#include <vector>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include <nlohmann/json.hpp>

#include "runtime/base/check.h"
#include "runtime/checkpoint/checkpoint.h"
#include "runtime/checkpoint/checksum.h"
#include "runtime/checkpoint/manifest.h"
#include "runtime/checkpoint/step_directories.h"
#include "runtime/comm/host_group.h"
#include "tests/fuzz/fuzz_target.h"
#include "tests/fuzz/memory_file_system.h"

namespace panthera::testing {
namespace {

using Json = nlohmann::ordered_json;

constexpr char kRun[] = "run";
constexpr int64_t kOldStep = 1;
constexpr int64_t kNewStep = 2;
// Larger tensors are not loaded: nothing of them is in the files.
constexpr int64_t kLargestTensor = 1 << 16;

const char* const kFileNames[] = {kManifestName, "model.safetensors", "momentum.safetensors",
                                  "state.json"};

// SelfHostGroup lies beside communicators, which would have to be compiled with it.
class OneRank final : public HostGroup {
 public:
  int rank() const override { return 0; }
  int size() const override { return 1; }
  std::vector<std::string> AllGather(const std::string& bytes) override { return {bytes}; }
  std::string Broadcast(const std::string& bytes, int /*root*/) override { return bytes; }
};

// Words of a manifest.
std::vector<std::string> ManifestWords() {
  return {"\"format\"",
          "\"version\"",
          "\"program\"",
          "\"step\"",
          "\"finite\"",
          "\"files\"",
          "\"name\"",
          "\"bytes\"",
          "\"checked_bytes\"",
          "\"checksum\"",
          "\"sets\"",
          "\"derived\"",
          "\"tensors\"",
          "\"dtype\"",
          "\"shape\"",
          "\"file\"",
          "\"slices\"",
          "\"runs\"",
          "\"checksums\"",
          "\"block_bytes\"",
          "true",
          "false",
          "null",
          "[",
          "]",
          "{",
          "}",
          ",",
          "1e300",
          "\\n"};
}

// The object's depth; what is deeper than any manifest is not worth a repair.
bool IsShallow(const std::string& text) {
  int depth = 0;
  int deepest = 0;
  for (const char c : text) {
    depth += c == '[' || c == '{' ? 1 : (c == ']' || c == '}' ? -1 : 0);
    deepest = std::max(deepest, depth);
  }
  return deepest < 100;
}

// Calls `change` with the object and writes it back with the checksum that it then has.
template <typename Change>
void RepairManifest(std::string& text, Change change) {
  if (!IsShallow(text)) {
    return;
  }
  Json json = Json::parse(text, nullptr, false);
  if (!json.is_object()) {
    return;
  }
  change(json);
  json.erase("checksum");
  json["checksum"] = ChecksumText(Checksum(json.dump()));
  text = json.dump(1) + "\n";
}

// Every element must be in exactly one slice, and there must be a checksum for every block.
void CheckSlicesByElement(const Manifest& manifest, const TensorRecord& record) {
  const int64_t elements = record.tensor.shape.elements();
  int64_t covered = 0;
  std::vector<bool> seen(elements <= kLargestTensor ? static_cast<size_t>(elements) : 0);
  for (const SliceRecord& slice : record.slices) {
    CHECK_GE(slice.runs.begin, 0);
    CHECK_LE(slice.runs.end(), elements);
    covered += slice.runs.elements();
    CHECK_EQ(NumBlocks(slice.runs.elements(), record.tensor.dtype, manifest.block_bytes),
             static_cast<int64_t>(slice.checksums.size()));
    if (!seen.empty()) {
      CHECK_OK(ForEachRun(slice.runs, 0, slice.runs.elements(), [&](const RunPart& part) {
        for (int64_t i = part.element; i < part.element + part.elements; ++i) {
          CHECK(!seen[static_cast<size_t>(i)]) << record.tensor.name << " element " << i;
          seen[static_cast<size_t>(i)] = true;
        }
        return absl::OkStatus();
      }));
    }
  }
  CHECK_EQ(covered, elements) << record.tensor.name;
}

class ManifestTarget final : public FuzzTarget {
 public:
  std::vector<Parts> Seeds() const override {
    Manifest manifest;
    manifest.program = "panthera 0.1.0";
    manifest.step = 1000;
    const std::string empty = ManifestJson(manifest);
    manifest.block_bytes = 16;
    manifest.files = {{"model.safetensors", 1000, 200, 0xABCDEF0123456789},
                      {"state.json", 2, 2, 7}};
    TensorRecord columns{{"w", DType::kF32, Shape{2, 5}}, "model.safetensors", {}};
    columns.slices = {{ElementRuns{0, 2, 5, 2}, {1}}, {ElementRuns{2, 3, 5, 2}, {2, 3}}};
    TensorRecord run{{"norm", DType::kBF16, Shape{6}}, "model.safetensors", {}};
    run.slices = {{ElementRuns::Contiguous(0, 6), {9}}};
    manifest.sets = {{"model", {"lm_head.weight"}, {columns, run}}};
    return {{empty}, {ManifestJson(manifest)}};
  }

  std::vector<std::string> Words() const override { return ManifestWords(); }

  void Repair(uint64_t /*choice*/, Parts& parts) const override {
    RepairManifest(parts[0], [](Json&) {});
  }

  Verdict Check(const Parts& parts) override {
    CheckRankRecord(parts[0]);
    const absl::StatusOr<Manifest> manifest = ParseManifest(parts[0]);
    if (!manifest.ok()) {
      // Another version is no damage.
      CHECK(absl::IsDataLoss(manifest.status()) || absl::IsFailedPrecondition(manifest.status()))
          << manifest.status().ToString();
      CheckIsOneLine(manifest.status());
      return Verdict::kRefused;
    }
    for (const TensorSetRecord& set : manifest->sets) {
      for (const TensorRecord& record : set.tensors) {
        CheckSlicesByElement(*manifest, record);
      }
    }
    const std::string written = ManifestJson(*manifest);
    const absl::StatusOr<Manifest> again = ParseManifest(written);
    CHECK_OK(again.status());
    CHECK_EQ(ManifestJson(*again), written);
    return Verdict::kAccepted;
  }

 private:
  // What ranks send each other has the same parts.
  static void CheckRankRecord(const std::string& text) {
    const absl::StatusOr<RankRecord> record = ParseRankRecord(text);
    if (!record.ok()) {
      CheckIsOneLine(record.status());
      return;
    }
    const std::string written = RankRecordJson(*record);
    const absl::StatusOr<RankRecord> again = ParseRankRecord(written);
    CHECK_OK(again.status());
    CHECK_EQ(RankRecordJson(*again), written);
  }
};

// The parts are the files of the newer of two checkpoints, in the order of kFileNames. The older
// one is whole, so that there is always one to go on from.
class CheckpointTarget final : public FuzzTarget {
 public:
  CheckpointTarget() { Save(kOldStep, files_); }

  std::vector<Parts> Seeds() const override {
    MemoryFileSystem files;
    Save(kNewStep, files);
    Parts parts;
    for (const char* name : kFileNames) {
      parts.push_back(files.Get(absl::StrCat(CheckpointDirectory(kRun, kNewStep), "/", name)));
    }
    return {parts};
  }

  std::vector<std::string> Words() const override { return ManifestWords(); }

  // The manifest's checksum, and the sizes and checksums that it has of the other files.
  void Repair(uint64_t choice, Parts& parts) const override {
    RepairManifest(parts[0], [&](Json& json) {
      if (choice % 4 == 0 || !json.contains("files") || !json["files"].is_array()) {
        return;
      }
      for (Json& file : json["files"]) {
        for (size_t i = 1; i < std::min(parts.size(), std::size(kFileNames)); ++i) {
          if (file.is_object() && file.contains("name") && file["name"] == kFileNames[i]) {
            const bool whole = absl::EndsWith(kFileNames[i], ".json");
            const size_t checked = whole ? parts[i].size() : std::min<size_t>(64, parts[i].size());
            file["bytes"] = parts[i].size();
            file["checked_bytes"] = checked;
            file["checksum"] = ChecksumText(Checksum(parts[i].substr(0, checked)));
          }
        }
      }
    });
  }

  Verdict Check(const Parts& parts) override {
    const std::string directory = CheckpointDirectory(kRun, kNewStep);
    for (size_t i = 0; i < std::size(kFileNames); ++i) {
      const std::string path = absl::StrCat(directory, "/", kFileNames[i]);
      if (i < parts.size()) {
        files_.Put(path, parts[i]);
      } else {
        CHECK_OK(files_.Remove(path));
      }
    }
    OneRank group;
    const absl::StatusOr<FoundCheckpoint> found = FindNewest(files_, group, kRun);
    if (absl::IsFailedPrecondition(found.status())) {
      CheckIsOneLine(found.status());  // of another version: not damaged, so nothing replaces it
      return Verdict::kRefused;
    }
    CHECK_OK(found.status());
    CHECK(found->checkpoint.has_value()) << "the older checkpoint was not found";
    for (const std::string& reason : found->skipped) {
      CheckIsOneLine(absl::DataLossError(reason));
    }
    if (found->checkpoint->directory() != directory) {
      CHECK_EQ(found->checkpoint->step(), kOldStep);
      CHECK_EQ(found->skipped.size(), 1U);
      return Verdict::kRefused;
    }
    bool is_whole = true;
    for (const TensorSetRecord& set : found->checkpoint->manifest().sets) {
      is_whole = CheckSet(*found->checkpoint, set) && is_whole;
    }
    return is_whole ? Verdict::kAccepted : Verdict::kRefused;
  }

 private:
  static void Save(int64_t step, MemoryFileSystem& files) {
    std::vector<float> values = {1, 2, 3, 4, 5, 6};
    std::vector<float> momentum = {-1, -2, -3, -4, -5, -6};
    const auto piece = [](std::vector<float>& data) {
      return TensorPiece{"w", Shape{2, 3}, ElementRuns::Contiguous(0, 6),
                         Tensor(data.data(), Shape{6}, DType::kF32, Device{})};
    };
    CheckpointContents contents;
    contents.step = step;
    contents.program = "panthera 0.1.0";
    contents.sets = {{"model", {piece(values)}, {}}, {"momentum", {piece(momentum)}, {}}};
    contents.small_files = {{"state.json", "{\"step\":2}\n"}};
    OneRank group;
    CHECK_OK(SaveCheckpoint(files, group, kRun, contents, RetentionOptions()));
  }

  // Loads every tensor of a set. What comes without an error lies so in the file.
  bool CheckSet(const Checkpoint& checkpoint, const TensorSetRecord& set) {
    std::vector<std::vector<std::byte>> memory;
    std::vector<TensorPiece> pieces;
    for (const TensorRecord& record : set.tensors) {
      const int64_t elements = record.tensor.shape.elements();
      if (elements == 0 || elements > kLargestTensor) {
        continue;
      }
      memory.emplace_back(static_cast<size_t>(record.tensor.bytes()));
      pieces.push_back(
          {record.tensor.name, record.tensor.shape, ElementRuns::Contiguous(0, elements),
           Tensor(memory.back().data(), Shape{elements}, record.tensor.dtype, Device{})});
    }
    OneRank group;
    const absl::Status status = LoadPieces(files_, group, checkpoint, set.name, pieces);
    if (!status.ok()) {
      CheckIsOneLine(status);
      return false;
    }
    for (const TensorPiece& piece : pieces) {
      for (const TensorRecord& record : set.tensors) {
        if (record.tensor.name == piece.name) {
          CheckBytes(checkpoint, set, record, piece.data);
        }
      }
    }
    return true;
  }

  void CheckBytes(const Checkpoint& checkpoint, const TensorSetRecord& set,
                  const TensorRecord& record, const Tensor& data) {
    const std::string& file = files_.Get(absl::StrCat(checkpoint.directory(), "/", record.file));
    const auto begin = static_cast<size_t>(checkpoint.TensorBegin(set, record));
    const std::string stored = file.substr(begin, static_cast<size_t>(record.tensor.bytes()));
    CHECK_EQ(stored.size(), static_cast<size_t>(data.bytes()));
    CHECK(std::equal(stored.begin(), stored.end(), reinterpret_cast<char*>(data.bytes_data())))
        << record.tensor.name;
  }

  MemoryFileSystem files_;
};

}  // namespace

std::unique_ptr<FuzzTarget> MakeCheckpointTarget() { return std::make_unique<CheckpointTarget>(); }

std::unique_ptr<FuzzTarget> MakeManifestTarget() { return std::make_unique<ManifestTarget>(); }

}  // namespace panthera::testing
