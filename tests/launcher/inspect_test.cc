#include <cmath>
#include <filesystem>
#include <limits>
#include <sstream>
#include <string>
#include <vector>

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "launcher/config_text.h"
#include "launcher/inspection.h"
#include "launcher/run_state.h"
#include "launcher/text_table.h"
#include "launcher/training_checkpoint.h"
#include "runtime/checkpoint/checkpoint.h"
#include "runtime/checkpoint/run_lock.h"
#include "runtime/comm/self_communicator.h"
#include "tests/runtime/data/token_bytes.h"
#include "tests/support/temp_dir.h"

namespace panthera {
namespace {

using ::testing::AllOf;
using ::testing::HasSubstr;
using ::testing::Not;

TEST(TextTableTest, ColumnsAreAsWideAsTheirWidestCell) {
  TextTable table("lrl");
  table.AddRow({"a", "10", "x"});
  table.AddRow({"long", "9", ""});
  EXPECT_EQ(table.ToString("  "), "  a     10  x\n  long   9\n");
}

class InspectTest : public ::testing::Test {
 protected:
  // A checkpoint of two tensors with these values, [2, 2] and [3].
  void Save(int64_t step, std::vector<float> values, std::vector<SmallFile> small_files) {
    CheckpointContents contents;
    contents.step = step;
    contents.program = "panthera test";
    const auto piece = [&](const char* name, const Shape& shape, float* data) {
      return TensorPiece{name, shape, ElementRuns::Contiguous(0, shape.elements()),
                         Tensor(data, {shape.elements()}, DType::kF32, Device{})};
    };
    contents.sets = {
        {"model", {piece("b", {3}, values.data() + 4), piece("a", {2, 2}, values.data())}, {}}};
    contents.small_files = std::move(small_files);
    const absl::Status saved =
        SaveCheckpoint(files_, group_, dir_.path(), contents, {.keep_newest = 9});
    ASSERT_TRUE(saved.ok()) << saved;
  }
  void Save(int64_t step) { Save(step, {-3, 4, 0, 0, 1, 1, 1}, {{"note.txt", "hello"}}); }

  std::string CheckpointFile(int64_t step, const std::string& name) const {
    return CheckpointDirectory(dir_.path(), step) + "/" + name;
  }
  void FlipLastBit(const std::string& path) {
    std::string contents = *ReadFile(files_, path);
    contents.back() = static_cast<char>(contents.back() ^ 1);
    ASSERT_TRUE(WriteFile(files_, path, contents).ok());
  }

  // What is printed, with the temporary directory as "DIR".
  std::string Text(const std::string& path, Wholeness expected,
                   const InspectOptions& options = {}) {
    std::ostringstream out;
    const absl::StatusOr<Wholeness> wholeness = Inspect(files_, path, options, out);
    EXPECT_TRUE(wholeness.ok()) << wholeness.status();
    EXPECT_TRUE(wholeness.ok() && *wholeness == expected) << out.str();
    std::string text = out.str();
    for (size_t at = text.find(dir_.path()); at != std::string::npos; at = text.find(dir_.path())) {
      text.replace(at, dir_.path().size(), "DIR");
    }
    return text;
  }

  std::string Refusal(const std::string& path) {
    std::ostringstream out;
    const absl::StatusOr<Wholeness> wholeness = Inspect(files_, path, {}, out);
    EXPECT_FALSE(wholeness.ok()) << out.str();
    return std::string(wholeness.status().message());
  }

  testing::TempDir dir_;
  PosixFileSystem files_;
  SelfHostGroup group_;
};

TEST_F(InspectTest, PrintsAWholeCheckpoint) {
  Save(7);

  EXPECT_EQ(Text(CheckpointDirectory(dir_.path(), 7) + "/", Wholeness::kWhole,
                 {.verify = true, .tensors = true}),
            "DIR/checkpoints/step_00000007: a checkpoint\n"
            "  step              7\n"
            "  parameters        7\n"
            "  saved by          panthera test\n"
            "  numbers           all finite\n"
            "files\n"
            "  model.safetensors  180 B\n"
            "  note.txt             5 B\n"
            "  all 2 files        185 B\n"
            "sets\n"
            "         tensors  elements  bytes  types\n"
            "  model        2         7   28 B  fp32\n"
            "tensors\n"
            "                         min  max  rms  not finite\n"
            "  model/a  fp32  [2, 2]   -3    4  2.5           0\n"
            "  model/b  fp32  [3]       1    1    1           0\n"
            "  whole             yes: every checksum fits\n");
}

TEST_F(InspectTest, PrintsWhatARunWroteIntoItsCheckpoint) {
  RunOptions options;
  options.model.vocab_size = 64;
  options.model.width = 16;
  options.model.layers = 2;
  options.model.heads = 2;
  options.model.ffn_width = 24;
  options.model.sequence_length = 32;
  options.train.steps = 100;
  options.train.global_batch = 12;
  options.train.micro_batch = 2;
  options.data.seed = 5;
  ASSERT_EQ(options.model.Finish(), absl::OkStatus());
  options.optim.table.optimizer = TableOptimizer::kAdamW;
  ASSERT_EQ(options.optim.Finish(), absl::OkStatus());
  const DataRecord data{.files = {{"data.train[0]", "data/a.bin", 4000, 1}}, .tokenizer = ""};
  const Mesh mesh{.data_size = 3, .tensor_size = 2};
  Save(10, std::vector<float>(7),
       *CheckpointSmallFiles(options, nullptr, StateAfter(options, mesh, data, 10)));

  EXPECT_THAT(
      Text(CheckpointDirectory(dir_.path(), 10), Wholeness::kWhole),
      AllOf(HasSubstr("  saved on          3 data x 2 tensor ranks\n"),
            HasSubstr("  model             2 layers, width 16, 2 heads (2 key/value) of 8, "
                      "feed-forward 24, vocabulary 64, sequences of 32\n"),
            HasSubstr("  optimizer         tiger, for the embedding adamw; weights fp32, momentum "
                      "fp32\n"),
            HasSubstr("  learned from      3.84k tokens; sample 120 of the order of seed 5 comes "
                      "next\n"),
            HasSubstr("    data.train[0]   data/a.bin, 4.00k (4000) tokens\n")));
}

TEST_F(InspectTest, AConfigurationThatCannotBeReadHidesNothingElse) {
  Save(10, std::vector<float>(7), {{"state.json", "{}"}, {"run.toml", "[future]\nkey = 1\n"}});

  EXPECT_THAT(Text(CheckpointDirectory(dir_.path(), 10), Wholeness::kWhole),
              AllOf(HasSubstr("  state             not read: "),
                    HasSubstr("  configuration     not read: "), HasSubstr("all 3 files")));
}

TEST_F(InspectTest, DamageThatOnlyTheTensorsShowNeedsVerify) {
  Save(7);
  FlipLastBit(CheckpointFile(7, "model.safetensors"));
  const std::string path = CheckpointDirectory(dir_.path(), 7);

  EXPECT_THAT(Text(path, Wholeness::kWhole), HasSubstr("--verify reads all of it"));
  EXPECT_THAT(
      Text(path, Wholeness::kDamaged, {.verify = true}),
      HasSubstr("  whole             no: DIR/checkpoints/step_00000007/model.safetensors is "
                "damaged: elements of tensor b"));
}

TEST_F(InspectTest, ACheckpointWithoutItsFilesIsDamaged) {
  Save(7);
  ASSERT_TRUE(files_.Remove(CheckpointFile(7, "note.txt")).ok());
  const std::string path = CheckpointDirectory(dir_.path(), 7);

  EXPECT_THAT(Text(path, Wholeness::kDamaged),
              AllOf(HasSubstr("whole             no: "), HasSubstr("note.txt is missing")));
  ASSERT_TRUE(files_.Remove(CheckpointFile(7, "manifest.json")).ok());
  EXPECT_THAT(Text(path, Wholeness::kDamaged), HasSubstr("has no manifest.json"));
}

TEST_F(InspectTest, CountsNumbersThatAreNotFinite) {
  const float infinity = std::numeric_limits<float>::infinity();
  Save(7, {-3, 4, NAN, infinity, 1, 1, 1}, {});

  const std::string text = Text(CheckpointDirectory(dir_.path(), 7), Wholeness::kWhole,
                                {.verify = true, .tensors = true});

  EXPECT_THAT(text, AllOf(HasSubstr("numbers           some are not finite"),
                          // sqrt((9 + 16) / 2)
                          HasSubstr("model/a  fp32  [2, 2]   -3    4  3.536           2")));
}

TEST_F(InspectTest, PrintsARunDirectory) {
  for (const int64_t step : {10, 20, 30, 40}) {
    Save(step);
  }
  Save(50, std::vector<float>(7, std::numeric_limits<float>::infinity()), {});
  FlipLastBit(CheckpointFile(40, "note.txt"));
  ASSERT_TRUE(files_.MakeDirectories(CheckpointDirectory(dir_.path(), 60) + ".tmp").ok());
  ASSERT_TRUE(
      WriteFile(files_, dir_.File("metrics.jsonl"),
                "{\"step\":1,\"tokens\":100,\"loss_nats\":5.5,\"tokens_per_second\":10}\n"
                "{\"step\":2,\"tokens\":2000,\"loss_nats\":4.25,\"tokens_per_second\":990}\n"
                "{\"step\":3,\"tok")
          .ok());
  ASSERT_TRUE(WriteFile(files_, dir_.File("lock"), "host=far away\npid=7\njob=42\n").ok());

  EXPECT_EQ(Text(dir_.path(), Wholeness::kDamaged),
            "DIR: a run directory\n"
            "  in use            process 7 on host far away (job 42) works here, or died there\n"
            "  latest            step 2, loss 4.2500, 2.00k tokens, 990 tokens/s\n"
            "  configuration     config.toml is not there or cannot be read\n"
            "checkpoints\n"
            "  step_00000060.tmp  a save that was not finished; the next start removes it\n"
            "  step_00000050      whole, but not finite\n"
            "  step_00000040      damaged: DIR/checkpoints/step_00000040/note.txt is damaged: it "
            "does not "
            "have the checksum of the manifest\n"
            "  step_00000030      whole and finite\n"
            "  step_00000020      whole and finite\n"
            "  step_00000010      whole and finite\n"
            "  a resume          goes on after step 30, from step_00000030\n"
            "  whole             no: a checkpoint is damaged\n");
  EXPECT_EQ(FindNewest(files_, group_, dir_.path())->checkpoint->step(), 30);
}

TEST_F(InspectTest, WithVerifyADamagedTensorMovesTheResumePoint) {
  Save(10);
  Save(20);
  FlipLastBit(CheckpointFile(20, "model.safetensors"));

  EXPECT_THAT(Text(dir_.path(), Wholeness::kWhole), HasSubstr("from step_00000020"));
  EXPECT_THAT(Text(dir_.path(), Wholeness::kDamaged, {.verify = true}),
              HasSubstr("from step_00000010"));
}

TEST_F(InspectTest, ACheckpointOfAnotherVersionStopsAResume) {
  Save(10);
  Save(20);
  const std::string path = CheckpointFile(20, "manifest.json");
  Manifest manifest = *ParseManifest(*ReadFile(files_, path));
  manifest.version = kManifestVersion + 1;
  ASSERT_TRUE(WriteFile(files_, path, ManifestJson(manifest)).ok());

  EXPECT_THAT(Text(dir_.path(), Wholeness::kWhole),
              HasSubstr("is refused: step_00000020 is of another version"));
  EXPECT_THAT(Refusal(CheckpointDirectory(dir_.path(), 20)), HasSubstr("format version 2"));
}

TEST_F(InspectTest, ARunThatTrainsIsNamedAndNotDisturbed) {
  Save(10);
  const absl::StatusOr<RunLock> lock = RunLock::Acquire(dir_.path(), LockHolder::ThisProcess());
  ASSERT_TRUE(lock.ok());

  EXPECT_THAT(Text(dir_.path(), Wholeness::kWhole),
              HasSubstr(Describe(LockHolder::ThisProcess()) + " works here\n"));
  EXPECT_FALSE(RunLock::Acquire(dir_.path(), LockHolder::ThisProcess()).ok());
}

TEST_F(InspectTest, PrintsTokenFilesByAnyOfTheirNames) {
  testing::WritePair(dir_.File("a"), {5, 9, 300, 2, 7, 7});
  const std::string pair =
      ": a Megatron pair of token files\n"
      "  ids               uint16\n"
      "  tokens            6\n"
      "  documents         1\n"
      "  samples           2 whole ones of 2 tokens (--sequence-length)\n";
  for (const char* name : {"a", "a.bin", "a.idx"}) {
    EXPECT_THAT(Text(dir_.File(name), Wholeness::kWhole, {.sequence_length = 2}),
                AllOf(HasSubstr(name + pair),
                      HasSubstr("  largest id        300: model.vocab_size must be at least 301\n"),
                      HasSubstr("  whole             yes")));
  }
  testing::WriteBytes(dir_.File("c.bin"),
                      testing::LlmCBytes(20240801, 7, 2, testing::Ids({1, 70000}, 4)));
  EXPECT_THAT(Text(dir_.File("c.bin"), Wholeness::kWhole),
              AllOf(HasSubstr(": an llm.c token file\n  ids               uint32\n"),
                    HasSubstr("largest id        70000")));
}

TEST_F(InspectTest, DamagedTokenFilesAreToldFromUnknownFiles) {
  testing::WritePair(dir_.File("a"), {5, 9, 300, 2, 7, 7});
  std::filesystem::resize_file(dir_.File("a.bin"), 10);
  EXPECT_THAT(Text(dir_.File("a"), Wholeness::kDamaged), HasSubstr("one is cut short"));
  testing::WriteBytes(dir_.File("c.bin"),
                      testing::LlmCBytes(20240801, 7, 1, testing::Ids({0x80000000}, 4)));
  EXPECT_THAT(Text(dir_.File("c.bin"), Wholeness::kDamaged), HasSubstr("ids of 2^31 or more"));
  testing::WriteBytes(dir_.File("notes.txt"), "hello");
  EXPECT_THAT(Refusal(dir_.File("notes.txt")), HasSubstr("is nothing that panthera reads"));
  testing::WriteBytes(dir_.File("x.bin"), "hello");
  EXPECT_THAT(Refusal(dir_.File("x.bin")), HasSubstr("is not a token file"));
  EXPECT_THAT(Refusal(dir_.path()), HasSubstr("is nothing that panthera reads"));
  EXPECT_THAT(Refusal(dir_.File("missing")), HasSubstr("no token file found"));
}

TEST_F(InspectTest, PrintsASafetensorsFileAlone) {
  Save(7);
  const std::string path = CheckpointFile(7, "model.safetensors");
  EXPECT_THAT(Text(path, Wholeness::kWhole, {.verify = true}),
              AllOf(HasSubstr(": a safetensors file\n"), HasSubstr("  tensors           2\n"),
                    HasSubstr("  a  fp32  [2, 2]   -3    4  2.5           0\n")));
  EXPECT_THAT(Text(path, Wholeness::kWhole), Not(HasSubstr("rms")));
  std::filesystem::resize_file(path, 150);
  EXPECT_THAT(Text(path, Wholeness::kDamaged), HasSubstr("whole             no: "));
}

}  // namespace
}  // namespace panthera
