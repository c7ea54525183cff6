#include "launcher/byte_size.h"

#include <gmock/gmock.h>

namespace panthera {
namespace {

int64_t Parsed(const std::string& text) {
  const absl::StatusOr<int64_t> bytes = ParseByteSize(text);
  EXPECT_TRUE(bytes.ok()) << bytes.status();
  return bytes.value_or(-1);
}

TEST(ParseByteSizeTest, ReadsEveryUnit) {
  EXPECT_EQ(Parsed("4096"), 4096);
  EXPECT_EQ(Parsed("17B"), 17);
  EXPECT_EQ(Parsed("3KiB"), 3 * 1024);
  EXPECT_EQ(Parsed("512 MiB"), int64_t{512} << 20);
  EXPECT_EQ(Parsed("80GiB"), int64_t{80} << 30);
  EXPECT_EQ(Parsed("1.5TiB"), int64_t{3} << 39);
  EXPECT_EQ(Parsed("1.7"), 1);
}

TEST(ParseByteSizeTest, RefusesWhatIsNoSize) {
  for (const char* text : {"", "GiB", "inf", "infGiB", "nan", "-1GiB", "0", "0.5", "1e300", "8EiB",
                           "80GB", "80 gib", "5000000TiB", "1GiB more"}) {
    const absl::StatusOr<int64_t> bytes = ParseByteSize(text);
    ASSERT_FALSE(bytes.ok()) << text << " gives " << *bytes;
    EXPECT_THAT(std::string(bytes.status().message()), ::testing::HasSubstr(text));
  }
}

}  // namespace
}  // namespace panthera
