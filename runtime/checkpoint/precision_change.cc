#include "runtime/checkpoint/precision_change.h"

#include <algorithm>
#include <cstddef>
#include <map>
#include <span>
#include <utility>

#include "runtime/base/check.h"
#include "runtime/base/log.h"
#include "runtime/base/status_macros.h"
#include "runtime/checkpoint/shard_writer.h"
#include "runtime/params/weight_rounding.h"

namespace panthera {
namespace {

constexpr char kValues[] = "model";
constexpr char kRemainder[] = "remainder";
constexpr char kMaster[] = "master";

// A shard of this run and how the checkpoint keeps it. A state is a shard without low bits.
struct ConvertedShard {
  std::string set;  // that of the values
  GroupId group;
  WeightShard wanted;
  WeightStorage stored = WeightStorage::kFp32;
};

// The parts of a shard of `elements`, zeroed, in a storage and on kCpu or kMeta.
class StoredShard {
 public:
  StoredShard(WeightStorage storage, int64_t elements, Device device)
      : elements_(elements), device_(device) {
    shard_.storage = storage;
    shard_.values = Add(ValueDType(storage));
    if (storage == WeightStorage::kBf16Plus8) {
      shard_.remainder = Add(DType::kU8);
    }
    if (storage == WeightStorage::kBf16PlusFp32) {
      shard_.master = Add(DType::kF32);
    }
  }

  const WeightShard& shard() const { return shard_; }

  // Every set that has a part of it, with that part; `values` is that of the values.
  std::vector<std::pair<std::string, Tensor>> Parts(const std::string& values) const {
    std::vector<std::pair<std::string, Tensor>> parts = {{values, shard_.values}};
    if (shard_.remainder.has_value()) {
      parts.emplace_back(kRemainder, *shard_.remainder);
    }
    if (shard_.master.has_value()) {
      parts.emplace_back(kMaster, *shard_.master);
    }
    return parts;
  }

 private:
  Tensor Add(DType dtype) {
    if (device_.is_meta()) {
      return {nullptr, Shape{elements_}, dtype, device_};
    }
    memory_.emplace_back(static_cast<size_t>(elements_ * SizeOf(dtype)));
    return {memory_.back().data(), Shape{elements_}, dtype, device_};
  }

  int64_t elements_;
  Device device_;
  WeightShard shard_;
  std::vector<std::vector<std::byte>> memory_;
};

// bf16 if any of the set's tensors is. A set that is not there has no types, and whoever reads it
// says so.
WeightStorage StoredValues(const TensorSetRecord* set) {
  const bool has_bf16 = set != nullptr && std::any_of(set->tensors.begin(), set->tensors.end(),
                                                      [](const TensorRecord& record) {
                                                        return record.tensor.dtype == DType::kBF16;
                                                      });
  return has_bf16 ? WeightStorage::kBf16 : WeightStorage::kFp32;
}

// The storage of everything but gains and biases.
WeightStorage WantedWeights(const ParameterStore& params) {
  for (int i = 0; i < params.num_groups(); ++i) {
    if (params.layout(GroupId{i}).kind == GroupKind::kSharded) {
      return params.shard(GroupId{i}).storage;
    }
  }
  return WeightStorage::kFp32;
}

int RoundedBits(WeightStorage storage) { return StoresExactly(storage) ? 0 : DroppedBits(storage); }

void LogChange(const HostGroup& host, const std::string& what, WeightStorage stored,
               WeightStorage wanted) {
  if (host.rank() == 0) {
    LOG(INFO) << what << ": " << EnumName(stored) << " -> " << EnumName(wanted)
              << (RoundedBits(wanted) > RoundedBits(stored) ? ", rounded to nearest"
                                                            : ", bit for bit");
  }
}

// That the checkpoint has all parts of all shards as they say. Collective.
absl::Status CheckStored(HostGroup& host, const Checkpoint& checkpoint,
                         const ParameterStore& params, const std::vector<ConvertedShard>& shards) {
  // In the same order on every rank.
  std::map<std::string, std::vector<TensorPiece>> sets;
  for (const ConvertedShard& shard : shards) {
    const StoredShard stored(shard.stored, shard.wanted.values.elements(),
                             Device{DeviceKind::kMeta});
    for (const auto& [set, part] : stored.Parts(shard.set)) {
      AppendShardPieces(params, shard.group, part, host.rank(), PieceUse::kLoad, sets[set]);
    }
  }
  for (const auto& [set, pieces] : sets) {
    RETURN_IF_ERROR(CheckPieces(host, checkpoint, set, pieces));
  }
  return absl::OkStatus();
}

// Reads one shard as it is stored and stores it as it is wanted.
absl::Status Convert(FileSystem& files, const Checkpoint& checkpoint, const ParameterStore& params,
                     int rank, const ConvertedShard& shard) {
  const int64_t elements = shard.wanted.values.elements();
  const StoredShard stored(shard.stored, elements, Device{});
  for (const auto& [set, part] : stored.Parts(shard.set)) {
    std::vector<TensorPiece> pieces;
    AppendShardPieces(params, shard.group, part, rank, PieceUse::kLoad, pieces);
    RETURN_IF_ERROR(ReadPieces(files, checkpoint, set, pieces));
  }
  ShardWriter writer(shard.wanted);
  constexpr int64_t kMost = ShardWriter::kMostElements;
  std::vector<float> values(static_cast<size_t>(std::min(kMost, elements)));
  for (int64_t begin = 0; begin < elements; begin += kMost) {
    const int64_t count = std::min(kMost, elements - begin);
    ReadWeights(stored.shard(), begin, count, values.data());
    writer.Store(std::span(values).first(static_cast<size_t>(count)), begin);
  }
  return absl::OkStatus();
}

// Collective.
absl::Status LoadConverted(FileSystem& files, HostGroup& host, const Checkpoint& checkpoint,
                           const ParameterStore& params,
                           const std::vector<ConvertedShard>& shards) {
  RETURN_IF_ERROR(CheckStored(host, checkpoint, params, shards));
  absl::Status status;
  for (const ConvertedShard& shard : shards) {
    if (status.ok()) {
      status = Convert(files, checkpoint, params, host.rank(), shard);
    }
  }
  return Agree(host, status);
}

// Reads one kind of state to its place. Collective.
absl::Status LoadAsStored(FileSystem& files, HostGroup& host, const Checkpoint& checkpoint,
                          const ParameterStore& params, const std::vector<ConvertedShard>& shards) {
  std::vector<TensorPiece> pieces;
  for (const ConvertedShard& shard : shards) {
    AppendShardPieces(params, shard.group, shard.wanted.values, host.rank(), PieceUse::kLoad,
                      pieces);
  }
  return LoadPieces(files, host, checkpoint, shards.front().set, pieces);
}

}  // namespace

WeightStorage StoredWeights(const Checkpoint& checkpoint) {
  if (checkpoint.FindSet(kMaster) != nullptr) {
    return WeightStorage::kBf16PlusFp32;
  }
  return checkpoint.FindSet(kRemainder) != nullptr ? WeightStorage::kBf16Plus8
                                                   : StoredValues(checkpoint.FindSet(kValues));
}

absl::Status LoadWeights(FileSystem& files, HostGroup& host, const Checkpoint& checkpoint,
                         const ParameterStore& params) {
  const WeightStorage stored = StoredWeights(checkpoint);
  const WeightStorage wanted = WantedWeights(params);
  if (stored == wanted) {
    for (TensorSet& set : WeightSets(params, host.rank(), PieceUse::kLoad)) {
      RETURN_IF_ERROR(LoadPieces(files, host, checkpoint, set.name, set.pieces));
    }
    return absl::OkStatus();
  }
  std::vector<ConvertedShard> shards;
  for (int i = 0; i < params.num_groups(); ++i) {
    const GroupId group{i};
    const bool is_sharded = params.layout(group).kind == GroupKind::kSharded;
    shards.push_back({.set = kValues,
                      .group = group,
                      .wanted = params.shard(group),
                      .stored = is_sharded ? stored : WeightStorage::kFp32});
  }
  RETURN_IF_ERROR(LoadConverted(files, host, checkpoint, params, shards));
  LogChange(host, "weights", stored, wanted);
  return absl::OkStatus();
}

absl::Status LoadStates(FileSystem& files, HostGroup& host, const Checkpoint& checkpoint,
                        const ParameterStore& params, const std::vector<SavedShard>& shards) {
  std::map<std::string, std::vector<ConvertedShard>> sets;
  for (const SavedShard& shard : shards) {
    WeightShard wanted;
    wanted.storage =
        shard.data.dtype() == DType::kBF16 ? WeightStorage::kBf16 : WeightStorage::kFp32;
    wanted.values = shard.data;
    sets[shard.set].push_back({.set = shard.set,
                               .group = shard.group,
                               .wanted = wanted,
                               .stored = StoredValues(checkpoint.FindSet(shard.set))});
  }
  for (const auto& [set, of_set] : sets) {
    const WeightStorage stored = of_set.front().stored;
    const WeightStorage wanted = of_set.front().wanted.storage;
    if (stored == wanted) {
      RETURN_IF_ERROR(LoadAsStored(files, host, checkpoint, params, of_set));
      continue;
    }
    RETURN_IF_ERROR(LoadConverted(files, host, checkpoint, params, of_set));
    LogChange(host, set, stored, wanted);
  }
  return absl::OkStatus();
}

}  // namespace panthera
