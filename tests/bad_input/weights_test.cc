#include <cstring>

#include "gmock/gmock.h"
#include "gtest/gtest.h"

#include "tests/bad_input/bad_input.h"
#include "tests/bad_input/program_run.h"

namespace panthera::testing {
namespace {

constexpr auto kDataAndRun = Workspace::Contents::kDataAndRun;
constexpr char kStep[] = "run/checkpoints/step_00000002/";

// A Hugging Face model beside the run, of the same shape.
void AddModel(const Workspace& files) {
  files.MakeDirectory("hf");
  for (const char* name : {"config.json", "model.safetensors"}) {
    files.Write(std::string("hf/") + name, files.Read(std::string(kStep) + name));
  }
}

BadInput Start(const std::string& what, const std::string& names, const std::string& fix,
               const std::function<void(const Workspace&)>& spoil, const std::string& from = "hf") {
  return {.what = what,
          .arguments = {"train", "run.toml", "--set", "train.run_dir=new", "--set",
                        "train.start_from=" + from},
          .names = names,
          .fix = fix,
          .spoil =
              [spoil](const Workspace& files) {
                AddModel(files);
                spoil(files);
              },
          .ranks = 2,
          .contents = kDataAndRun};
}

void Nothing(const Workspace&) {}

TEST(BadWeights, AreNamedWhenARunStartsFromThem) {
  BadInput other_model =
      Start("another model", "model.layers = 2, there 1", "set these keys", Nothing);
  other_model.arguments.insert(other_model.arguments.end(), {"--set", "model.layers=2"});
  BadInput other_start =
      Start("a run that goes on with another start", "train.start_from: \"\"", "--fresh", Nothing);
  other_start.arguments[3] = "train.run_dir=run";
  const auto replace = [](const std::string& before, const std::string& after) {
    return [=](const Workspace& files) { files.Replace("hf/config.json", before, after); };
  };
  ExpectNamed(
      "Weights to start from",
      {
          Start("there is no such directory", "train.start_from: ", "check the path", Nothing,
                "none"),
          Start("a directory without a model", ". has no config.json", "give the directory",
                Nothing, "."),
          other_model,
          other_start,
          Start("config.json is no JSON", "hf/config.json", "give the config.json",
                [](const Workspace& files) { files.Truncate("hf/config.json", 100); }),
          Start("a model of another kind", "model_type = \"qwen2\"", "supported are",
                replace("\"llama\"", "\"qwen2\"")),
          Start("scaled rotary positions", "rope_scaling of type \"llama3\"", "supported are",
                replace("\"hidden_act\"",
                        "\"rope_scaling\": {\"rope_type\": \"llama3\"}, \"hidden_act\"")),
          Start("biases", "attention_bias = true", "supported are",
                replace("\"attention_bias\": false", "\"attention_bias\": true")),
          Start("a key that must be there is missing", "hidden_size is missing", "hf/config.json",
                replace("\"hidden_size\"", "\"size\"")),
          Start("there are no weights", "hf has neither", "give the directory",
                [](const Workspace& files) { files.Remove("hf/model.safetensors"); }),
          Start("weights of PyTorch alone", "pytorch_model.bin", "save_pretrained",
                [](const Workspace& files) {
                  files.Remove("hf/model.safetensors");
                  files.Write("hf/pytorch_model.bin", "");
                }),
          Start("the weights are cut short", "hf/model.safetensors", "cut off",
                [](const Workspace& files) { files.Truncate("hf/model.safetensors", 9000); }),
          Start("a tensor is missing", "hf has no tensor model.norm.weight", "fetch all",
                [](const Workspace& files) {
                  files.Replace("hf/model.safetensors", "model.norm.weight", "model.nose.weight");
                }),
          Start("a file of several is missing", "hf/model-00001-of-00002.safetensors", "fetch it",
                [](const Workspace& files) {
                  files.Remove("hf/model.safetensors");
                  files.Write("hf/model.safetensors.index.json",
                              "{\"weight_map\": {\"model.norm.weight\": "
                              "\"model-00001-of-00002.safetensors\"}}");
                }),
          Start(
              "a flipped byte in a checkpoint's manifest", "manifest.json",
              "use an older checkpoint",
              [](const Workspace& files) { files.Flip(std::string(kStep) + "manifest.json", 40); },
              "run/checkpoints/step_00000002"),
          Start(
              "a checkpoint without its manifest", "run/checkpoints/step_00000002", "use another",
              [](const Workspace& files) { files.Remove(std::string(kStep) + "manifest.json"); },
              "run/checkpoints/step_00000002"),
      });
}

BadInput ConvertOf(const std::string& what, const std::vector<std::string>& arguments,
                   const std::string& names, const std::string& fix,
                   const std::function<void(const Workspace&)>& spoil = Nothing) {
  BadInput bad = Start(what, names, fix, spoil);
  bad.arguments = {"convert"};
  bad.arguments.insert(bad.arguments.end(), arguments.begin(), arguments.end());
  bad.ranks = 1;
  return bad;
}

// The last number of the file.
void WriteLastNumber(const Workspace& files, float number) {
  std::string bytes(sizeof(number), ' ');
  std::memcpy(bytes.data(), &number, sizeof(number));
  files.Overwrite("hf/model.safetensors", -static_cast<int64_t>(bytes.size()), bytes);
}

TEST(BadWeights, AreNamedWhenTheyAreConverted) {
  ExpectNamed(
      "Weights to convert",
      {
          ConvertOf("no output", {"hf"}, "OUT", "`panthera convert --help`"),
          ConvertOf("there is no such source", {"none", "out"}, "none", "check the path"),
          ConvertOf("a source without a model", {".", "out"}, ". has no config.json",
                    "give the directory"),
          ConvertOf("a run without a checkpoint", {"empty", "out"}, "empty: no whole checkpoint",
                    "give a run directory",
                    [](const Workspace& files) {
                      files.MakeDirectory("empty");
                      files.MakeDirectory("empty/checkpoints");
                    }),
          ConvertOf("the output exists", {"hf", "run"}, "run exists", "not there yet"),
          ConvertOf("a conversion that was cut short has left its output", {"hf", "out"},
                    "out.tmp exists", "remove it",
                    [](const Workspace& files) { files.MakeDirectory("out.tmp"); }),
          ConvertOf("the output's folder is missing", {"hf", "some/where/out"}, "some/where/out",
                    "check the path"),
          ConvertOf("an unknown type", {"hf", "out", "--dtype", "int8"}, "--dtype", "bf16"),
          ConvertOf("a size that is none", {"hf", "out", "--max-shard-bytes", "large"},
                    "--max-shard-bytes", "GiB"),
          ConvertOf("a number that is too large for the type", {"hf", "out", "--dtype", "f16"},
                    "hf/model.safetensors: element", "--dtype bf16",
                    [](const Workspace& files) { WriteLastNumber(files, 1e6F); }),
          ConvertOf("a flipped byte in a checkpoint", {"run/checkpoints/step_00000002", "out"},
                    std::string(kStep) + "model.safetensors", "use an older checkpoint",
                    [](const Workspace& files) {
                      files.Flip(std::string(kStep) + "model.safetensors", -100);
                    }),
          ConvertOf("a tensor of another shape", {"hf", "out"}, "should be [257, 16]",
                    "fetch both files again",
                    [](const Workspace& files) {
                      files.Replace("hf/model.safetensors", "[257,16]", "[16,257]");
                    }),
      });
}

// Not bad input: the way through that the messages above point to.
TEST(GoodWeights, AreConvertedAndTrainedOn) {
  const Workspace workspace(kDataAndRun);
  const ProgramRun converted =
      RunProgram(workspace.path(), {"convert", "run", "out", "--dtype", "bf16"}, 1);
  EXPECT_EQ(converted.exit_codes, std::vector<int>{0}) << converted.output;
  EXPECT_THAT(converted.output,
              ::testing::MatchesRegex("run/checkpoints/step_00000002 -> out: .* parameters in 12 "
                                      "tensors, .* in 1 file\n"));
  const ProgramRun trained = RunProgram(
      workspace.path(),
      {"train", "run.toml", "--set", "train.run_dir=new", "--set", "train.start_from=out"}, 2);
  EXPECT_EQ(trained.exit_codes, (std::vector<int>{0, 0})) << trained.output;
  EXPECT_THAT(trained.output, ::testing::HasSubstr("new: a new run with the weights of out"));
}

}  // namespace
}  // namespace panthera::testing
