#include "runtime/comm/mesh.h"

#include <set>
#include <string>

#include "gtest/gtest.h"

namespace panthera {
namespace {

TEST(MeshTest, NeighbouringRanksShareTheTensorAxis) {
  const absl::StatusOr<Mesh> mesh = Mesh::Create({.data = 0, .tensor = 4}, 6, 12);
  ASSERT_TRUE(mesh.ok()) << mesh.status();
  EXPECT_EQ(mesh->tensor_size, 4);
  EXPECT_EQ(mesh->tensor_rank, 2);
  EXPECT_EQ(mesh->data_size, 3);
  EXPECT_EQ(mesh->data_rank, 1);
}

TEST(MeshTest, EveryRankHasItsOwnPlace) {
  for (const int64_t tensor : {1, 2, 3, 6}) {
    std::set<std::pair<int, int>> places;
    for (int rank = 0; rank < 6; ++rank) {
      const absl::StatusOr<Mesh> mesh =
          Mesh::Create({.data = 6 / tensor, .tensor = tensor}, rank, 6);
      ASSERT_TRUE(mesh.ok()) << mesh.status();
      EXPECT_EQ(mesh->rank(), rank);
      EXPECT_EQ(mesh->world_size(), 6);
      EXPECT_LT(mesh->data_rank, mesh->data_size);
      EXPECT_LT(mesh->tensor_rank, mesh->tensor_size);
      places.insert({mesh->data_rank, mesh->tensor_rank});
    }
    EXPECT_EQ(places.size(), 6U);
  }
}

std::string Error(const ParallelOptions& options, int world_size) {
  return std::string(Mesh::Create(options, 0, world_size).status().message());
}

TEST(MeshTest, NamesTheTensorSizesThatWork) {
  EXPECT_EQ(Error({.data = 0, .tensor = 4}, 6),
            "parallel.tensor = 4 does not divide the 6 ranks; use 1, 2, 3 or 6, or start a "
            "multiple of 4 ranks");
  EXPECT_EQ(
      Error({.data = 0, .tensor = 2}, 1),
      "parallel.tensor = 2 does not divide the 1 rank; use 1, or start a multiple of 2 ranks");
}

TEST(MeshTest, NamesTheDataSizeThatWorks) {
  EXPECT_EQ(Error({.data = 3, .tensor = 2}, 8),
            "parallel.data = 3 times parallel.tensor = 2 is not 8 ranks; use parallel.data = 4 (or "
            "0), or start 6 ranks");
}

TEST(MeshTest, LargestOptionsDoNotOverflow) {
  EXPECT_EQ(Error({.data = 1 << 20, .tensor = 1 << 10}, 1024),
            "parallel.data = 1048576 times parallel.tensor = 1024 is not 1024 ranks; use "
            "parallel.data = 1 (or 0), or start 1073741824 ranks");
}

}  // namespace
}  // namespace panthera
