#include "optim/replica_check.h"

#include <algorithm>
#include <span>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"

#include "runtime/base/check.h"
#include "runtime/math/host_mirror.h"
#include "runtime/math/word_hash.h"

namespace panthera {
namespace {

constexpr char kWeights[] = "weights";
constexpr char kLowBits[] = "low bits";
// Findings that a line names one by one.
constexpr size_t kMostNamed = 3;

// The ranks whose hash is not that of more than half of them; all, if there is no such hash.
std::vector<int> Minority(std::span<const int64_t> hashes) {
  const auto majority = std::find_if(hashes.begin(), hashes.end(), [&](int64_t hash) {
    return 2 * std::count(hashes.begin(), hashes.end(), hash) >
           static_cast<std::ptrdiff_t>(hashes.size());
  });
  std::vector<int> ranks;
  for (size_t rank = 0; rank < hashes.size(); ++rank) {
    if (majority == hashes.end() || hashes[rank] != *majority) {
      ranks.push_back(static_cast<int>(rank));
    }
  }
  return ranks;
}

// [hash][rank]: all ranks' hashes, of which each has as many.
std::vector<std::vector<int64_t>> GatherHashes(Communicator& host_ranks,
                                               std::vector<int64_t> hashes) {
  const auto count = static_cast<int64_t>(hashes.size());
  const int64_t ranks = host_ranks.size();
  std::vector<int64_t> gathered(static_cast<size_t>(ranks * count));
  Stream host{Device{}};
  host_ranks.AllGather(Tensor(hashes.data(), {count}, DType::kI64, Device{}),
                       Tensor(gathered.data(), {ranks, count}, DType::kI64, Device{}), host);
  std::vector<std::vector<int64_t>> by_rank(hashes.size());
  for (size_t i = 0; i < hashes.size(); ++i) {
    for (int64_t rank = 0; rank < ranks; ++rank) {
      by_rank[i].push_back(gathered[static_cast<size_t>(rank * count) + i]);
    }
  }
  return by_rank;
}

std::string DescribeOne(const ParameterStore& store, const FlippedBits& found) {
  const bool several = found.ranks.size() > 1;
  const std::string what =
      absl::StrCat("the ", found.tensor, " of group ", store.layout(found.group).name, " on ",
                   several ? "ranks " : "rank ", absl::StrJoin(found.ranks, ", "));
  if (found.evidence == FlippedBits::Evidence::kRecord) {
    return absl::StrCat(what, " changed after the update");
  }
  return absl::StrCat(what, several ? " differ between ranks" : " differ from those of the others");
}

}  // namespace

ReplicaCheck::ReplicaCheck(Context& ctx, const ParameterStore& store, const Optimizer& optimizer,
                           MeshAxes host_axes)
    : ctx_(ctx), store_(store), host_axes_(host_axes) {
  for (int i = 0; i < store.num_groups(); ++i) {
    const WeightShard whole = store.group_weights(GroupId{i});
    replicas_.push_back({GroupId{i}, kWeights, whole.values});
    if (whole.remainder.has_value()) {
      replicas_.push_back({GroupId{i}, kLowBits, *whole.remainder});
    }
    const WeightShard shard = store.shard(GroupId{i});
    parts_.push_back({GroupId{i}, kWeights, shard.values});
    if (shard.remainder.has_value()) {
      parts_.push_back({GroupId{i}, kLowBits, *shard.remainder});
    }
    if (shard.master.has_value()) {
      parts_.push_back({GroupId{i}, "master weights", *shard.master});
    }
  }
  optimizer.ForEachState([this](const char* name, GroupId group, const Tensor& shard) {
    parts_.push_back({group, name, shard});
  });
  std::stable_sort(parts_.begin(), parts_.end(),
                   [](const Part& a, const Part& b) { return a.group < b.group; });
  const int64_t hashes = num_replicas() + num_parts();
  memory_ = Buffer(ctx.device(), ctx.ledger(), MemoryCategory::kCommunication, "hashes of weights",
                   hashes * SizeOf(DType::kI64));
  hashes_ = memory_.View({hashes}, DType::kI64);
}

void ReplicaCheck::Record() {
  SetZero(ctx_.compute(), hashes_);
  HashParts();
  written_ = ReadToHost<int64_t>(ctx_, hashes_);
}

std::vector<FlippedBits> ReplicaCheck::Find() {
  CHECK(!written_.empty()) << "nothing was recorded";
  SetZero(ctx_.compute(), hashes_);
  HashParts();
  HashReplicas();
  std::vector<int64_t> read = ReadToHost<int64_t>(ctx_, hashes_);
  // A part's hash is nobody else's business, only whether it is still the same.
  for (size_t i = 0; i < read.size(); ++i) {
    read[i] ^= written_[i];
  }
  const std::vector<std::vector<int64_t>> by_rank = GatherHashes(host_axes_.data(), read);
  std::vector<FlippedBits> found;
  for (size_t i = 0; i < by_rank.size(); ++i) {
    FlippedBits bits = Compare(static_cast<int64_t>(i), by_rank[i]);
    for (int& rank : bits.ranks) {
      rank = MeshRank(rank, host_axes_.tensor_rank());
    }
    if (!bits.ranks.empty()) {
      found.push_back(std::move(bits));
    }
  }
  if (host_axes_.tensor_size() > 1) {
    CompareReplicatedGroups(read, found);
  }
  return found;
}

void ReplicaCheck::CompareReplicatedGroups(const std::vector<int64_t>& read,
                                           std::vector<FlippedBits>& found) const {
  std::vector<size_t> replicated;
  std::vector<int64_t> hashes;
  for (size_t i = 0; i < replicas_.size(); ++i) {
    if (store_.layout(replicas_[i].group).kind == GroupKind::kReplicated) {
      replicated.push_back(i);
      hashes.push_back(read[i]);
    }
  }
  const std::vector<std::vector<int64_t>> by_rank = GatherHashes(host_axes_.tensor(), hashes);
  for (size_t i = 0; i < by_rank.size(); ++i) {
    const Part& replica = replicas_[replicated[i]];
    FlippedBits bits = {FlippedBits::Evidence::kOtherRanks, replica.group, replica.name,
                        Minority(by_rank[i])};
    for (int& rank : bits.ranks) {
      rank = MeshRank(host_axes_.data().rank(), rank);
    }
    if (!bits.ranks.empty()) {
      found.push_back(std::move(bits));
    }
  }
}

FlippedBits ReplicaCheck::Compare(int64_t index, const std::vector<int64_t>& by_rank) const {
  if (index < num_replicas()) {
    const Part& replica = replicas_[static_cast<size_t>(index)];
    return {FlippedBits::Evidence::kOtherRanks, replica.group, replica.name, Minority(by_rank)};
  }
  const Part& part = parts_[static_cast<size_t>(index - num_replicas())];
  FlippedBits bits = {FlippedBits::Evidence::kRecord, part.group, part.name, {}};
  for (size_t rank = 0; rank < by_rank.size(); ++rank) {
    if (by_rank[rank] != 0) {
      bits.ranks.push_back(static_cast<int>(rank));
    }
  }
  return bits;
}

Tensor ReplicaCheck::hash(int64_t index) const { return hashes_.Slice(index, index + 1); }

void ReplicaCheck::HashParts() {
  for (int64_t i = 0; i < num_parts(); ++i) {
    HashWords(ctx_.compute(), parts_[static_cast<size_t>(i)].tensor, 0, hash(num_replicas() + i));
  }
}

void ReplicaCheck::HashReplicas() {
  for (int64_t i = 0; i < num_replicas(); ++i) {
    const Part& replica = replicas_[static_cast<size_t>(i)];
    if (store_.layout(replica.group).kind == GroupKind::kSharded) {
      store_.AwaitPublished(replica.group, ctx_.compute());
    }
    HashWords(ctx_.compute(), replica.tensor, 0, hash(i));
  }
}

std::string Describe(const ParameterStore& store, const std::vector<FlippedBits>& found) {
  CHECK(!found.empty());
  std::vector<std::string> lines;
  for (size_t i = 0; i < std::min(found.size(), kMostNamed); ++i) {
    lines.push_back(DescribeOne(store, found[i]));
  }
  std::string line = absl::StrJoin(lines, "; ");
  if (found.size() > kMostNamed) {
    absl::StrAppend(&line, "; and ", found.size() - kMostNamed, " more");
  }
  return line;
}

}  // namespace panthera
