#include "tests/bad_input/error_table.h"

#include <algorithm>
#include <cstdlib>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_replace.h"
#include "gtest/gtest.h"

#include "tests/runtime/data/token_bytes.h"

namespace panthera::testing {
namespace {

constexpr char kPreface[] =
    "# What can be wrong with the input\n"
    "\n"
    "Every row is the answer of the program itself to one bad input: the tests in "
    "`tests/bad_input`\n"
    "make the input, run `panthera` and compare. The names of files and keys are those of the "
    "tests.\n"
    "A message is one line on standard error, whatever the number of ranks. Exit code 2 means "
    "that\n"
    "nothing was changed; the others are explained in the README. Several mistakes in one\n"
    "configuration are one line each.\n"
    "\n"
    "This file is generated: `cmake --build build/cpu --target error_table` writes it anew.\n";

bool IsToBeWritten() { return std::getenv("PANTHERA_WRITE_ERROR_TABLE") != nullptr; }

std::string Cell(const std::string& text) {
  return absl::StrReplaceAll(text, {{"|", "\\|"}, {"<", "&lt;"}});
}

// In double backquotes, between which single ones are letters like others.
std::string Code(const std::string& text) {
  return absl::StrCat("`` ", absl::StrReplaceAll(text, {{"|", "\\|"}}), " ``");
}

std::string Heading(const std::string& subject) { return absl::StrCat("\n## ", subject, "\n"); }

std::string Table(const std::vector<ErrorRow>& rows) {
  std::string text = "\n| what is wrong | message | exit code |\n| --- | --- | --- |\n";
  for (const ErrorRow& row : rows) {
    absl::StrAppend(&text, "| ", Cell(row.what), " | ", Code(row.message), " | ", row.exit_code,
                    " |\n");
  }
  return text;
}

// Where the text under a heading begins and ends; both npos if there is no such heading.
struct Section {
  size_t begin = std::string::npos;
  size_t end = std::string::npos;
};

Section FindSection(const std::string& text, const std::string& subject) {
  const std::string heading = Heading(subject);
  const size_t place = text.find(heading);
  if (place == std::string::npos) {
    return {};
  }
  const size_t begin = place + heading.size();
  return {begin, std::min(text.find("\n## ", begin), text.size())};
}

}  // namespace

void ExpectInErrorTable(const std::string& subject, const std::vector<ErrorRow>& rows) {
  std::string text = ReadBytes(PANTHERA_ERROR_TABLE);
  const Section section = FindSection(text, subject);
  ASSERT_NE(section.begin, std::string::npos)
      << PANTHERA_ERROR_TABLE << " has no heading \"" << subject << "\"";
  const size_t length = section.end - section.begin;
  if (IsToBeWritten()) {
    WriteBytes(PANTHERA_ERROR_TABLE, text.replace(section.begin, length, Table(rows)));
    return;
  }
  EXPECT_EQ(text.substr(section.begin, length), Table(rows))
      << "launcher/errors.md is stale: run `cmake --build build/cpu --target error_table` (or of "
         "your build directory) and look at what changed";
}

void ExpectErrorTableOf(const std::vector<std::string>& subjects) {
  std::string headings;
  for (const std::string& subject : subjects) {
    absl::StrAppend(&headings, Heading(subject));
  }
  if (IsToBeWritten()) {
    WriteBytes(PANTHERA_ERROR_TABLE, kPreface + headings);
    return;
  }
  const std::string text = ReadBytes(PANTHERA_ERROR_TABLE);
  EXPECT_EQ(text.substr(0, text.find("\n## ")), kPreface);
  std::string found;
  for (size_t begin = text.find("\n## "); begin != std::string::npos;) {
    found += text.substr(begin, text.find('\n', begin + 1) + 1 - begin);
    begin = text.find("\n## ", begin + 1);
  }
  EXPECT_EQ(found, headings);
}

}  // namespace panthera::testing
