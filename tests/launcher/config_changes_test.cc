#include "launcher/config_changes.h"

#include <cmath>
#include <string>
#include <vector>

#include "gmock/gmock.h"
#include "gtest/gtest.h"

#include "launcher/config_text.h"

namespace panthera {
namespace {

using ::testing::ElementsAre;
using ::testing::IsEmpty;

std::vector<std::string> Texts(const std::vector<ConfigChange>& changes) {
  std::vector<std::string> texts;
  for (const ConfigChange& change : changes) {
    texts.push_back(change.ToString());
  }
  return texts;
}

TEST(CompareConfigsTest, EqualOptionsHaveNoChanges) {
  RunOptions options;
  options.data.train.resize(2);
  EXPECT_THAT(CompareConfigs(options, options), IsEmpty());
}

TEST(CompareConfigsTest, ListsChangedKeysWithBothValues) {
  RunOptions before;
  before.data.train = {{.path = "a", .weight = 1}};
  RunOptions after = before;
  after.model.width = 8;
  after.optim.algorithm = Algorithm::kLion;
  after.optim.weight_decay = 0.1;
  after.data.train[0].path = "b";
  EXPECT_THAT(Texts(CompareConfigs(before, after)),
              ElementsAre("model.width: 0 -> 8", "optim.algorithm: \"tiger\" -> \"lion\"",
                          "optim.weight_decay: 0.01 -> 0.1", "data.train[0].path: \"a\" -> \"b\""));
}

TEST(CompareConfigsTest, SeesTheSmallestDifference) {
  RunOptions before;
  RunOptions after;
  after.optim.learning_rate = std::nextafter(before.optim.learning_rate, 1);
  EXPECT_EQ(CompareConfigs(before, after).size(), 1U);
}

TEST(CompareConfigsTest, ListEntriesComeAndGo) {
  RunOptions before;
  before.data.train = {{.path = "a", .weight = 1}};
  RunOptions after = before;
  after.data.train.push_back({.path = "b", .weight = 2});
  EXPECT_THAT(Texts(CompareConfigs(before, after)),
              ElementsAre("data.train[1].path: (absent) -> \"b\"",
                          "data.train[1].weight: (absent) -> 2.0"));
  EXPECT_THAT(Texts(CompareConfigs(after, before)),
              ElementsAre("data.train[1].path: \"b\" -> (absent)",
                          "data.train[1].weight: 2.0 -> (absent)"));
}

// Every key there is, so that a new one is placed deliberately.
TEST(ResumeTest, KeysThatMayChange) {
  RunOptions options;
  options.optim.schedule.points.resize(1);
  options.data.train.resize(1);
  options.data.validation.resize(1);
  std::vector<ConfigChange> all;
  for (const ConfigField& field : ListFields(options)) {
    all.push_back({field.key, "x", "y"});
  }
  const ResumeChanges changes = ClassifyForResume(all);
  std::vector<std::string> allowed;
  for (const ConfigChange& change : changes.allowed) {
    allowed.push_back(change.key);
  }
  std::vector<std::string> refused;
  for (const ConfigChange& change : changes.refused) {
    refused.push_back(change.key);
  }
  EXPECT_THAT(
      allowed,
      ElementsAre("model.recompute", "model.head_chunk_rows", "optim.learning_rate",
                  "optim.weight_decay", "optim.clip_norm", "optim.weights", "optim.momentum",
                  "optim.nonfinite", "optim.skip_budget", "optim.shrink_ratio", "optim.lazy_rows",
                  "optim.table_learning_rate", "optim.table_weight_decay", "optim.table_rms",
                  "optim.publish", "schedule.kind", "schedule.warmup_steps", "schedule.decay_steps",
                  "schedule.final_factor", "schedule.points[0].step", "schedule.points[0].factor",
                  "data.validation[0].path", "data.validation[0].weight", "parallel.data",
                  "parallel.tensor", "train.steps", "train.micro_batch", "train.run_dir",
                  "train.stall_seconds", "train.check_every", "eval.every", "eval.sequences",
                  "checkpoint.every", "checkpoint.keep", "checkpoint.keep_every",
                  "checkpoint.staging", "log.every", "device.kind", "device.sharing"));
  EXPECT_THAT(
      refused,
      ElementsAre("model.vocab_size", "model.width", "model.layers", "model.heads",
                  "model.kv_heads", "model.head_width", "model.ffn_width", "model.sequence_length",
                  "model.attention_window", "model.rope_base", "model.norm_epsilon", "model.tie",
                  "model.init_deviation", "optim.algorithm", "optim.beta1", "optim.beta2",
                  "optim.epsilon", "optim.accumulate", "optim.table_optimizer", "optim.table_beta1",
                  "optim.table_beta2", "data.train[0].path", "data.train[0].weight",
                  "data.tokenizer", "data.seed", "train.global_batch", "train.seed",
                  "train.start_from"));
}

TEST(ResumeTest, ChangesKeepTheirValues) {
  const ResumeChanges changes =
      ClassifyForResume({{"train.steps", "10", "20"}, {"train.seed", "1", "2"}});
  EXPECT_THAT(Texts(changes.allowed), ElementsAre("train.steps: 10 -> 20"));
  EXPECT_THAT(Texts(changes.refused), ElementsAre("train.seed: 1 -> 2"));
}

TEST(ResumeTest, KeysThatOnlyBeginLikeAnAllowedOneAreRefused) {
  const ResumeChanges changes =
      ClassifyForResume({{"train.steps_of_dance", "1", "2"}, {"logarithm.every", "1", "2"}});
  EXPECT_THAT(changes.allowed, IsEmpty());
}

}  // namespace
}  // namespace panthera
