#include "tests/bad_input/workspace.h"

#include <filesystem>

#include "gtest/gtest.h"

#include "runtime/base/check.h"
#include "tests/bad_input/program_run.h"
#include "tests/runtime/data/token_bytes.h"

namespace panthera::testing {
namespace {

namespace fs = std::filesystem;

constexpr char kConfig[] = R"([model]
vocab_size = 257
width = 16
layers = 1
heads = 2
ffn_width = 32
sequence_length = 16

[data]
tokenizer = "bytes"

[[data.train]]
path = "train"

[train]
steps = 2
global_batch = 4
micro_batch = 1
run_dir = "run"

[checkpoint]
every = 1

[device]
kind = "cpu"
)";

void RunGood(const std::string& directory, const std::vector<std::string>& arguments) {
  const ProgramRun run = RunProgram(directory, arguments, 1);
  CHECK(run.exit_codes == std::vector<int>{0}) << run.output;
}

void FillData(const std::string& directory) {
  WriteBytes(directory + "/run.toml", kConfig);
  std::string text;
  while (text.size() < 800) {
    text += "The rain in Spain stays mainly in the plain.\n";
  }
  WriteBytes(directory + "/text.txt", text);
  RunGood(directory, {"tokenize", "text.txt", "--tokenizer", "bytes", "--output", "train"});
}

const TempDir& DataTemplate() {
  static const TempDir directory;
  static const bool filled = (FillData(directory.path()), true);
  CHECK(filled);
  return directory;
}

const TempDir& RunTemplate() {
  static const TempDir directory;
  static const bool filled = [] {
    fs::copy(DataTemplate().path(), directory.path(), fs::copy_options::recursive);
    RunGood(directory.path(), {"train", "run.toml"});
    return true;
  }();
  CHECK(filled);
  return directory;
}

size_t Position(const std::string& bytes, int64_t offset) {
  const int64_t position = offset < 0 ? static_cast<int64_t>(bytes.size()) + offset : offset;
  CHECK_GE(position, 0);
  CHECK_LT(position, static_cast<int64_t>(bytes.size()));
  return static_cast<size_t>(position);
}

}  // namespace

Workspace::Workspace(Contents contents) {
  const TempDir& source = contents == Contents::kData ? DataTemplate() : RunTemplate();
  fs::copy(source.path(), path(), fs::copy_options::recursive);
}

std::string Workspace::Read(const std::string& name) const { return ReadBytes(File(name)); }

void Workspace::Write(const std::string& name, const std::string& bytes) const {
  WriteBytes(File(name), bytes);
}

void Workspace::Replace(const std::string& name, const std::string& before,
                        const std::string& after) const {
  std::string bytes = Read(name);
  const size_t position = bytes.find(before);
  CHECK(position != std::string::npos) << before << " is not in " << name;
  Write(name, bytes.replace(position, before.size(), after));
}

void Workspace::Append(const std::string& name, const std::string& bytes) const {
  Write(name, Read(name) + bytes);
}

void Workspace::Overwrite(const std::string& name, int64_t offset, const std::string& bytes) const {
  std::string whole = Read(name);
  Write(name, whole.replace(Position(whole, offset), bytes.size(), bytes));
}

void Workspace::Flip(const std::string& name, int64_t offset) const {
  const std::string whole = Read(name);
  Overwrite(name, offset, std::string(1, static_cast<char>(~whole[Position(whole, offset)])));
}

void Workspace::Truncate(const std::string& name, int64_t bytes) const {
  CHECK_LT(bytes, static_cast<int64_t>(fs::file_size(File(name))));
  fs::resize_file(File(name), static_cast<uintmax_t>(bytes));
}

void Workspace::Remove(const std::string& name) const {
  CHECK_GE(fs::remove_all(File(name)), 1u) << name;
}

void Workspace::MakeDirectory(const std::string& name) const {
  CHECK(fs::create_directory(File(name))) << name;
}

std::map<std::string, std::string> Workspace::Snapshot() const {
  std::map<std::string, std::string> contents;
  for (const fs::directory_entry& entry : fs::recursive_directory_iterator(path())) {
    const std::string name = fs::relative(entry.path(), path()).string();
    if (entry.is_directory()) {
      contents[name + "/"] = "";
    } else {
      contents[name] = Read(name);
    }
  }
  return contents;
}

}  // namespace panthera::testing
