#include "gtest/gtest.h"

#include "tests/bad_input/bad_input.h"
#include "tests/runtime/data/token_bytes.h"

namespace panthera::testing {
namespace {

const std::vector<std::string> kTrain = {"train", "run.toml"};

// Places in an index of one sequence and one document: a header, the sequence's length and offset,
// and two boundaries.
constexpr int64_t kVersionAt = 9;
constexpr int64_t kTypeAt = 17;
constexpr int64_t kLengthAt = 34;
constexpr int64_t kOffsetAt = 38;
constexpr int64_t kLastBoundaryAt = 54;

constexpr int32_t kLlmCMagic = 20240520;

std::function<void(const Workspace&)> Index(int64_t offset, const std::string& bytes) {
  return [=](const Workspace& files) { files.Overwrite("train.idx", offset, bytes); };
}

// Token `position` of the data, from the end if negative, gets an id beyond the vocabulary.
std::function<void(const Workspace&)> BadToken(int64_t position) {
  return [=](const Workspace& files) {
    files.Overwrite("train.bin", 2 * position, LittleEndian(300, 2));
  };
}

std::function<void(const Workspace&)> LlmC(const std::string& bytes) {
  return [=](const Workspace& files) {
    files.Remove("train.idx");
    files.Write("train.bin", bytes);
    files.Replace("run.toml", "path = \"train\"", "path = \"train.bin\"");
  };
}

TEST(BadTokenFiles, PlacesAreNamed) {
  ExpectNamed("Data: where the token files are",
              {
                  {.what = "the token file is missing",
                   .arguments = kTrain,
                   .names = "missing.bin",
                   .fix = "correct the path",
                   .spoil =
                       [](const Workspace& files) {
                         files.Replace("run.toml", "path = \"train\"", "path = \"missing\"");
                       },
                   .ranks = 2},
                  {.what = "the token file is a directory",
                   .arguments = kTrain,
                   .names = "folder",
                   .fix = "name a token file in it",
                   .spoil =
                       [](const Workspace& files) {
                         files.MakeDirectory("folder");
                         files.Replace("run.toml", "path = \"train\"", "path = \"folder\"");
                       },
                   .ranks = 2},
                  {.what = "no file fits the pattern",
                   .arguments = kTrain,
                   .names = "shard_*",
                   .fix = "correct the path",
                   .spoil =
                       [](const Workspace& files) {
                         files.Replace("run.toml", "path = \"train\"", "path = \"shard_*\"");
                       },
                   .ranks = 2},
                  {.what = "the index of a Megatron pair is missing",
                   .arguments = kTrain,
                   .names = "train.idx",
                   .fix = "copy it again",
                   .spoil = [](const Workspace& files) { files.Remove("train.idx"); },
                   .ranks = 2},
                  {.what = "the tokens of a Megatron pair are missing",
                   .arguments = kTrain,
                   .names = "train.bin",
                   .fix = "copy it again",
                   .spoil = [](const Workspace& files) { files.Remove("train.bin"); },
                   .ranks = 2},
                  {.what = "the validation data is missing",
                   .arguments = {"train", "run.toml", "--set", "eval.every=1"},
                   .names = "held_out.bin",
                   .fix = "correct the path",
                   .spoil =
                       [](const Workspace& files) {
                         files.Append("run.toml", "[[data.validation]]\npath = \"held_out\"\n");
                       },
                   .ranks = 2},
              });
}

TEST(BadTokenFiles, ContentsAreNamed) {
  const std::string ids(2 * 100, '\1');
  ExpectNamed(
      "Data: what is in the token files",
      {
          {.what = "the token file is empty",
           .arguments = kTrain,
           .names = "train.bin",
           .fix = "copy it again",
           .spoil = [](const Workspace& files) { files.Write("train.bin", ""); },
           .ranks = 2},
          {.what = "the token file is cut short",
           .arguments = kTrain,
           .names = "train.bin",
           .fix = "copy it again",
           .spoil = [](const Workspace& files) { files.Truncate("train.bin", 100); },
           .ranks = 2},
          {.what = "the index of another token file",
           .arguments = kTrain,
           .names = "train.idx",
           .fix = "copy it again",
           .spoil =
               [](const Workspace& files) { files.Append("train.bin", std::string(64, '\0')); },
           .ranks = 2},
          {.what = "the index is empty",
           .arguments = kTrain,
           .names = "train.idx",
           .fix = "copy it again",
           .spoil = [](const Workspace& files) { files.Write("train.idx", ""); },
           .ranks = 2},
          {.what = "the index is cut short",
           .arguments = kTrain,
           .names = "train.idx",
           .fix = "copy it again",
           .spoil = [](const Workspace& files) { files.Truncate("train.idx", 50); },
           .ranks = 2},
          {.what = "the index is of another format",
           .arguments = kTrain,
           .names = "train.idx",
           .fix = "copy it again",
           .spoil = Index(0, "X"),
           .ranks = 2},
          {.what = "the index is of another version",
           .arguments = kTrain,
           .names = "train.idx has version 2",
           .fix = "only version 1 can be read: convert it",
           .spoil = Index(kVersionAt, LittleEndian(2, 8)),
           .ranks = 2},
          {.what = "the index has an unknown type code",
           .arguments = kTrain,
           .names = "train.idx has type code 6",
           .fix = "only 8 (uint16) and 4 (int32) can be read: convert it",
           .spoil = Index(kTypeAt, LittleEndian(6, 1)),
           .ranks = 2},
          {.what = "a sequence of the index leaves the token file",
           .arguments = kTrain,
           .names = "train.idx",
           .fix = "copy it again",
           .spoil = Index(kOffsetAt, LittleEndian(uint64_t{1} << 40, 8)),
           .ranks = 2},
          {.what = "a sequence of the index has a negative length",
           .arguments = kTrain,
           .names = "train.idx",
           .fix = "copy it again",
           .spoil = Index(kLengthAt, LittleEndian(0xFFFFFFFF, 4)),
           .ranks = 2},
          {.what = "a document of the index ends after the last sequence",
           .arguments = kTrain,
           .names = "train.idx",
           .fix = "copy it again",
           .spoil = Index(kLastBoundaryAt, LittleEndian(5, 8)),
           .ranks = 2},
          {.what = "an llm.c file with an unknown magic number",
           .arguments = kTrain,
           .names = "train.bin",
           .fix = "make token files of text",
           .spoil = LlmC(LlmCBytes(12345, 1, 100, ids)),
           .ranks = 2},
          {.what = "an llm.c file of another version",
           .arguments = kTrain,
           .names = "train.bin has version 3",
           .fix = "only version 1 can be read: convert it",
           .spoil = LlmC(LlmCBytes(kLlmCMagic, 3, 100, ids)),
           .ranks = 2},
          {.what = "an llm.c file with fewer tokens than its header says",
           .arguments = kTrain,
           .names = "train.bin",
           .fix = "copy it again",
           .spoil = LlmC(LlmCBytes(kLlmCMagic, 1, 101, ids)),
           .ranks = 2},
          {.what = "an llm.c file that is cut short in its header",
           .arguments = kTrain,
           .names = "train.bin",
           .fix = "copy it again",
           .spoil = LlmC(LlmCBytes(kLlmCMagic, 1, 100, ids).substr(0, 500)),
           .ranks = 2},
          {.what = "the first token is outside the vocabulary",
           .arguments = kTrain,
           .names = "train.bin has id 300 at token 0,",
           .fix = "set model.vocab_size",
           .spoil = BadToken(0),
           .ranks = 2},
          {.what = "a token in the middle is outside the vocabulary",
           .arguments = kTrain,
           .names = "train.bin has id 300 at token 400,",
           .fix = "set model.vocab_size",
           .spoil = BadToken(400),
           .ranks = 2},
          {.what = "the last token is outside the vocabulary",
           .arguments = kTrain,
           .names = "train.bin has id 300 at token 810,",
           .fix = "set model.vocab_size",
           .spoil = BadToken(-1),
           .ranks = 2},
          {.what = "the data is shorter than one sample",
           .arguments = {"train", "run.toml", "--set", "model.sequence_length=4096"},
           .names = "train has 811 tokens",
           .fix = "give more text",
           .ranks = 2},
          {.what = "eval: a token is outside the vocabulary",
           .arguments = {"eval", "run", "--data", "train"},
           .names = "train.bin has id 300 at token 5,",
           .fix = "give a file of the model's own tokenizer",
           .spoil = BadToken(5),
           .ranks = 2,
           .contents = Workspace::Contents::kDataAndRun},
          {.what = "eval: the token file is missing",
           .arguments = {"eval", "run", "--data", "missing"},
           .names = "missing.bin",
           .fix = "correct the path",
           .ranks = 2,
           .contents = Workspace::Contents::kDataAndRun},
      });
}

}  // namespace
}  // namespace panthera::testing
