#include "gtest/gtest.h"

#include "tests/bad_input/bad_input.h"

namespace panthera::testing {
namespace {

std::vector<std::string> Tokenize(const std::string& input) {
  return {"tokenize", input, "--tokenizer", "bytes", "--output", "out"};
}

TEST(BadText, IsNamed) {
  ExpectNamed(
      "Text and tokenizers",
      {
          {.what = "the text is missing",
           .arguments = Tokenize("missing.txt"),
           .names = "missing.txt",
           .fix = "check the path"},
          {.what = "the text is missing, with an output in a new folder",
           .arguments = {"tokenize", "missing.txt", "--tokenizer", "bytes", "--output", "new/out"},
           .names = "missing.txt",
           .fix = "check the path"},
          {.what = "the text is a directory",
           .arguments = Tokenize("texts"),
           .names = "texts",
           .fix = "name files",
           .spoil = [](const Workspace& files) { files.MakeDirectory("texts"); }},
          {.what = "the text is empty",
           .arguments = Tokenize("empty.txt"),
           .names = "empty.txt",
           .fix = "give files with text",
           .spoil = [](const Workspace& files) { files.Write("empty.txt", ""); }},
          {.what = "the text is not UTF-8",
           .arguments = Tokenize("text.txt"),
           .names = "text.txt at byte 10",
           .fix = "--invalid-utf8 replace",
           .spoil = [](const Workspace& files) { files.Overwrite("text.txt", 10, "\xFF"); }},
          {.what = "the text is not UTF-8, with --overwrite",
           .arguments = {"tokenize", "text.txt", "--tokenizer", "bytes", "--output", "train",
                         "--overwrite"},
           .names = "text.txt at byte 10",
           .fix = "--invalid-utf8 replace",
           .spoil = [](const Workspace& files) { files.Overwrite("text.txt", 10, "\xFF"); }},
          {.what = "the text is compressed",
           .arguments = Tokenize("text.txt"),
           .names = "text.txt",
           .fix = "gunzip",
           .spoil = [](const Workspace& files) { files.Overwrite("text.txt", 0, "\x1F\x8B"); }},
          {.what = "a line that is no JSON object",
           .arguments = Tokenize("lines.jsonl"),
           .names = "lines.jsonl line 2",
           .fix = "pass --format text",
           .spoil =
               [](const Workspace& files) {
                 files.Write("lines.jsonl", "{\"text\": \"a\"}\n{\"text\": \"b\n");
               }},
          {.what = "a JSON line without the text",
           .arguments = Tokenize("lines.jsonl"),
           .names = "lines.jsonl line 1",
           .fix = "--json-key",
           .spoil =
               [](const Workspace& files) { files.Write("lines.jsonl", "{\"body\": \"a\"}\n"); }},
          {.what = "the output exists",
           .arguments = {"tokenize", "text.txt", "--tokenizer", "bytes", "--output", "train",
                         "--document-separator", "."},
           .names = "train.bin",
           .fix = "pass --overwrite"},
          {.what = "the output cannot be written, here because its folder is a file",
           .arguments = {"tokenize", "text.txt", "--tokenizer", "bytes", "--output",
                         "run.toml/out"},
           .names = "run.toml",
           .fix = "choose another --output"},
          {.what = "the output would replace the text",
           .arguments = {"tokenize", "text.bin", "--tokenizer", "bytes", "--output", "text"},
           .names = "text.bin",
           .fix = "choose another --output",
           .spoil = [](const Workspace& files) { files.Write("text.bin", "text"); }},
          {.what = "neither a tokenizer nor one to train",
           .arguments = {"tokenize", "text.txt", "--output", "out"},
           .names = "--tokenizer",
           .fix = "give either"},
          {.what = "the tokenizer is missing",
           .arguments = {"tokenize", "text.txt", "--tokenizer", "no.model", "--output", "out"},
           .names = "no.model",
           .fix = "name a SentencePiece model file"},
          {.what = "the tokenizer is damaged",
           .arguments = {"tokenize", "text.txt", "--tokenizer", "bad.model", "--output", "out"},
           .names = "bad.model",
           .fix = "name a SentencePiece model file",
           .spoil = [](const Workspace& files) { files.Write("bad.model", "not a model"); }},
          {.what = "the tokenizer is a directory",
           .arguments = {"tokenize", "text.txt", "--tokenizer", "folder", "--output", "out"},
           .names = "folder",
           .fix = "name a SentencePiece model file",
           .spoil = [](const Workspace& files) { files.MakeDirectory("folder"); }},
          {.what = "too little text to train a tokenizer of this size",
           .arguments = {"tokenize", "text.txt", "--train-tokenizer", "own.model", "--output",
                         "out"},
           .names = "--vocab-size",
           .fix = "at most, or more text",
           .progress = "tokenize: training a tokenizer with 4096 pieces\n"},
          {.what = "train: the tokenizer is missing",
           .arguments = {"train", "run.toml", "--set", "data.tokenizer=no.model"},
           .names = "no.model",
           .fix = "name a SentencePiece model file",
           .ranks = 2},
          {.what = "train: the tokenizer is damaged",
           .arguments = {"train", "run.toml", "--set", "data.tokenizer=bad.model"},
           .names = "bad.model",
           .fix = "name a SentencePiece model file",
           .spoil = [](const Workspace& files) { files.Write("bad.model", "not a model"); },
           .ranks = 2},
      });
}

}  // namespace
}  // namespace panthera::testing
