#include "runtime/checkpoint/weight_files.h"

#include <filesystem>
#include <limits>

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "runtime/checkpoint/float_elements.h"
#include "tests/support/plain_model.h"
#include "tests/support/temp_dir.h"

namespace panthera {
namespace {

using ::testing::AllOf;
using ::testing::HasSubstr;
using testing::PlainModel;
using testing::PlainTensor;
using testing::TempDir;

constexpr char kSecondFile[] = "model-00002-of-00003.safetensors";

TEST(FloatElementsTest, EveryTypeIsReadExactlyAndWrittenWithTheSameBits) {
  const std::vector<float> values = {0, -0.5F, 1, 1.25F, -0x1.FCp+3F, 0x1p-14F};
  for (const char* type : {"F32", "BF16", "F16"}) {
    const std::string stored = testing::PlainElements(values, type);
    const DType dtype = *DTypeFromSafetensors(type);
    std::vector<float> read(values.size());
    DecodeFloats(std::as_bytes(std::span(stored)), dtype, read);
    EXPECT_EQ(read, values) << type;

    std::string written(stored.size(), 'x');
    EXPECT_EQ(EncodeFloats(values, dtype, std::as_writable_bytes(std::span(written))),
              std::nullopt);
    EXPECT_EQ(written, stored) << type;
  }
}

TEST(FloatElementsTest, TheFirstNumberThatBecomesInfiniteIsTold) {
  const float infinity = std::numeric_limits<float>::infinity();
  const std::vector<float> values = {infinity, 65519, 65520, -1e6F};
  std::vector<std::byte> bytes(2 * values.size());
  EXPECT_EQ(EncodeFloats(values, DType::kF16, bytes), 2);
  EXPECT_EQ(EncodeFloats(values, DType::kBF16, bytes), std::nullopt);
  EXPECT_EQ(EncodeFloats(std::vector<float>{3.4e38F}, DType::kBF16, std::span(bytes).first(2)), 0);
}

class WeightFilesTest : public ::testing::Test {
 protected:
  std::string Error() {
    const absl::StatusOr<WeightFiles> weights = WeightFiles::Open(files_, dir_.path());
    EXPECT_FALSE(weights.ok());
    return std::string(weights.status().message());
  }
  void Replace(const std::string& name, const std::string& before, const std::string& after) {
    std::string text = testing::ReadText(dir_.File(name));
    const size_t place = text.find(before);
    ASSERT_NE(place, std::string::npos) << before;
    testing::WriteText(dir_.File(name), text.replace(place, before.size(), after));
  }

  TempDir dir_;
  PosixFileSystem files_;
  PlainModel model_;
};

TEST_F(WeightFilesTest, AnyPartOfEveryTensorIsReadFromOneFileOrSeveral) {
  for (const int num_files : {1, 3}) {
    for (const char* type : {"F32", "BF16", "F16"}) {
      const TempDir dir;
      model_.Write(dir.path(), type, num_files);
      const absl::StatusOr<WeightFiles> weights = WeightFiles::Open(files_, dir.path());
      ASSERT_TRUE(weights.ok()) << weights.status();
      ASSERT_EQ(weights->tensors().size(), model_.tensors.size());
      EXPECT_FALSE(weights->checkpoint().has_value());
      WeightReader reader(files_, *weights);
      for (const auto& [name, plain] : model_.tensors) {
        const StoredTensor* tensor = weights->Find(name);
        ASSERT_NE(tensor, nullptr) << name;
        const size_t elements = plain.values.size();
        for (const auto& [begin, end] :
             {std::pair<size_t, size_t>{0, elements}, {3, elements - 2}}) {
          std::string bytes((end - begin) * static_cast<size_t>(SizeOf(tensor->tensor.dtype)), 'x');
          ASSERT_EQ(reader.Verify(*tensor, 0, 1), absl::OkStatus());
          ASSERT_EQ(reader.Read(*tensor, static_cast<int64_t>(begin),
                                std::as_writable_bytes(std::span(bytes))),
                    absl::OkStatus());
          EXPECT_EQ(bytes, testing::PlainElements(
                               {plain.values.data() + begin, plain.values.data() + end}, type))
              << name;
        }
      }
      EXPECT_EQ(weights->Find("model.norm"), nullptr);
    }
  }
}

TEST_F(WeightFilesTest, AnEmptyDirectoryHasNoWeights) {
  EXPECT_THAT(Error(), AllOf(HasSubstr("has neither model.safetensors nor"),
                             HasSubstr("give the directory")));
  testing::WriteText(dir_.File("pytorch_model.bin"), "");
  EXPECT_THAT(Error(), HasSubstr("save_pretrained"));
}

TEST_F(WeightFilesTest, OneFileAndAnIndexAreOneTooMany) {
  model_.Write(dir_.path(), "F32", 3);
  model_.Write(dir_.path(), "F32", 1);
  EXPECT_THAT(Error(), HasSubstr("remove the one that is out of date"));
}

TEST_F(WeightFilesTest, AMissingFileIsNamed) {
  model_.Write(dir_.path(), "F32", 3);
  std::filesystem::remove(dir_.File(kSecondFile));
  EXPECT_THAT(Error(), AllOf(HasSubstr(dir_.File(kSecondFile)), HasSubstr("is missing")));
}

TEST_F(WeightFilesTest, ATensorThatTheIndexAloneHasIsNamed) {
  model_.Write(dir_.path(), "F32", 3);
  Replace("model.safetensors.index.json", "\"model.norm.weight\"", "\"model.nose.weight\"");
  EXPECT_THAT(Error(), AllOf(HasSubstr("no tensor model.nose.weight"), HasSubstr("index.json")));
}

TEST_F(WeightFilesTest, ATensorThatTheIndexDoesNotHaveIsNamed) {
  model_.Write(dir_.path(), "F32", 3);
  model_.tensors["extra"] = PlainTensor{{1}, {1}};
  testing::WriteText(dir_.File(kSecondFile), testing::PlainSafetensors(model_.tensors, "F32"));
  EXPECT_THAT(Error(), AllOf(HasSubstr(kSecondFile), HasSubstr("has a tensor")));
}

TEST_F(WeightFilesTest, AnIndexCannotNameAFileElsewhere) {
  model_.Write(dir_.path(), "F32", 3);
  Replace("model.safetensors.index.json", kSecondFile, "../model.safetensors");
  EXPECT_THAT(Error(), HasSubstr("lies in \"../model.safetensors\""));
}

TEST_F(WeightFilesTest, AnIndexThatIsNoJsonIsNamed) {
  model_.Write(dir_.path(), "F32", 3);
  testing::WriteText(dir_.File("model.safetensors.index.json"), "{\"weight_map\": [1, 2\n");
  EXPECT_THAT(Error(),
              AllOf(HasSubstr("index.json is not a valid index"), HasSubstr("fetch it again")));
}

TEST_F(WeightFilesTest, AFileThatIsCutOffIsNamed) {
  model_.Write(dir_.path(), "F32", 3);
  std::filesystem::resize_file(dir_.File(kSecondFile),
                               std::filesystem::file_size(dir_.File(kSecondFile)) - 4);
  EXPECT_THAT(Error(),
              AllOf(HasSubstr(kSecondFile), HasSubstr("cut off"), HasSubstr("fetch it again")));
}

TEST_F(WeightFilesTest, TensorsThatOverlapAreNamed) {
  model_.tensors = {{"a", {{2}, {1, 2}}}, {"b", {{2}, {3, 4}}}};
  model_.Write(dir_.path(), "F32", 1);
  Replace("model.safetensors", "[8,16]", "[4,12]");
  EXPECT_THAT(Error(), AllOf(HasSubstr("tensor b"), HasSubstr("overlap")));
}

TEST_F(WeightFilesTest, AnUnknownTypeIsNamed) {
  model_.Write(dir_.path(), "F32", 1);
  Replace("model.safetensors", "\"F32\"", "\"F8\" ");
  EXPECT_THAT(Error(), AllOf(HasSubstr("\"F8\" is not supported"), HasSubstr("F16"),
                             HasSubstr("use other weights")));
}

}  // namespace
}  // namespace panthera
