#include "gtest/gtest.h"

#include "runtime/base/check.h"
#include "runtime/checkpoint/manifest.h"
#include "tests/bad_input/bad_input.h"

namespace panthera::testing {
namespace {

constexpr auto kDataAndRun = Workspace::Contents::kDataAndRun;
constexpr char kOlder[] = "run/checkpoints/step_00000001";
constexpr char kNewest[] = "run/checkpoints/step_00000002";

const std::vector<std::string> kGoOn = {"train", "run.toml", "--set", "train.steps=4"};

std::string InNewest(const std::string& name) { return std::string(kNewest) + "/" + name; }

// What a later version of the program might write: another version, and right in itself.
void WriteOtherVersion(const Workspace& files) {
  absl::StatusOr<Manifest> manifest = ParseManifest(files.Read(InNewest("manifest.json")));
  CHECK_OK(manifest.status());
  manifest->version = 99;
  manifest->program = "panthera 99";
  files.Write(InNewest("manifest.json"), ManifestJson(*manifest));
}

// Spoils the newest checkpoint and takes the older one away.
std::function<void(const Workspace&)> OnlyOne(const std::function<void(const Workspace&)>& spoil) {
  return [=](const Workspace& files) {
    files.Remove(kOlder);
    spoil(files);
  };
}

BadInput Resume(const std::string& what, const std::string& names,
                const std::function<void(const Workspace&)>& spoil,
                const std::string& fix = "--fresh") {
  return {.what = what,
          .arguments = kGoOn,
          .names = names,
          .fix = fix,
          .spoil = OnlyOne(spoil),
          .ranks = 2,
          .contents = kDataAndRun};
}

BadInput ResumeWith(const std::string& what, const std::string& setting, const std::string& names) {
  return {.what = what,
          .arguments = {"train", "run.toml", "--set", setting},
          .names = names,
          .fix = "--fresh",
          .ranks = 2,
          .contents = kDataAndRun};
}

TEST(BadCheckpoint, IsNamedWhenARunGoesOn) {
  ExpectNamed(
      "Checkpoints to resume from",
      {
          ResumeWith("another model", "model.layers=2", "model.layers: 1 -> 2"),
          ResumeWith("another seed", "data.seed=7", "data.seed: 0 -> 7"),
          {.what = "other data",
           .arguments = {"train", "run.toml", "--set", "data.train[0].path=other"},
           .names = "data.train[0].path: \"train\" -> \"other\"",
           .fix = "--fresh",
           .spoil =
               [](const Workspace& files) {
                 files.Write("other.bin", files.Read("train.bin"));
                 files.Write("other.idx", files.Read("train.idx"));
               },
           .ranks = 2,
           .contents = kDataAndRun},
          {.what = "other data in the same files",
           .arguments = kGoOn,
           .names = "train",
           .fix = "--fresh",
           .spoil = [](const Workspace& files) { files.Flip("train.bin", 20); },
           .ranks = 2,
           .contents = kDataAndRun},
          ResumeWith("another optimizer of the embedding", "optim.table_optimizer=adamw",
                     "optim.table_optimizer: \"same\" -> \"adamw\""),
          ResumeWith("fewer steps than are done", "train.steps=1", "train.steps = 1"),
          Resume("a flipped byte in the weights", InNewest("model.safetensors"),
                 [](const Workspace& files) { files.Flip(InNewest("model.safetensors"), -100); }),
          Resume(
              "a flipped byte in the momentum", InNewest("momentum.safetensors"),
              [](const Workspace& files) { files.Flip(InNewest("momentum.safetensors"), -100); }),
          Resume("a flipped byte in the run's configuration", InNewest("run.toml"),
                 [](const Workspace& files) { files.Flip(InNewest("run.toml"), 20); }),
          Resume("a changed number in the manifest", InNewest("manifest.json"),
                 [](const Workspace& files) {
                   files.Replace(InNewest("manifest.json"), "\"step\": 2", "\"step\": 3");
                 }),
          Resume("a flipped byte in the manifest", InNewest("manifest.json"),
                 [](const Workspace& files) { files.Flip(InNewest("manifest.json"), 40); }),
          Resume("the manifest is of another version", InNewest("manifest.json"), WriteOtherVersion,
                 "use a newer panthera"),
          Resume("the manifest is empty", InNewest("manifest.json"),
                 [](const Workspace& files) { files.Write(InNewest("manifest.json"), ""); }),
          Resume("the manifest is missing", kNewest,
                 [](const Workspace& files) { files.Remove(InNewest("manifest.json")); }),
          Resume("a file is missing", InNewest("momentum.safetensors"),
                 [](const Workspace& files) { files.Remove(InNewest("momentum.safetensors")); }),
          Resume(
              "a file is cut short", InNewest("model.safetensors"),
              [](const Workspace& files) { files.Truncate(InNewest("model.safetensors"), 2000); }),
          {.what = "all checkpoints are damaged",
           .arguments = kGoOn,
           .names = kNewest,
           .fix = "--fresh",
           .spoil =
               [](const Workspace& files) {
                 files.Truncate(InNewest("model.safetensors"), 2000);
                 files.Remove(std::string(kOlder) + "/manifest.json");
               },
           .ranks = 2,
           .contents = kDataAndRun},
      });
}

BadInput EvalOf(const std::string& what, const std::string& names, const std::string& fix,
                const std::function<void(const Workspace&)>& spoil) {
  return {.what = what,
          .arguments = {"eval", kNewest, "--data", "train"},
          .names = names,
          .fix = fix,
          .spoil = spoil,
          .ranks = 2,
          .contents = kDataAndRun};
}

BadInput GenerateOf(const std::string& what, const std::string& names, const std::string& fix,
                    const std::function<void(const Workspace&)>& spoil) {
  return {.what = what,
          .arguments = {"generate", kNewest, "--prompt", "The"},
          .names = names,
          .fix = fix,
          .spoil = spoil,
          .contents = kDataAndRun};
}

TEST(BadCheckpoint, IsNamedWhenAModelIsUsed) {
  ExpectNamed(
      "Checkpoints to evaluate and generate from",
      {
          {.what = "eval: there is no such directory",
           .arguments = {"eval", "runs/none", "--data", "train"},
           .names = "runs/none",
           .fix = "check the path",
           .ranks = 2},
          {.what = "eval: a directory without checkpoints",
           .arguments = {"eval", ".", "--data", "train"},
           .names = "eval: .: no whole checkpoint",
           .fix = "give a run directory",
           .ranks = 2},
          {.what = "eval: there is no checkpoint of this step",
           .arguments = {"eval", "run", "--step", "7", "--data", "train"},
           .names = "run has no checkpoint of step 7",
           .fix = "give --step 2 or 1, or leave it out",
           .ranks = 2,
           .contents = kDataAndRun},
          {.what = "eval: --step with a checkpoint",
           .arguments = {"eval", kNewest, "--step", "2", "--data", "train"},
           .names = kNewest,
           .fix = "leave --step out",
           .ranks = 2,
           .contents = kDataAndRun},
          EvalOf("eval: a flipped byte in the weights", InNewest("model.safetensors"),
                 "older checkpoint",
                 [](const Workspace& files) { files.Flip(InNewest("model.safetensors"), -100); }),
          EvalOf(
              "eval: the header of the weights is cut short", InNewest("model.safetensors"),
              "older checkpoint",
              [](const Workspace& files) { files.Truncate(InNewest("model.safetensors"), 100); }),
          EvalOf("eval: a file of the checkpoint is missing", InNewest("state.json"),
                 "older checkpoint",
                 [](const Workspace& files) { files.Remove(InNewest("state.json")); }),
          {.what = "eval: a run whose checkpoints are all damaged",
           .arguments = {"eval", "run", "--data", "train"},
           .names = InNewest("model.safetensors"),
           .fix = "restore one of them or give another run",
           .spoil = OnlyOne(
               [](const Workspace& files) { files.Truncate(InNewest("model.safetensors"), 100); }),
           .ranks = 2,
           .contents = kDataAndRun},
          GenerateOf(
              "generate: a flipped byte in the weights", InNewest("model.safetensors"),
              "older checkpoint",
              [](const Workspace& files) { files.Flip(InNewest("model.safetensors"), -100); }),
          GenerateOf("generate: a manifest of another version", InNewest("manifest.json"),
                     "use a newer panthera", WriteOtherVersion),
          {.what = "generate: there is no such directory",
           .arguments = {"generate", "runs/none"},
           .names = "runs/none",
           .fix = "check the path"},
          {.what = "generate: a file is given",
           .arguments = {"generate", "run.toml"},
           .names = "run.toml",
           .fix = "check the path"},
      });
}

}  // namespace
}  // namespace panthera::testing
