// The files in configs/.
#include <algorithm>
#include <filesystem>
#include <string>
#include <vector>

#include "gmock/gmock.h"
#include "gtest/gtest.h"

#include "launcher/config_changes.h"
#include "launcher/config_file.h"
#include "launcher/config_text.h"
#include "model/cost.h"

namespace panthera {
namespace {

struct ShippedConfig {
  const char* name;
  int ranks;
  double millions_of_parameters;
};
constexpr ShippedConfig kConfigs[] = {
    {"quickstart", 2, 2.6},
    {"toy_1m", 1, 0.92},
    {"llama_124m", 1, 124},
    {"llama_1b_8gpu", 8, 1420},
    {"llama_7b_64gpu", 64, 6890},
    {"llama_70b_64gpu", 64, 70550},
    {"llama_70b_1024gpu", 1024, 70550},
    {"experiments/outliers_tiger", 1, 0.37},
    {"experiments/outliers_tiger_table_rms", 1, 0.37},
    {"experiments/outliers_tiger_lazy", 1, 0.37},
    {"experiments/outliers_tiger_lazy_state", 1, 0.37},
    {"experiments/outliers_tiger_tied", 1, 0.24},
    {"experiments/outliers_tiger_tied_swap", 1, 0.24},
    {"experiments/outliers_lion", 1, 0.37},
    {"experiments/outliers_adamw", 1, 0.37},
    {"experiments/outliers_adamw_table", 1, 0.37},
    {"experiments/optimizers_tiger", 1, 0.37},
    {"experiments/optimizers_lion", 1, 0.37},
    {"experiments/optimizers_adamw", 1, 0.37},
};

class ShippedConfigTest : public ::testing::TestWithParam<ShippedConfig> {
 protected:
  RunOptions Load() {
    RunOptions options;
    const std::string path = std::string(PANTHERA_CONFIGS) + "/" + GetParam().name + ".toml";
    const absl::Status status = LoadConfig(path, {}, options);
    EXPECT_TRUE(status.ok()) << status;
    return options;
  }
};

TEST_P(ShippedConfigTest, IsValidForItsRanks) {
  RunOptions options = Load();
  EXPECT_EQ(options.Finish(GetParam().ranks), absl::OkStatus());
}

TEST_P(ShippedConfigTest, PrintedAndReadAgainIsTheSame) {
  RunOptions options = Load();
  for (const char* state : {"as read", "finished"}) {
    RunOptions read;
    ASSERT_EQ(ParseConfig(PrintConfig(options), "printed", {}, read), absl::OkStatus());
    EXPECT_TRUE(CompareConfigs(options, read).empty()) << state;
    ASSERT_EQ(options.Finish(GetParam().ranks), absl::OkStatus());
  }
}

TEST_P(ShippedConfigTest, HasTheSizeThatItsCommentSays) {
  RunOptions options = Load();
  ASSERT_EQ(options.Finish(GetParam().ranks), absl::OkStatus());
  const double millions = static_cast<double>(CountParameters(options.model).total()) / 1e6;
  EXPECT_NEAR(millions, GetParam().millions_of_parameters,
              GetParam().millions_of_parameters * 0.02);
}

INSTANTIATE_TEST_SUITE_P(All, ShippedConfigTest, ::testing::ValuesIn(kConfigs),
                         [](const auto& test) {
                           std::string name = test.param.name;
                           std::replace(name.begin(), name.end(), '/', '_');
                           return name;
                         });

TEST(ShippedConfigsTest, AreAllTested) {
  std::vector<std::string> files;
  for (const auto& entry : std::filesystem::recursive_directory_iterator(PANTHERA_CONFIGS)) {
    if (entry.is_regular_file()) {
      files.push_back(std::filesystem::relative(entry.path(), PANTHERA_CONFIGS));
    }
  }
  std::vector<std::string> tested;
  for (const ShippedConfig& config : kConfigs) {
    tested.push_back(std::string(config.name) + ".toml");
  }
  EXPECT_THAT(files, ::testing::UnorderedElementsAreArray(tested));
}

TEST(ShippedConfigsTest, QuickstartRunsOnManyNumbersOfRanks) {
  RunOptions options;
  ASSERT_EQ(LoadConfig(std::string(PANTHERA_CONFIGS) + "/quickstart.toml", {}, options),
            absl::OkStatus());
  for (const int ranks : {1, 2, 3, 6}) {
    EXPECT_EQ(options.Finish(ranks), absl::OkStatus()) << ranks;
  }
}

}  // namespace
}  // namespace panthera
