#include "launcher/conversion.h"

#include <unistd.h>

#include <cmath>
#include <filesystem>
#include <fstream>
#include <limits>
#include <map>
#include <optional>
#include <string>
#include <vector>

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <nlohmann/json.hpp>

#include "launcher/config_file.h"
#include "launcher/weight_source.h"
#include "runtime/base/check.h"
#include "runtime/checkpoint/checkpoint.h"
#include "runtime/comm/self_communicator.h"
#include "tests/support/plain_model.h"
#include "tests/support/temp_dir.h"

namespace panthera {
namespace {

namespace fs = std::filesystem;
using ::testing::AllOf;
using ::testing::HasSubstr;
using ::testing::IsEmpty;
using testing::PlainModel;
using testing::PlainTensors;
using testing::ReadText;
using testing::TempDir;
using testing::WriteText;

class ConversionTest : public ::testing::Test {
 protected:
  ConversionTest() { fs::create_directory(dir_.File("in")); }

  absl::StatusOr<Conversion> Run(const std::string& from, const std::string& to,
                                 std::optional<DType> dtype = {},
                                 int64_t max_file_bytes = 1 << 30) {
    return Convert(files_, {.source = dir_.File(from),
                            .output = dir_.File(to),
                            .dtype = dtype,
                            .max_file_bytes = max_file_bytes});
  }
  void MustRun(const std::string& from, const std::string& to, std::optional<DType> dtype = {},
               int64_t max_file_bytes = 1 << 30) {
    const absl::StatusOr<Conversion> done = Run(from, to, dtype, max_file_bytes);
    ASSERT_TRUE(done.ok()) << done.status();
  }
  // Of a conversion from "in" that leaves nothing behind.
  std::string Refusal(const std::string& to, std::optional<DType> dtype = {}) {
    const bool was_there = fs::exists(dir_.File(to));
    const absl::StatusOr<Conversion> done = Run("in", to, dtype);
    EXPECT_FALSE(done.ok());
    EXPECT_EQ(fs::exists(dir_.File(to)), was_there);
    return std::string(done.status().message());
  }

  // The bytes of every tensor.
  std::map<std::string, std::string> Stored(const std::string& name) {
    const absl::StatusOr<WeightFiles> weights = WeightFiles::Open(files_, dir_.File(name));
    CHECK_OK(weights.status());
    WeightReader reader(files_, *weights);
    std::map<std::string, std::string> stored;
    for (const StoredTensor& tensor : weights->tensors()) {
      std::string bytes(static_cast<size_t>(tensor.tensor.bytes()), 'x');
      CHECK_OK(reader.Read(tensor, 0, std::as_writable_bytes(std::span(bytes))));
      stored[tensor.tensor.name] = bytes;
    }
    return stored;
  }
  std::map<std::string, std::string> Expected(const std::string& type) const {
    std::map<std::string, std::string> bytes;
    for (const auto& [name, tensor] : model_.tensors) {
      bytes[name] = testing::PlainElements(tensor.values, type);
    }
    return bytes;
  }
  std::vector<std::string> Names(const std::string& name) const {
    std::vector<std::string> names;
    for (const fs::directory_entry& entry : fs::directory_iterator(dir_.File(name))) {
      names.push_back(entry.path().filename());
    }
    return names;
  }

  TempDir dir_;
  PosixFileSystem files_;
  PlainModel model_;
};

TEST_F(ConversionTest, RoundTripsKeepEveryBitInOneFileOrSeveral) {
  for (const char* type : {"F32", "BF16", "F16"}) {
    SCOPED_TRACE(type);
    const std::string name(type);
    fs::create_directory(dir_.File(name));
    model_.Write(dir_.File(name), type, 2);
    MustRun(name, name + "_one");
    MustRun(name + "_one", name + "_many", {}, 1500);
    MustRun(name + "_many", name + "_back", DTypeFromSafetensors(type).value());

    EXPECT_TRUE(fs::exists(dir_.File(name + "_one/model.safetensors")));
    EXPECT_FALSE(fs::exists(dir_.File(name + "_many/model.safetensors")));
    EXPECT_EQ(Stored(name + "_one"), Expected(type));
    EXPECT_EQ(Stored(name + "_many"), Expected(type));
    EXPECT_EQ(Stored(name + "_back"), Expected(type));
    EXPECT_EQ(ReadText(dir_.File(name + "_back/model.safetensors")),
              ReadText(dir_.File(name + "_one/model.safetensors")));
    EXPECT_EQ(ReadText(dir_.File(name + "_many/config.json")),
              ReadText(dir_.File(name + "/config.json")));
  }
}

TEST_F(ConversionTest, EveryTypeIsMadeFromEveryOther) {
  const std::pair<const char*, DType> types[] = {
      {"F32", DType::kF32}, {"BF16", DType::kBF16}, {"F16", DType::kF16}};
  const char* torch_names[] = {"float32", "bfloat16", "float16"};
  for (const auto& [from, from_dtype] : types) {
    fs::create_directory(dir_.File(from));
    model_.Write(dir_.File(from), from, 1);
    for (const auto& [to, to_dtype] : types) {
      const std::string out = std::string(from) + "_to_" + to;
      MustRun(from, out, to_dtype);
      EXPECT_EQ(Stored(out), Expected(to)) << out;
      const size_t which = to_dtype == DType::kF32 ? 0 : to_dtype == DType::kBF16 ? 1 : 2;
      EXPECT_EQ(nlohmann::json::parse(ReadText(dir_.File(out + "/config.json")))["torch_dtype"],
                torch_names[which]);
    }
  }
}

TEST_F(ConversionTest, RoundsToNearestAndTiesToEven) {
  std::vector<float>& values = model_.tensors["model.norm.weight"].values;
  values[0] = 1 + 0x1p-8F;             // between 1 and 1 + 2^-7 in bf16: to even
  values[1] = 1 + 0x1p-8F + 0x1p-20F;  // above the middle
  values[2] = 1 + 3 * 0x1p-8F;         // between two whose upper one is even
  model_.Write(dir_.File("in"), "F32", 1);
  MustRun("in", "out", DType::kBF16);
  values[0] = 1;
  values[1] = 1 + 0x1p-7F;
  values[2] = 1 + 0x1p-6F;
  EXPECT_EQ(Stored("out"), Expected("BF16"));
}

TEST_F(ConversionTest, NotANumberIsKeptAndOverflowIsNamed) {
  std::vector<float>& values = model_.tensors["model.layers.1.mlp.up_proj.weight"].values;
  values[7] = std::nanf("");
  values[8] = -std::numeric_limits<float>::infinity();
  model_.Write(dir_.File("in"), "F32", 1);
  MustRun("in", "out", DType::kBF16);
  EXPECT_EQ(Stored("out"), Expected("BF16"));

  values[100] = -65520;
  model_.Write(dir_.File("in"), "F32", 1);
  EXPECT_THAT(Refusal("half", DType::kF16),
              AllOf(HasSubstr("element 100 of tensor model.layers.1.mlp.up_proj.weight is -65520"),
                    HasSubstr("use --dtype bf16 or f32")));
  EXPECT_FALSE(fs::exists(dir_.File("half.tmp")));
}

TEST_F(ConversionTest, KeepsWhatTokenizersAndGenerationNeedAndNothingElse) {
  model_.Write(dir_.File("in"), "BF16", 1);
  const std::string large(9'000'000, 't');
  WriteText(dir_.File("in/tokenizer.json"), large);
  WriteText(dir_.File("in/generation_config.json"), "{\"temperature\": 0.6}");
  WriteText(dir_.File("in/training_args.bin"), "no");
  MustRun("in", "out");
  EXPECT_EQ(ReadText(dir_.File("out/tokenizer.json")), large);
  EXPECT_THAT(Names("out"),
              ::testing::UnorderedElementsAre("config.json", "generation_config.json",
                                              "model.safetensors", "model.toml", "tokenizer.json"));
}

TEST_F(ConversionTest, ModelTomlIsTheModelAndStartsFromTheResult) {
  model_.config["tie_word_embeddings"] = "true";
  model_.config["rope_theta"] = "500000";
  model_.tensors.erase("lm_head.weight");
  model_.Write(dir_.File("in"), "BF16", 1);
  // A name that is no more than a name, in the comment at the top too.
  const std::string out = "out\nsteps = 9";
  MustRun("in", out + "/");
  RunOptions options;
  ASSERT_EQ(ParseConfig(ReadText(dir_.File(out + "/model.toml")) +
                            "steps = 1\nglobal_batch = 1\nmicro_batch = 1\n",
                        "model.toml", {}, options),
            absl::OkStatus());
  EXPECT_EQ(options.train.start_from, dir_.File(out));
  EXPECT_EQ(options.model.width, 16);
  EXPECT_EQ(options.model.head_width, 8);
  EXPECT_EQ(options.model.rope_base, 500000);
  EXPECT_EQ(options.model.tie, Tie::kTied);
}

TEST_F(ConversionTest, RotaryFrequenciesOfOldFilesAreLeftOut) {
  model_.Write(dir_.File("in"), "F32", 1);
  PlainTensors tensors = model_.tensors;
  tensors["model.layers.0.self_attn.rotary_emb.inv_freq"] = {{4}, {1, 1, 1, 1}};
  WriteText(dir_.File("in/model.safetensors"), testing::PlainSafetensors(tensors, "F32"));
  MustRun("in", "out");
  EXPECT_EQ(Stored("out"), Expected("F32"));
}

TEST_F(ConversionTest, WhatIsThereIsNeverOverwritten) {
  model_.Write(dir_.File("in"), "F32", 1);
  fs::create_directory(dir_.File("empty"));
  WriteText(dir_.File("file"), "mine");
  fs::create_symlink("nowhere", dir_.File("link"));
  fs::create_directory(dir_.File("cut.tmp"));
  for (const char* name : {"empty", "file", "link"}) {
    EXPECT_FALSE(Run("in", name).ok());
    EXPECT_THAT(Refusal(name), HasSubstr("exists; name a directory that is not there yet"));
  }
  EXPECT_THAT(Names("empty"), IsEmpty());
  EXPECT_EQ(ReadText(dir_.File("file")), "mine");
  EXPECT_THAT(Refusal("cut"), HasSubstr("cut.tmp exists"));
  EXPECT_TRUE(fs::exists(dir_.File("cut.tmp")));
  EXPECT_THAT(Refusal("in"), HasSubstr("in exists"));
}

// A checkpoint of the same model, with another split into slices than tensors have.
void SaveCheckpointOf(const PlainModel& model, FileSystem& files, const std::string& run) {
  CheckpointContents contents;
  contents.step = 5;
  contents.program = "panthera test";
  PlainTensors copies = model.tensors;
  TensorSet set{"model", {}, {}};
  for (auto& [name, tensor] : copies) {
    const auto elements = static_cast<int64_t>(tensor.values.size());
    const Shape shape =
        tensor.shape.size() == 1 ? Shape{tensor.shape[0]} : Shape{tensor.shape[0], tensor.shape[1]};
    const Tensor data(tensor.values.data(), {elements}, DType::kF32, Device{});
    const int64_t cut = elements / 3;
    set.pieces.push_back({name, shape, ElementRuns::Contiguous(0, cut), data.Slice(0, cut)});
    set.pieces.push_back(
        {name, shape, ElementRuns::Contiguous(cut, elements - cut), data.Slice(cut, elements)});
  }
  contents.sets = {set};
  TempDir plain;
  model.Write(plain.path(), "F32", 1);
  contents.small_files = {{"config.json", ReadText(plain.File("config.json"))}};
  SelfHostGroup self;
  CHECK_OK(SaveCheckpoint(files, self, run, contents, {.keep_newest = 9}));
}

TEST_F(ConversionTest, ACheckpointIsVerifiedWhileItIsRead) {
  SaveCheckpointOf(model_, files_, dir_.File("run"));
  const std::string step = "run/checkpoints/step_00000005";
  MustRun(step, "out");
  MustRun("run", "newest");
  EXPECT_EQ(Stored("out"), Expected("F32"));
  EXPECT_EQ(ReadText(dir_.File("newest/model.safetensors")),
            ReadText(dir_.File("out/model.safetensors")));

  const std::string path = dir_.File(step + "/model.safetensors");
  std::string bytes = ReadText(path);
  bytes[bytes.size() - 3] = static_cast<char>(bytes[bytes.size() - 3] ^ 1);
  WriteText(path, bytes);
  const absl::StatusOr<Conversion> damaged = Run(step, "damaged");
  ASSERT_FALSE(damaged.ok());
  EXPECT_THAT(std::string(damaged.status().message()),
              AllOf(HasSubstr("is damaged"), HasSubstr("checksum")));
  EXPECT_FALSE(fs::exists(dir_.File("damaged")));

  fs::remove(dir_.File(step + "/manifest.json"));
  EXPECT_THAT(std::string(Run(step, "half").status().message()),
              HasSubstr("not a whole checkpoint"));
}

// Bytes of this process that are in memory.
int64_t ResidentBytes() {
  std::ifstream file("/proc/self/statm");
  int64_t pages = 0;
  int64_t resident = 0;
  file >> pages >> resident;
  CHECK_GT(resident, 0);
  return resident * sysconf(_SC_PAGESIZE);
}

int64_t PeakResidentBytes() {
  std::ifstream file("/proc/self/status");
  std::string word;
  while (file >> word && word != "VmHWM:") {
  }
  int64_t kibibytes = 0;
  file >> kibibytes;
  CHECK_GT(kibibytes, 0);
  return kibibytes << 10;
}

// A file of 400 MB, nearly all of it one tensor, of zeros that take no disk.
TEST_F(ConversionTest, MemoryDoesNotGrowWithTheModel) {
  constexpr int64_t kVocabulary = 6'250'000;
  model_.config["vocab_size"] = std::to_string(kVocabulary);
  model_.config["tie_word_embeddings"] = "true";
  model_.tensors.erase("lm_head.weight");
  PlainTensors small = model_.tensors;
  small.erase("model.embed_tokens.weight");
  model_.Write(dir_.File("in"), "F32", 1);
  fs::remove(dir_.File("in/model.safetensors"));
  std::string rest = testing::PlainSafetensors(small, "F32");
  std::string map;
  for (const auto& [name, tensor] : small) {
    map += "\"" + name + "\": \"b.safetensors\", ";
  }
  WriteText(dir_.File("in/b.safetensors"), rest);
  std::string header = R"({"model.embed_tokens.weight":{"dtype":"F32","shape":[6250000,16],)"
                       R"("data_offsets":[0,400000000]}})";
  std::string length(8, '\0');
  length[0] = static_cast<char>(header.size());
  WriteText(dir_.File("in/a.safetensors"), length + header);
  fs::resize_file(dir_.File("in/a.safetensors"), 8 + header.size() + 400'000'000);
  WriteText(dir_.File("in/model.safetensors.index.json"),
            "{\"weight_map\": {" + map + "\"model.embed_tokens.weight\": \"a.safetensors\"}}");

  const int64_t before = ResidentBytes();
  MustRun("in", "out", DType::kBF16);
  EXPECT_LT(PeakResidentBytes() - before, int64_t{64} << 20);
  EXPECT_GT(fs::file_size(dir_.File("out/model.safetensors")), 200'000'000U);
}

}  // namespace
}  // namespace panthera
