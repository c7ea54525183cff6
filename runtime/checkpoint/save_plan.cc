#include "runtime/checkpoint/save_plan.h"

#include <algorithm>
#include <iterator>
#include <utility>

#include "absl/strings/str_cat.h"

#include "runtime/base/check.h"
#include "runtime/base/status_macros.h"

namespace panthera {
namespace {

void CheckPiece(const TensorPiece& piece) {
  CHECK_EQ(piece.data.elements(), piece.runs.elements()) << piece.name;
  CHECK(!piece.data.device().is_meta()) << piece.name << " has no data";
  CHECK_OK(CheckRuns(piece.runs, piece.global_shape.elements())) << piece.name;
}

absl::Status Append(TensorSetRecord from, TensorSetRecord& to,
                    absl::flat_hash_map<std::string, size_t>& index) {
  for (TensorRecord& record : from.tensors) {
    const std::string key = TensorKey(from.name, record.tensor.name);
    const auto [place, is_first] = index.try_emplace(key, to.tensors.size());
    if (is_first) {
      to.tensors.push_back(std::move(record));
      continue;
    }
    TensorRecord& known = to.tensors[place->second];
    if (known.tensor.shape != record.tensor.shape || known.tensor.dtype != record.tensor.dtype) {
      return absl::InternalError(
          absl::StrCat("ranks disagree about tensor ", key, ": ", ToString(known.tensor.shape), " ",
                       Name(known.tensor.dtype), " and ", ToString(record.tensor.shape), " ",
                       Name(record.tensor.dtype)));
    }
    std::move(record.slices.begin(), record.slices.end(), std::back_inserter(known.slices));
  }
  return absl::OkStatus();
}

}  // namespace

RankRecord Describe(const CheckpointContents& contents) {
  RankRecord record;
  for (const TensorSet& set : contents.sets) {
    TensorSetRecord set_record;
    set_record.name = set.name;
    set_record.derived = set.derived;
    for (const TensorPiece& piece : set.pieces) {
      if (piece.runs.elements() == 0) {
        continue;
      }
      CheckPiece(piece);
      set_record.tensors.push_back(
          {{piece.name, piece.data.dtype(), piece.global_shape}, "", {{piece.runs, {}}}});
    }
    record.sets.push_back(std::move(set_record));
  }
  return record;
}

absl::StatusOr<RankRecord> JoinRecords(HostGroup& group, const RankRecord& own) {
  RankRecord joined;
  absl::flat_hash_map<std::string, size_t> set_index;
  absl::flat_hash_map<std::string, size_t> tensor_index;
  for (const std::string& text : group.AllGather(RankRecordJson(own))) {
    ASSIGN_OR_RETURN(RankRecord part, ParseRankRecord(text));
    joined.finite = joined.finite && part.finite;
    for (TensorSetRecord& set : part.sets) {
      const auto [place, is_first] = set_index.try_emplace(set.name, joined.sets.size());
      if (is_first) {
        joined.sets.push_back({set.name, set.derived, {}});
      }
      RETURN_IF_ERROR(Append(std::move(set), joined.sets[place->second], tensor_index));
    }
  }
  for (TensorSetRecord& set : joined.sets) {
    std::sort(set.tensors.begin(), set.tensors.end(),
              [](const TensorRecord& a, const TensorRecord& b) {
                const int64_t a_bytes = SizeOf(a.tensor.dtype);
                const int64_t b_bytes = SizeOf(b.tensor.dtype);
                return a_bytes != b_bytes ? a_bytes > b_bytes : a.tensor.name < b.tensor.name;
              });
    for (TensorRecord& record : set.tensors) {
      std::sort(
          record.slices.begin(), record.slices.end(),
          [](const SliceRecord& a, const SliceRecord& b) { return a.runs.begin < b.runs.begin; });
      if (const absl::Status status = CheckSlices(record); !status.ok()) {
        return absl::InternalError(status.message());
      }
    }
  }
  return joined;
}

SavePlan MakePlan(const std::string& directory, const RankRecord& joined, int64_t max_file_bytes) {
  SavePlan plan;
  plan.directory = directory;
  for (const TensorSetRecord& set : joined.sets) {
    std::vector<TensorDescription> tensors;
    for (const TensorRecord& record : set.tensors) {
      tensors.push_back(record.tensor);
    }
    plan.set_names.push_back(set.name);
    plan.set_files.push_back(SpreadOverFiles(set.name, tensors, max_file_bytes));
    for (const SafetensorsFile& file : plan.set_files.back()) {
      for (const SafetensorsEntry& entry : file.header.entries) {
        plan.places[TensorKey(set.name, entry.tensor.name)] = {file.name, entry.begin};
      }
    }
  }
  return plan;
}

}  // namespace panthera
