#include "tests/bad_input/error_table.h"

#include "gtest/gtest.h"

namespace panthera::testing {
namespace {

TEST(ErrorTable, HasOneTableForEverySubject) {
  ExpectErrorTableOf(
      {"Configuration: the file", "Configuration: the values", "Data: where the token files are",
       "Data: what is in the token files", "Text and tokenizers", "Checkpoints to resume from",
       "Checkpoints to evaluate and generate from", "Weights to start from", "Weights to convert",
       "Run directories", "Ranks, batch and memory", "Devices", "Command line"});
}

}  // namespace
}  // namespace panthera::testing
