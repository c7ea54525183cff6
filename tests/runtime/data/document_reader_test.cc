#include "runtime/data/document_reader.h"

#include <string>
#include <utility>
#include <vector>

#include "gmock/gmock.h"
#include "gtest/gtest.h"

#include "tests/runtime/data/token_bytes.h"
#include "tests/support/temp_dir.h"

namespace panthera {
namespace {

using ::panthera::testing::TempDir;
using ::panthera::testing::WriteBytes;
using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::IsEmpty;

struct Corpus {
  std::vector<std::string> training;
  std::vector<std::string> validation;
  size_t longest_piece = 0;
  std::string error;
};

// Joins the pieces to documents, and checks that their marks fit together.
Corpus ReadAll(const DocumentOptions& options) {
  Corpus corpus;
  auto reader = DocumentReader::Open(options);
  if (!reader.ok()) {
    corpus.error = std::string(reader.status().message());
    return corpus;
  }
  DocumentPiece piece;
  bool open = false;
  while (true) {
    const absl::StatusOr<bool> found = reader->Next(piece);
    if (!found.ok()) {
      corpus.error = std::string(found.status().message());
      return corpus;
    }
    if (!*found) {
      break;
    }
    std::vector<std::string>& part =
        piece.part == CorpusPart::kTraining ? corpus.training : corpus.validation;
    EXPECT_EQ(piece.begins_document, !open);
    if (piece.begins_document) {
      part.emplace_back();
    }
    part.back() += piece.text;
    open = !piece.ends_document;
    corpus.longest_piece = std::max(corpus.longest_piece, piece.text.size());
  }
  EXPECT_FALSE(open);
  EXPECT_EQ(reader->bytes_read(), reader->bytes_total());
  return corpus;
}

class DocumentReaderTest : public ::testing::Test {
 protected:
  std::string File(const std::string& name, const std::string& content) {
    WriteBytes(dir_.File(name), content);
    return dir_.File(name);
  }

  TempDir dir_;
};

TEST_F(DocumentReaderTest, AFileIsADocumentWithEveryByteKept) {
  const std::string text = " two  spaces\r\n\n\ttab\n\xE4\xBD\xA0\xE5\xA5\xBD\n ";
  EXPECT_THAT(ReadAll({.inputs = {File("a", text), File("b", "second")}}).training,
              ElementsAre(text, "second"));
}

TEST_F(DocumentReaderTest, EmptyFilesAreNoDocumentsAndByteOrderMarksNoText) {
  EXPECT_THAT(
      ReadAll({.inputs = {File("a", ""), File("b", "\xEF\xBB\xBFx"), File("c", "\xEF\xBB\xBF")}})
          .training,
      ElementsAre("x"));
}

TEST_F(DocumentReaderTest, ASeparatorSplitsAndDisappears) {
  const DocumentOptions options{.inputs = {File("a", "<>one\n<><>two<>"), File("b", "three<")},
                                .separator = "<>"};
  EXPECT_THAT(ReadAll(options).training, ElementsAre("one\n", "two", "three<"));
}

TEST_F(DocumentReaderTest, ASeparatorIsFoundAcrossAllReadBoundaries) {
  // Reads are 1 MiB and windows 2 MiB; documents end a few bytes before and after such places.
  for (int64_t shift = -4; shift <= 4; ++shift) {
    const auto size = static_cast<size_t>((1 << 21) + shift);
    const std::string one =
        std::string(size / 2 - 2, 'x') + "\n" + std::string(size - size / 2, 'y');
    const std::string two = std::string(size, 'z');
    const DocumentOptions options{.inputs = {File("a", one + "<sep>" + two + "<sep>end")},
                                  .separator = "<sep>"};
    const Corpus corpus = ReadAll(options);
    ASSERT_EQ(corpus.training.size(), 3U) << shift;
    EXPECT_TRUE(corpus.training[0] == one) << shift;
    EXPECT_TRUE(corpus.training[1] == two) << shift;
    EXPECT_EQ(corpus.training[2], "end") << shift;
  }
}

TEST_F(DocumentReaderTest, ALongDocumentComesInSmallPiecesThatEndWithLines) {
  std::string text;
  for (int line = 0; text.size() < (5U << 20); ++line) {
    text += "line " + std::to_string(line) + " \xE4\xBD\xA0\n";
  }
  auto reader = DocumentReader::Open({.inputs = {File("a", text)}});
  ASSERT_TRUE(reader.ok());
  DocumentPiece piece;
  std::string joined;
  while (*reader->Next(piece)) {
    joined += piece.text;
    EXPECT_LE(piece.text.size(), 2U << 20);
    EXPECT_EQ(piece.text.back(), '\n');
  }
  EXPECT_TRUE(joined == text);
}

TEST_F(DocumentReaderTest, WithoutLinesPiecesEndBeforeSpacesOrBetweenCharacters) {
  std::string words;
  std::string characters;
  while (words.size() < (5U << 20)) {
    words += " word";
    characters += "\xE4\xBD\xA0\xF0\x9F\x98\x80";
  }
  for (const std::string& text : {words, characters}) {
    auto reader = DocumentReader::Open({.inputs = {File("a", text)}});
    ASSERT_TRUE(reader.ok());
    DocumentPiece piece;
    std::string joined;
    while (*reader->Next(piece)) {
      joined += piece.text;
      EXPECT_LE(piece.text.size(), 2U << 20);
      if (text == words) {
        EXPECT_EQ(piece.text.front(), ' ');
      }
    }
    EXPECT_TRUE(joined == text);
  }
}

TEST_F(DocumentReaderTest, ReadsJsonLines) {
  const std::string lines =
      "{\"text\": \"one\\nline \\u4f60\", \"id\": 3}\n\n{\"id\":1,\"text\":\"\"}\r\n"
      "{\"text\":\"last \xF0\x9F\x98\x80\"}";
  EXPECT_THAT(ReadAll({.inputs = {File("a.jsonl", lines)}}).training,
              ElementsAre("one\nline \xE4\xBD\xA0", "last \xF0\x9F\x98\x80"));
  EXPECT_THAT(
      ReadAll({.inputs = {File("a.data", lines)}, .format = TextFormat::kJsonLines}).training,
      ElementsAre("one\nline \xE4\xBD\xA0", "last \xF0\x9F\x98\x80"));
  EXPECT_THAT(
      ReadAll({.inputs = {File("b.jsonl", "{\"body\":\"x\"}\n")}, .json_key = "body"}).training,
      ElementsAre("x"));
  EXPECT_THAT(ReadAll({.inputs = {File("c.jsonl", "plain")}, .format = TextFormat::kText}).training,
              ElementsAre("plain"));
}

TEST_F(DocumentReaderTest, ReadsJsonLinesLongerThanAnyBuffer) {
  const std::string text(5 << 20, 'x');
  const std::string lines = "{\"text\":\"" + text + "\"}\n{\"text\":\"" + text + "y\"}\n";
  const Corpus corpus = ReadAll({.inputs = {File("a.jsonl", lines)}});
  ASSERT_EQ(corpus.training.size(), 2U);
  EXPECT_TRUE(corpus.training[0] == text);
  EXPECT_TRUE(corpus.training[1] == text + "y");
}

TEST_F(DocumentReaderTest, NamesBadJsonByItsLine) {
  const std::pair<const char*, const char*> cases[] = {
      {"{\"text\":\"x\"}\n{\"text\": \n", "a.jsonl line 2 is not a JSON object"},
      {"\n[\"text\"]\n", "a.jsonl line 2 is not a JSON object"},
      {"{\"txt\":\"x\"}\n", "a.jsonl line 1 has no text under \"text\""},
      {"{\"text\":5}\n", "a.jsonl line 1 has no text under \"text\""},
      {"{\"text\":\"\\ud800\"}\n", "a.jsonl line 1 is not a JSON object"},
      {"{\"text\":\"x\"}\n{\"text\":\"a\xFF\"}\n", "a.jsonl at byte 23 is not valid UTF-8"},
  };
  for (const auto& [lines, error] : cases) {
    EXPECT_THAT(ReadAll({.inputs = {File("a.jsonl", lines)}}).error, HasSubstr(error));
  }
}

TEST_F(DocumentReaderTest, NamesInvalidUtf8ByFileAndByte) {
  EXPECT_THAT(ReadAll({.inputs = {File("a", "good"), File("b", "ab\xC3")}}).error,
              HasSubstr(dir_.File("b") + " at byte 2 is not valid UTF-8"));
  std::string big(3 << 20, '\n');
  big[(2 << 20) + 12345] = '\x80';
  EXPECT_THAT(ReadAll({.inputs = {File("c", big)}}).error,
              HasSubstr("at byte " + std::to_string((2 << 20) + 12345)));
}

TEST_F(DocumentReaderTest, ReplacesInvalidUtf8OnRequest) {
  EXPECT_THAT(
      ReadAll({.inputs = {File("a", "a\xFFz")}, .invalid_utf8 = InvalidUtf8::kReplace}).training,
      ElementsAre("a\xEF\xBF\xBDz"));
}

TEST_F(DocumentReaderTest, RefusesWhatIsNoTextFile) {
  EXPECT_THAT(ReadAll({.inputs = {dir_.File("none")}}).error, HasSubstr("there is no input file"));
  EXPECT_THAT(ReadAll({.inputs = {dir_.path()}}).error, HasSubstr("is not a regular file"));
  EXPECT_THAT(ReadAll({.inputs = {File("a.gz", "\x1F\x8B\x08zzz")}}).error,
              HasSubstr("is a packed file"));
}

TEST_F(DocumentReaderTest, SetsTheEndOfEveryTextFileAside) {
  // 40 bytes in lines of 4; the last quarter begins at byte 30, inside the eighth line.
  std::string text;
  for (char c = '0'; c < '0' + 10; ++c) {
    text += std::string(3, c) + "\n";
  }
  const Corpus corpus =
      ReadAll({.inputs = {File("a", text), File("b", text)}, .validation_fraction = 0.25});
  EXPECT_THAT(corpus.training, ElementsAre(text.substr(0, 32), text.substr(0, 32)));
  EXPECT_THAT(corpus.validation, ElementsAre(text.substr(32), text.substr(32)));
  // Byte 20 is the first of a line.
  const Corpus half = ReadAll({.inputs = {File("a", text)}, .validation_fraction = 0.5});
  EXPECT_THAT(half.validation, ElementsAre(text.substr(20)));
}

TEST_F(DocumentReaderTest, SetsTheEndOfABigFileAside) {
  std::string text;
  while (text.size() < (6U << 20)) {
    text += std::string(999, 'x') + "\n";
  }
  for (const double fraction : {0.01, 0.3, 0.5, 0.99}) {
    const Corpus corpus = ReadAll({.inputs = {File("a", text)}, .validation_fraction = fraction});
    ASSERT_EQ(corpus.training.size(), 1U);
    ASSERT_EQ(corpus.validation.size(), 1U);
    EXPECT_TRUE(corpus.training[0] + corpus.validation[0] == text);
    const double target = static_cast<double>(text.size()) * (1 - fraction);
    const auto head = static_cast<double>(corpus.training[0].size());
    EXPECT_GE(head, target - 1);
    EXPECT_LT(head, target + 1000);
    EXPECT_EQ(corpus.training[0].size() % 1000, 0U);
  }
}

TEST_F(DocumentReaderTest, ALineThatIsTheWholeFileIsCutBetweenCharacters) {
  // Ten characters of three bytes; the middle is byte 15 or, with the newline, inside one.
  std::string text;
  for (int i = 0; i < 10; ++i) {
    text += "\xE4\xBD\xA0";
  }
  const Corpus corpus = ReadAll({.inputs = {File("a", text + "\n")}, .validation_fraction = 0.45});
  EXPECT_THAT(corpus.training, ElementsAre(text.substr(0, 15)));
  EXPECT_THAT(corpus.validation, ElementsAre(text.substr(15) + "\n"));
}

TEST_F(DocumentReaderTest, SetsEveryNthDocumentAsideWhereThereAreMany) {
  std::string lines;
  for (int i = 0; i < 12; ++i) {
    lines += "{\"text\":\"" + std::to_string(i) + "\"}\n";
  }
  const Corpus corpus = ReadAll({.inputs = {File("a.jsonl", lines)}, .validation_fraction = 0.25});
  EXPECT_THAT(corpus.validation, ElementsAre("1", "5", "9"));
  EXPECT_EQ(corpus.training.size(), 9U);

  const Corpus separated = ReadAll(
      {.inputs = {File("b", "0|1|2|3|4|5")}, .separator = "|", .validation_fraction = 0.25});
  EXPECT_THAT(separated.validation, ElementsAre("1", "5"));
}

TEST_F(DocumentReaderTest, NothingIsSetAsideUnasked) {
  EXPECT_THAT(ReadAll({.inputs = {File("a", "x\ny\n")}}).validation, IsEmpty());
}

}  // namespace
}  // namespace panthera
