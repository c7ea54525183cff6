#include "runtime/data/token_source.h"

#include <algorithm>
#include <filesystem>
#include <set>
#include <system_error>
#include <utility>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"

#include "runtime/base/check.h"
#include "runtime/base/status_macros.h"

namespace panthera {
namespace {

// The token files that "PREFIX*" stands for, each pair by its .bin file.
absl::StatusOr<std::vector<std::string>> FindShards(const std::string& pattern) {
  const std::filesystem::path prefix = pattern.substr(0, pattern.size() - 1);
  const std::filesystem::path directory = prefix.has_parent_path() ? prefix.parent_path() : ".";
  const std::string name_prefix = prefix.filename().string();
  std::error_code error;
  std::set<std::string> shards;
  for (std::filesystem::directory_iterator entry(directory, error), end; !error && entry != end;
       entry.increment(error)) {
    const std::string name = entry->path().filename().string();
    if (!absl::StartsWith(name, name_prefix)) {
      continue;
    }
    if (absl::EndsWith(name, ".bin") || absl::EndsWith(name, ".idx")) {
      shards.insert((entry->path().parent_path() / entry->path().stem()).string() + ".bin");
    }
  }
  if (error) {
    return absl::NotFoundError(absl::StrCat("cannot list the directory ", directory.string(),
                                            " of ", pattern, ": ", error.message(),
                                            "; correct the path"));
  }
  if (shards.empty()) {
    return absl::NotFoundError(
        absl::StrCat("no token file found: looked for .bin and .idx files "
                     "that match ",
                     pattern, "; correct the path, or make the files with `panthera tokenize`"));
  }
  return std::vector<std::string>(shards.begin(), shards.end());
}

}  // namespace

absl::StatusOr<TokenSource> TokenSource::Open(const std::string& path) {
  std::vector<std::string> shards = {path};
  if (absl::EndsWith(path, "*")) {
    ASSIGN_OR_RETURN(shards, FindShards(path));
  }
  std::vector<TokenFile> files;
  for (const std::string& shard : shards) {
    // A pair whose .bin is missing is found, and named, through its stem.
    std::error_code ignored;
    const bool exists = std::filesystem::exists(shard, ignored);
    const bool pair = !exists && absl::EndsWith(shard, ".bin");
    ASSIGN_OR_RETURN(TokenFile file,
                     TokenFile::Open(pair ? shard.substr(0, shard.size() - 4) : shard));
    files.push_back(std::move(file));
  }
  return TokenSource(path, std::move(files));
}

TokenSource::TokenSource(std::string path, std::vector<TokenFile> files)
    : path_(std::move(path)), files_(std::move(files)), begins_({0}) {
  for (const TokenFile& file : files_) {
    begins_.push_back(begins_.back() + file.tokens());
  }
}

size_t TokenSource::FileOf(int64_t position) const {
  const auto after = std::upper_bound(begins_.begin(), begins_.end(), position);
  return static_cast<size_t>(after - begins_.begin()) - 1;
}

template <typename Visit>
void TokenSource::ForEachPart(int64_t begin, int64_t count, Visit visit) const {
  CHECK_GE(begin, 0);
  CHECK_GE(count, 0);
  CHECK_LE(count, tokens() - begin);
  int64_t done = 0;
  for (size_t i = FileOf(begin); done < count; ++i) {
    const int64_t position = begin + done;
    const int64_t part = std::min(count - done, begins_[i + 1] - position);
    visit(files_[i], position - begins_[i], part, done);
    done += part;
  }
}

void TokenSource::Read(int64_t begin, int64_t count, int32_t* out) const {
  ForEachPart(begin, count,
              [&](const TokenFile& file, int64_t position, int64_t part, int64_t done) {
                file.Read(position, part, out + done);
              });
}

void TokenSource::WillNeed(int64_t begin, int64_t count) const {
  ForEachPart(begin, count, [&](const TokenFile& file, int64_t position, int64_t part, int64_t) {
    file.WillNeed(position, part);
  });
}

void TokenSource::Release(int64_t begin, int64_t count) const {
  ForEachPart(begin, count, [&](const TokenFile& file, int64_t position, int64_t part, int64_t) {
    file.Release(position, part);
  });
}

absl::Status TokenSource::CheckVocabulary(int64_t vocab_size) const {
  for (const TokenFile& file : files_) {
    RETURN_IF_ERROR(file.CheckVocabulary(vocab_size));
  }
  return absl::OkStatus();
}

std::string TokenSource::Describe(int64_t position) const {
  CHECK_GE(position, 0);
  CHECK_LT(position, tokens());
  const size_t file = FileOf(position);
  return absl::StrCat(files_[file].path(), " token ", position - begins_[file]);
}

}  // namespace panthera
