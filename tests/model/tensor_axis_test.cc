#include "model/layers/tensor_axis.h"

#include <algorithm>
#include <vector>

#include <gtest/gtest.h>

#include "model/layers/attention.h"

namespace panthera {
namespace {

TEST(ShareTest, PartsFollowEachOtherAndDifferByOneAtMost) {
  for (int64_t whole = 1; whole <= 40; ++whole) {
    for (int64_t parts = 1; parts <= whole; ++parts) {
      int64_t end = 0;
      for (int64_t part = 0; part < parts; ++part) {
        const Share share = ShareOf(whole, parts, part);
        EXPECT_EQ(share.begin, end);
        EXPECT_GE(share.size(), whole / parts);
        EXPECT_LE(share.size(), (whole + parts - 1) / parts);
        end = share.end;
      }
      EXPECT_EQ(end, whole);
    }
  }
}

TEST(ShareTest, AlignedPartsBeginAtPacksAndNoneIsLargerByMoreThanAnEighth) {
  for (const int64_t whole : {1, 7, 23, 26, 192, 5504, 11'008, 28'672, 50'257, 50'304, 128'256}) {
    for (int64_t parts = 1; parts <= std::min<int64_t>(whole, 16); ++parts) {
      int64_t end = 0;
      const int64_t largest = AlignedShareOf(whole, parts, 0).size();
      for (int64_t part = 0; part < parts; ++part) {
        const Share share = AlignedShareOf(whole, parts, part);
        EXPECT_EQ(share.begin, end) << whole << " in " << parts;
        EXPECT_GT(share.size(), 0) << whole << " in " << parts;
        EXPECT_LE(share.size(), largest);
        EXPECT_LE(8 * (share.size() - 1) * parts, 9 * whole) << whole << " in " << parts;
        end = share.end;
      }
      EXPECT_EQ(end, whole);
    }
  }
  // 172 times 64 in 3 parts; 23 tokens have no packs; 8 equal parts need none.
  EXPECT_EQ(AlignedShareOf(11'008, 3, 1).begin, 58 * 64);
  EXPECT_EQ(AlignedShareOf(23, 4, 1).begin, 6);
  EXPECT_EQ(AlignedShareOf(128'256, 8, 1).begin, 16'032);
}

ModelOptions WithHeads(int64_t heads, int64_t kv_heads) {
  ModelOptions options;
  options.heads = heads;
  options.kv_heads = kv_heads;
  options.head_width = 8;
  return options;
}

TEST(HeadSharesTest, EveryQueryHeadIsComputedOnceBesideTheKeyThatServesIt) {
  for (int64_t kv_heads = 1; kv_heads <= 6; ++kv_heads) {
    for (int64_t served = 1; served <= 4; ++served) {
      const ModelOptions options = WithHeads(kv_heads * served, kv_heads);
      for (int64_t ranks = 1; ranks <= options.heads; ++ranks) {
        int64_t next_query = 0;
        int64_t next_row = 0;
        const int64_t largest = HeadShares(options, ranks, 0).queries.size();
        for (int64_t rank = 0; rank < ranks; ++rank) {
          const HeadShares shares(options, ranks, rank);
          EXPECT_EQ(shares.queries.begin, next_query);
          EXPECT_EQ(shares.key_rows.begin, next_row);
          EXPECT_GT(shares.queries.size(), 0);
          EXPECT_LE(shares.queries.size(), largest) << "rank 0 is planned";
          EXPECT_EQ(shares.queries.size() % shares.keys.size(), 0);
          EXPECT_EQ(shares.keys.begin, shares.queries.begin / served);
          EXPECT_EQ(shares.keys.end, (shares.queries.end - 1) / served + 1);
          EXPECT_EQ(shares.are_shared, kv_heads < ranks);
          next_query = shares.queries.end;
          next_row = shares.key_rows.end;
        }
        EXPECT_EQ(next_query, options.heads);
        EXPECT_EQ(next_row, kv_heads * options.head_width);
      }
    }
  }
}

}  // namespace
}  // namespace panthera
