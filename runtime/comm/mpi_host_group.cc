#include "runtime/comm/mpi_host_group.h"

#include <mpi.h>

#include <cstdint>
#include <limits>
#include <string>
#include <vector>

#include "runtime/base/check.h"
#include "runtime/comm/mpi_check.h"

namespace panthera {
namespace {

// `bytes` as MPI counts them.
int Count(int64_t bytes) {
  CHECK_LE(bytes, std::numeric_limits<int>::max()) << "bytes in a control message";
  return static_cast<int>(bytes);
}

class MpiHostGroup final : public HostGroup {
 public:
  // Takes `comm`.
  explicit MpiHostGroup(MPI_Comm comm) : comm_(comm) {
    CHECK_MPI(MPI_Comm_rank(comm_, &rank_));
    CHECK_MPI(MPI_Comm_size(comm_, &size_));
  }
  ~MpiHostGroup() override { CHECK_MPI(MPI_Comm_free(&comm_)); }

  int rank() const override { return rank_; }
  int size() const override { return size_; }
  std::vector<std::string> AllGather(const std::string& bytes) override;
  std::string Broadcast(const std::string& bytes, int root) override;

 private:
  MPI_Comm comm_;
  int rank_ = 0;
  int size_ = 0;
};

std::vector<std::string> MpiHostGroup::AllGather(const std::string& bytes) {
  const int length = Count(static_cast<int64_t>(bytes.size()));
  std::vector<int> lengths(static_cast<size_t>(size_));
  CHECK_MPI(MPI_Allgather(&length, 1, MPI_INT, lengths.data(), 1, MPI_INT, comm_));
  std::vector<int> offsets;
  int64_t total = 0;
  for (const int each : lengths) {
    offsets.push_back(Count(total));
    total += each;
  }
  std::string joined(static_cast<size_t>(Count(total)), '\0');
  CHECK_MPI(MPI_Allgatherv(bytes.data(), length, MPI_BYTE, joined.data(), lengths.data(),
                           offsets.data(), MPI_BYTE, comm_));
  std::vector<std::string> all;
  for (size_t r = 0; r < lengths.size(); ++r) {
    all.push_back(joined.substr(static_cast<size_t>(offsets[r]), static_cast<size_t>(lengths[r])));
  }
  return all;
}

std::string MpiHostGroup::Broadcast(const std::string& bytes, int root) {
  CHECK_GE(root, 0);
  CHECK_LT(root, size_);
  int length = rank_ == root ? Count(static_cast<int64_t>(bytes.size())) : 0;
  CHECK_MPI(MPI_Bcast(&length, 1, MPI_INT, root, comm_));
  std::string copy = rank_ == root ? bytes : std::string(static_cast<size_t>(length), '\0');
  CHECK_MPI(MPI_Bcast(copy.data(), length, MPI_BYTE, root, comm_));
  return copy;
}

}  // namespace

std::unique_ptr<HostGroup> CreateMpiHostGroup(const MpiRuntime& runtime, int color) {
  CHECK_GE(color, 0);
  MPI_Comm comm = MPI_COMM_NULL;
  CHECK_MPI(MPI_Comm_split(MPI_COMM_WORLD, color, runtime.rank(), &comm));
  return std::make_unique<MpiHostGroup>(comm);
}

}  // namespace panthera
