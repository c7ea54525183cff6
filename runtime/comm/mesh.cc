#include "runtime/comm/mesh.h"

#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"

#include "runtime/base/check.h"

namespace panthera {
namespace {

// "1, 2, 3 or 6" for 6.
std::string ListDivisors(int number) {
  std::vector<int> divisors;
  for (int divisor = 1; divisor <= number; ++divisor) {
    if (number % divisor == 0) {
      divisors.push_back(divisor);
    }
  }
  std::string text = absl::StrCat(divisors[0]);
  for (size_t i = 1; i < divisors.size(); ++i) {
    absl::StrAppend(&text, i + 1 < divisors.size() ? ", " : " or ", divisors[i]);
  }
  return text;
}

std::string Ranks(int64_t count) { return absl::StrCat(count, count == 1 ? " rank" : " ranks"); }

}  // namespace

absl::StatusOr<Mesh> Mesh::Create(const ParallelOptions& options, int rank, int world_size) {
  CHECK_GE(rank, 0);
  CHECK_LT(rank, world_size);
  CHECK_GE(options.tensor, 1);
  CHECK_GE(options.data, 0);
  if (world_size % options.tensor != 0) {
    return absl::InvalidArgumentError(absl::StrCat(
        "parallel.tensor = ", options.tensor, " does not divide the ", Ranks(world_size), "; use ",
        ListDivisors(world_size), ", or start a multiple of ", Ranks(options.tensor)));
  }
  const int64_t data_size = world_size / options.tensor;
  if (options.data != 0 && options.data != data_size) {
    return absl::InvalidArgumentError(
        absl::StrCat("parallel.data = ", options.data, " times parallel.tensor = ", options.tensor,
                     " is not ", Ranks(world_size), "; use parallel.data = ", data_size,
                     " (or 0), or start ", Ranks(options.data * options.tensor)));
  }
  Mesh mesh;
  mesh.tensor_size = static_cast<int>(options.tensor);
  mesh.data_size = static_cast<int>(data_size);
  mesh.tensor_rank = rank % mesh.tensor_size;
  mesh.data_rank = rank / mesh.tensor_size;
  return mesh;
}

}  // namespace panthera
