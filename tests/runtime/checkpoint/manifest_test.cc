#include "runtime/checkpoint/manifest.h"

#include <limits>

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <nlohmann/json.hpp>

#include "runtime/checkpoint/checksum.h"

namespace panthera {
namespace {

using ::testing::HasSubstr;

Manifest Example() {
  Manifest manifest;
  manifest.program = "0.1.0";
  manifest.step = 1000;
  manifest.finite = false;
  manifest.block_bytes = 16;
  manifest.files = {{"model.safetensors", 1000, 200, 0xABCDEF0123456789}, {"state.json", 2, 2, 7}};
  TensorRecord tensor{{"w", DType::kF32, Shape{2, 5}}, "model.safetensors", {}};
  tensor.slices = {{ElementRuns{0, 2, 5, 2}, {1}}, {ElementRuns{2, 3, 5, 2}, {2, 3}}};
  manifest.sets = {{"model", {"lm_head.weight"}, {tensor}}};
  return manifest;
}

TEST(ChecksumTest, IsXxh64WithPublishedValues) {
  // Test vectors of the xxHash specification's reference: XXH64 of "" and "abc", seed 0.
  EXPECT_EQ(Checksum(std::string()), 0xEF46DB3751D8E999U);
  EXPECT_EQ(Checksum(std::string("abc")), 0x44BC2CF5AD770999U);
  EXPECT_EQ(ChecksumText(0x44BC), "00000000000044bc");
  EXPECT_EQ(*ParseChecksum("00000000000044bc"), 0x44BCU);
  for (const char* text :
       {"", "44bc", "00000000000044bg", "0x000000000044bc", "-0000000000044bc"}) {
    EXPECT_FALSE(ParseChecksum(text).ok()) << text;
  }
}

TEST(ManifestTest, ReadsBackWhatItWrites) {
  const Manifest written = Example();

  const absl::StatusOr<Manifest> read = ParseManifest(ManifestJson(written));

  ASSERT_TRUE(read.ok()) << read.status();
  EXPECT_EQ(read->program, "0.1.0");
  EXPECT_EQ(read->step, 1000);
  EXPECT_FALSE(read->finite);
  EXPECT_EQ(read->block_bytes, 16);
  ASSERT_EQ(read->files.size(), 2U);
  EXPECT_EQ(read->files[0].name, "model.safetensors");
  EXPECT_EQ(read->files[0].bytes, 1000);
  EXPECT_EQ(read->files[0].checked_bytes, 200);
  EXPECT_EQ(read->files[0].checksum, 0xABCDEF0123456789);
  const TensorSetRecord& set = read->sets.at(0);
  EXPECT_EQ(set.derived, std::vector<std::string>{"lm_head.weight"});
  EXPECT_EQ(set.tensors.at(0).tensor.shape, (Shape{2, 5}));
  EXPECT_EQ(set.tensors[0].slices.at(1).runs, (ElementRuns{2, 3, 5, 2}));
  EXPECT_EQ(set.tensors[0].slices[1].checksums, (std::vector<uint64_t>{2, 3}));
}

TEST(ManifestTest, EveryAlteredCharacterOfTheContentsIsFound) {
  const std::string text = ManifestJson(Example());
  ASSERT_TRUE(ParseManifest(text).ok());
  for (size_t i = 0; i < text.size(); ++i) {
    std::string damaged = text;
    damaged[i] = static_cast<char>(damaged[i] ^ 1);
    // White space has no meaning, but no white space becomes other white space by this.
    EXPECT_FALSE(ParseManifest(damaged).ok()) << "character " << i << " of\n" << damaged;
  }
}

// The text with the checksum that it should have.
std::string Checked(nlohmann::ordered_json json) {
  json.erase("checksum");
  json["checksum"] = ChecksumText(Checksum(json.dump()));
  return json.dump();
}

TEST(ManifestTest, DeepNestingIsRefusedAndNeedsNoStack) {
  std::string text = ManifestJson(Example());
  const std::string nest = "\"x\": " + std::string(1000000, '[') + std::string(1000000, ']');
  text.insert(1, nest + ",");

  EXPECT_THAT(std::string(ParseManifest(text).status().message()), HasSubstr("checksum"));
}

TEST(ManifestTest, CountsNearTheLargestIntegerAreRefusedWithoutBeingAllocated) {
  constexpr int64_t kLargest = std::numeric_limits<int64_t>::max();
  for (const int64_t elements : {kLargest, kLargest - 3, kLargest / 4, int64_t{1} << 40}) {
    for (const std::vector<int64_t>& runs : {std::vector<int64_t>{0, 1, 1, elements},
                                             {0, elements, 0, 1},
                                             {elements, elements, 0, 1}}) {
      auto json = nlohmann::ordered_json::parse(ManifestJson(Example()));
      auto& tensor = json["sets"][0]["tensors"][0];
      tensor["dtype"] = "U8";
      tensor["shape"] = {elements};
      tensor["slices"][0]["runs"] = runs;

      EXPECT_TRUE(absl::IsDataLoss(ParseManifest(Checked(json)).status())) << elements;
    }
  }
}

TEST(ManifestTest, ATensorOfMoreBytesThanAnIntegerCountsIsRefused) {
  auto json = nlohmann::ordered_json::parse(ManifestJson(Example()));
  json["sets"][0]["tensors"][0]["shape"] = {int64_t{1} << 62};

  EXPECT_THAT(std::string(ParseManifest(Checked(json)).status().message()),
              HasSubstr("larger than any file"));
}

TEST(ManifestTest, BlocksThatALoadCouldNotHoldAreRefused) {
  auto json = nlohmann::ordered_json::parse(ManifestJson(Example()));
  json["block_bytes"] = int64_t{1} << 30;

  EXPECT_THAT(std::string(ParseManifest(Checked(json)).status().message()), HasSubstr("blocks of"));
}

TEST(ManifestTest, NamesWithControlCharactersAreRefusedInOneLine) {
  auto json = nlohmann::ordered_json::parse(ManifestJson(Example()));
  json["sets"][0]["tensors"][0]["name"] = "two\nlines";

  EXPECT_EQ(ParseManifest(Checked(json)).status().message(),
            "the name \"two\\x0Alines\" has control characters");
}

TEST(ManifestTest, EveryCutOffTextIsRefused) {
  const std::string text = ManifestJson(Example());
  for (size_t length = 0; length + 2 < text.size(); ++length) {
    EXPECT_FALSE(ParseManifest(text.substr(0, length)).ok()) << length;
  }
}

TEST(ManifestTest, AnotherVersionIsNamed) {
  Manifest manifest = Example();
  manifest.version = kManifestVersion + 1;

  const absl::Status status = ParseManifest(ManifestJson(manifest)).status();

  EXPECT_TRUE(absl::IsFailedPrecondition(status)) << status;
  EXPECT_THAT(std::string(status.message()),
              HasSubstr("has format version 2, written by 0.1.0; this program reads version 1: use "
                        "a newer panthera"));

  manifest.version = 0;
  EXPECT_THAT(std::string(ParseManifest(ManifestJson(manifest)).status().message()),
              HasSubstr("use an older panthera"));
}

TEST(ManifestTest, SlicesMustHoldEveryElementOnce) {
  TensorRecord record{{"w", DType::kF32, Shape{10}}, "f", {}};
  record.slices = {{ElementRuns::Contiguous(4, 6), {}}, {ElementRuns::Contiguous(0, 4), {}}};
  EXPECT_TRUE(CheckSlices(record).ok());

  record.slices[1].runs.run = 3;
  EXPECT_THAT(std::string(CheckSlices(record).message()),
              HasSubstr("tensor w [10]: elements 3 to 4 are in no slice"));
  record.slices[1].runs.run = 6;
  EXPECT_THAT(std::string(CheckSlices(record).message()),
              HasSubstr("elements 4 to 6 are in more than one slice"));
  record.slices = {{ElementRuns::Contiguous(0, 9), {}}};
  EXPECT_THAT(std::string(CheckSlices(record).message()),
              HasSubstr("elements 9 to 10 are in no slice"));
  record.slices.clear();
  EXPECT_FALSE(CheckSlices(record).ok());
}

TEST(ManifestTest, ContradictionsUnderASoundChecksumAreRefused) {
  Manifest few_checksums = Example();
  few_checksums.sets[0].tensors[0].slices[1].checksums.pop_back();
  Manifest gap = Example();
  gap.sets[0].tensors[0].slices.pop_back();
  Manifest outside = Example();
  outside.sets[0].tensors[0].slices[1].runs.count = 3;
  Manifest long_check = Example();
  long_check.files[0].checked_bytes = 1001;
  Manifest block = Example();
  block.block_bytes = 0;
  for (const Manifest& manifest : {few_checksums, gap, outside, long_check, block}) {
    EXPECT_TRUE(absl::IsDataLoss(ParseManifest(ManifestJson(manifest)).status()));
  }
}

}  // namespace
}  // namespace panthera
