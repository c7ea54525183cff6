#include "runtime/checkpoint/weight_import.h"

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <cstring>
#include <span>
#include <vector>

#include "absl/strings/str_cat.h"

#include "runtime/base/check.h"
#include "runtime/base/status_macros.h"
#include "runtime/checkpoint/float_elements.h"
#include "runtime/checkpoint/shard_writer.h"

namespace panthera {
namespace {

constexpr int64_t kBlockElements = ShardWriter::kMostElements;
// Parts of rows at least this long are read one by one, shorter ones with what lies between them: a
// disk or a network reads so much as fast as a few bytes.
constexpr int64_t kLongRunBytes = int64_t{64} << 10;

// Reads elements of a slice of a stored tensor.
class SliceReader {
 public:
  SliceReader(WeightReader& reader, const StoredTensor& tensor, const ElementMap& slice)
      : reader_(reader),
        tensor_(tensor),
        slice_(slice),
        size_(SizeOf(tensor.tensor.dtype)),
        spans_rows_(!slice.is_contiguous() && slice.run * size_ < kLongRunBytes &&
                    slice.stride <= kBlockElements) {}

  // The most elements that a Read takes: with what lies between them they are no more than a block.
  int64_t MostElements() const {
    return spans_rows_ ? kBlockElements / slice_.stride * slice_.run : kBlockElements;
  }

  // Reads the blocks with checksums in which elements [first, first + elements) lie.
  absl::Status Verify(int64_t first, int64_t elements) {
    return reader_.Verify(tensor_, slice_(first), slice_(first + elements - 1) + 1);
  }

  // bytes = elements [first, first + elements), in the tensor's own type.
  absl::Status Read(int64_t first, int64_t elements, std::span<std::byte> bytes) {
    const int64_t begin = slice_(first);
    const int64_t end = slice_(first + elements - 1) + 1;
    if (spans_rows_ && end - begin > elements) {
      rows_.resize(Bytes(end - begin));
      RETURN_IF_ERROR(reader_.Read(tensor_, begin, rows_));
      ForEachNeighbours(
          slice_, first, elements, [&](int64_t offset, int64_t element, int64_t count) {
            std::memcpy(&bytes[Bytes(offset)], &rows_[Bytes(element - begin)], Bytes(count));
          });
      return absl::OkStatus();
    }
    absl::Status status;
    ForEachNeighbours(slice_, first, elements, [&](int64_t offset, int64_t element, int64_t count) {
      if (status.ok()) {
        status = reader_.Read(tensor_, element, bytes.subspan(Bytes(offset), Bytes(count)));
      }
    });
    return status;
  }

 private:
  size_t Bytes(int64_t elements) const { return static_cast<size_t>(elements * size_); }

  WeightReader& reader_;
  const StoredTensor& tensor_;
  ElementMap slice_;
  int64_t size_;
  bool spans_rows_;
  std::vector<std::byte> rows_;
};

// `values` are elements of the slice from `first` on.
absl::Status CheckFinite(std::span<const float> values, const WeightFiles& weights,
                         const StoredTensor& tensor, const ElementMap& slice, int64_t first) {
  const auto bad =
      std::find_if(values.begin(), values.end(), [](float value) { return !std::isfinite(value); });
  return bad == values.end()
             ? absl::OkStatus()
             : absl::DataLossError(absl::StrCat(
                   weights.PathOf(tensor), ": element ", slice(first + (bad - values.begin())),
                   " of tensor ", tensor.tensor.name,
                   " is not finite; no training can begin with it, so use other weights"));
}

absl::Status ImportSegment(WeightReader& reader, const WeightFiles& weights, const ParamSpec& spec,
                           const ShardSegment& segment, ShardWriter& writer) {
  const StoredTensor* tensor = weights.Find(spec.name);
  CHECK(tensor != nullptr) << spec.name;
  CHECK_EQ(tensor->tensor.shape, spec.logical_shape()) << spec.name;
  const ElementMap slice = spec.logical_elements();
  SliceReader slice_reader(reader, *tensor, slice);
  RETURN_IF_ERROR(slice_reader.Verify(segment.param_begin, segment.elements));
  const DType dtype = tensor->tensor.dtype;
  const int64_t most = std::min(slice_reader.MostElements(), segment.elements);
  std::vector<std::byte> bytes(static_cast<size_t>(most * SizeOf(dtype)));
  std::vector<float> values(static_cast<size_t>(most));
  for (int64_t done = 0; done < segment.elements; done += most) {
    const int64_t count = std::min(most, segment.elements - done);
    const int64_t first = segment.param_begin + done;
    const auto block_bytes = std::span(bytes).first(static_cast<size_t>(count * SizeOf(dtype)));
    const auto block_values = std::span(values).first(static_cast<size_t>(count));
    RETURN_IF_ERROR(slice_reader.Read(first, count, block_bytes));
    DecodeFloats(block_bytes, dtype, block_values);
    RETURN_IF_ERROR(CheckFinite(block_values, weights, *tensor, slice, first));
    writer.Store(block_values, segment.shard_begin + done);
  }
  return absl::OkStatus();
}

}  // namespace

absl::Status ImportShards(FileSystem& files, const WeightFiles& weights, ParameterStore& params) {
  WeightReader reader(files, weights);
  for (int g = 0; g < params.num_groups(); ++g) {
    const WeightShard shard = params.shard(GroupId{g});
    if (shard.values.device().is_meta()) {
      continue;
    }
    ShardWriter writer(shard);
    for (const ShardSegment& segment : params.segments(GroupId{g})) {
      RETURN_IF_ERROR(ImportSegment(reader, weights, params.spec(segment.param), segment, writer));
    }
  }
  return absl::OkStatus();
}

}  // namespace panthera
