#include "runtime/checkpoint/safetensors.h"

#include <cstring>

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "tests/support/temp_dir.h"

namespace panthera {
namespace {

using ::testing::HasSubstr;

// A header with its length in front, as a file begins.
std::string WithLength(const std::string& json) {
  std::string bytes(8, '\0');
  const uint64_t length = json.size();
  std::memcpy(bytes.data(), &length, 8);
  return bytes + json;
}

absl::StatusOr<SafetensorsHeader> Read(const std::string& contents) {
  testing::TempDir dir;
  PosixFileSystem files;
  EXPECT_TRUE(WriteFile(files, dir.File("f"), contents).ok());
  std::unique_ptr<File> file = *files.Open(dir.File("f"), OpenMode::kRead);
  return ReadSafetensorsHeader(*file, "F");
}

TEST(SafetensorsTest, HeaderHasExactlyTheseBytes) {
  const SafetensorsHeader header = LayOutSafetensors(std::vector<TensorDescription>{
      {"a", DType::kF32, Shape{2, 3}}, {"b", DType::kBF16, Shape{5}}, {"c", DType::kU8, Shape{}}});

  const std::string json = R"({"__metadata__":{"format":"pt"},)"
                           R"("a":{"dtype":"F32","shape":[2,3],"data_offsets":[0,24]},)"
                           R"("b":{"dtype":"BF16","shape":[5],"data_offsets":[24,34]},)"
                           R"("c":{"dtype":"U8","shape":[],"data_offsets":[34,35]}})";
  ASSERT_EQ(json.size(), 197U);
  EXPECT_EQ(header.bytes, std::string("\xC8\0\0\0\0\0\0\0", 8) + json + "   ");
  EXPECT_EQ(header.file_bytes, 8 + 200 + 35);
  EXPECT_EQ(header.entries[0].begin, 208);
  EXPECT_EQ(header.entries[1].begin, 208 + 24);
  EXPECT_EQ(header.entries[2].begin, 208 + 34);
}

TEST(SafetensorsTest, ReadsBackWhatItLaysOut) {
  const SafetensorsHeader written =
      LayOutSafetensors(std::vector<TensorDescription>{{"z", DType::kF64, Shape{1, 2, 3, 4}},
                                                       {"empty", DType::kF32, Shape{0}},
                                                       {"a", DType::kI32, Shape{7}}});
  const int64_t data_bytes = written.file_bytes - static_cast<int64_t>(written.bytes.size());

  const absl::StatusOr<SafetensorsHeader> read =
      Read(written.bytes + std::string(static_cast<size_t>(data_bytes), 'x'));

  ASSERT_TRUE(read.ok()) << read.status();
  EXPECT_EQ(read->bytes, written.bytes);
  ASSERT_EQ(read->entries.size(), 3U);
  for (size_t i = 0; i < 3; ++i) {
    EXPECT_EQ(read->entries[i].tensor.name, written.entries[i].tensor.name);
    EXPECT_EQ(read->entries[i].tensor.dtype, written.entries[i].tensor.dtype);
    EXPECT_EQ(read->entries[i].tensor.shape, written.entries[i].tensor.shape);
    EXPECT_EQ(read->entries[i].begin, written.entries[i].begin);
  }
}

TEST(SafetensorsTest, AcceptsFilesOfOtherWriters) {
  // Keys in another order, no metadata, tensors not in the order of the offsets, no padding.
  const std::string json = R"({"b":{"shape":[2],"data_offsets":[4,8],"dtype":"BF16"},)"
                           R"("a":{"dtype":"F32","shape":[1],"data_offsets":[0,4]}})";

  const absl::StatusOr<SafetensorsHeader> read = Read(WithLength(json) + "01234567");

  ASSERT_TRUE(read.ok()) << read.status();
  EXPECT_EQ(read->entries[0].tensor.name, "a");
  EXPECT_EQ(read->entries[1].begin, 8 + static_cast<int64_t>(json.size()) + 4);
}

TEST(SafetensorsTest, DamagedHeadersAreNamed) {
  const auto one = [](const std::string& entry) { return WithLength("{\"a\":" + entry + "}"); };
  const auto f32 = [&one](const std::string& shape, const std::string& offsets) {
    return one(R"({"dtype":"F32","shape":)" + shape + R"(,"data_offsets":)" + offsets + "}");
  };
  const std::string data(8, 'x');
  struct Case {
    std::string contents;
    const char* error;
  };
  for (const Case& c : std::vector<Case>{
           {"abc", "only 3 bytes"},
           {std::string(8, '\xFF') + data, "does not fit a file of 16 bytes"},
           {WithLength("{\"a\":") + data, "F is not a valid"},
           {WithLength("[1]") + data, "F is not a valid"},
           {one("{}") + data, "dtype"},
           {one(R"({"dtype":"F8_E4M3","shape":[8],"data_offsets":[0,8]})") + data,
            "tensor a: element type \"F8_E4M3\" is not supported; supported are F32, BF16"},
           {f32("[3]", "[0,8]") + data, "offsets 0 to 8 do not hold [3] elements of"},
           {f32("[2]", "[0,8,9]") + data, "not two ascending numbers"},
           {f32("[2]", "[8,0]") + data, "not two ascending numbers"},
           {f32("[2]", "[-8,0]") + data, "not two ascending numbers"},
           {f32("[-2]", "[0,8]") + data, "negative"},
           {f32("[4294967296,4294967296]", "[0,8]") + data, "too large"},
           {f32("[4611686018427387904]", "[0,8]") + data, "do not hold"},
           {f32("[1,1,1,1,2]", "[0,8]") + data, "5 dimensions"},
           {f32("[2]", "[4,12]") + data, "overlap or leave a gap"},
           {f32("[2]", "[9223372036854775792,9223372036854775800]") + data, "leave a gap"},
           {f32("[4]", "[0,16]") + data, "beyond the end of the file"},
           {f32("[1]", "[0,4]") + data, "its tensors end at byte"},
           {WithLength(R"({"a":{"dtype":"F32","shape":[1],"data_offsets":[0,4]},)"
                       R"("b":{"dtype":"F32","shape":[1],"data_offsets":[0,4]}})") +
                data,
            "overlap"}}) {
    const absl::Status status = Read(c.contents).status();
    EXPECT_TRUE(absl::IsDataLoss(status)) << c.error;
    EXPECT_THAT(std::string(status.message()), HasSubstr(c.error));
  }
}

TEST(SafetensorsTest, WholeTensorsAreSpreadOverFilesUpToTheLimit) {
  const std::vector<TensorDescription> tensors = {{"a", DType::kF32, Shape{10}},
                                                  {"b", DType::kF32, Shape{15}},
                                                  {"large", DType::kF32, Shape{100}},
                                                  {"c", DType::kF32, Shape{1}}};

  const std::vector<SafetensorsFile> files = SpreadOverFiles("model", tensors, 100);

  ASSERT_EQ(files.size(), 3U);
  EXPECT_EQ(files[0].name, "model-00001-of-00003.safetensors");
  EXPECT_EQ(files[0].header.entries.size(), 2U);  // 40 + 60 bytes: just within
  EXPECT_EQ(files[1].header.entries[0].tensor.name, "large");
  EXPECT_EQ(files[2].header.entries[0].tensor.name, "c");
  EXPECT_EQ(SafetensorsIndexJson(files), R"({
  "metadata": {
    "total_size": 504
  },
  "weight_map": {
    "a": "model-00001-of-00003.safetensors",
    "b": "model-00001-of-00003.safetensors",
    "large": "model-00002-of-00003.safetensors",
    "c": "model-00003-of-00003.safetensors"
  }
}
)");
}

TEST(SafetensorsTest, OneFileCarriesNoNumber) {
  const std::vector<TensorDescription> tensors = {{"a", DType::kF32, Shape{10}}};

  EXPECT_EQ(SpreadOverFiles("momentum", tensors, 5'000'000'000)[0].name, "momentum.safetensors");
}

TEST(SafetensorsTest, OffsetsBeyond32BitsAreExact) {
  const SafetensorsHeader header = LayOutSafetensors(std::vector<TensorDescription>{
      {"a", DType::kF32, Shape{150'000, 16'384}}, {"b", DType::kF32, Shape{3}}});

  EXPECT_EQ(header.entries[1].begin,
            static_cast<int64_t>(header.bytes.size()) + int64_t{9'830'400'000});
  EXPECT_THAT(header.bytes, HasSubstr("[9830400000,9830400012]"));
}

}  // namespace
}  // namespace panthera
