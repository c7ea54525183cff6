#include "runtime/base/json_integer.h"

#include <string>

#include <gtest/gtest.h>
#include <nlohmann/json.hpp>

namespace panthera {
namespace {

using Json = nlohmann::ordered_json;

TEST(JsonIntegerTest, TakesIntegersOfBothSigns) {
  EXPECT_EQ(JsonInteger(Json::parse("7")), 7);
  EXPECT_EQ(JsonInteger(Json::parse("-9223372036854775808")), INT64_MIN);
  EXPECT_EQ(JsonIntegers(Json::parse("[3, -1]")), (std::vector<int64_t>{3, -1}));
}

TEST(JsonIntegerTest, RefusesWhatIsNone) {
  for (const char* text : {"2.22222e+129", "1e3", "0.5", "true", "\"7\"", "[7]", "null"}) {
    EXPECT_THROW((void)JsonInteger(Json::parse(text)), Json::exception) << text;
  }
  for (const char* text : {"[1, 1e300]", "7", "{}"}) {
    EXPECT_THROW((void)JsonIntegers(Json::parse(text)), Json::exception) << text;
  }
}

}  // namespace
}  // namespace panthera
