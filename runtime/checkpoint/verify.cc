#include "runtime/checkpoint/verify.h"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <memory>
#include <type_traits>
#include <utility>

#include "absl/strings/str_cat.h"

#include "runtime/base/status_macros.h"
#include "runtime/checkpoint/tensor_blocks.h"

namespace panthera {
namespace {

template <typename Element, typename Visit>
void ForEachElement(std::span<const std::byte> bytes, Visit visit) {
  for (size_t i = 0; i + sizeof(Element) <= bytes.size(); i += sizeof(Element)) {
    Element element;
    std::memcpy(&element, bytes.data() + i, sizeof(Element));
    if constexpr (std::is_same_v<Element, BF16> || std::is_same_v<Element, F16>) {
      visit(static_cast<double>(static_cast<float>(element)));
    } else {
      visit(static_cast<double>(element));
    }
  }
}

template <typename Visit>
void ForEachElement(std::span<const std::byte> bytes, DType dtype, Visit visit) {
  switch (dtype) {
    case DType::kF32:
      return ForEachElement<float>(bytes, visit);
    case DType::kBF16:
      return ForEachElement<BF16>(bytes, visit);
    case DType::kF16:
      return ForEachElement<F16>(bytes, visit);
    case DType::kF64:
      return ForEachElement<double>(bytes, visit);
    case DType::kI64:
      return ForEachElement<int64_t>(bytes, visit);
    case DType::kI32:
      return ForEachElement<int32_t>(bytes, visit);
    case DType::kU8:
      return ForEachElement<uint8_t>(bytes, visit);
  }
}

}  // namespace

void TensorStatistics::Add(std::span<const std::byte> bytes, DType dtype) {
  ForEachElement(bytes, dtype, [this](double value) {
    if (!std::isfinite(value)) {
      ++non_finite_;
      return;
    }
    min_ = finite_ == 0 ? value : std::min(min_, value);
    max_ = finite_ == 0 ? value : std::max(max_, value);
    sum_of_squares_ += value * value;
    ++finite_;
  });
}

double TensorStatistics::rms() const {
  return finite_ == 0 ? 0 : std::sqrt(sum_of_squares_ / static_cast<double>(finite_));
}

absl::Status VerifyTensors(FileSystem& files, const Checkpoint& checkpoint,
                           VerifiedTensorVisitor visit) {
  const int64_t block_bytes = checkpoint.manifest().block_bytes;
  std::vector<std::byte> buffer(static_cast<size_t>(block_bytes));
  std::unique_ptr<File> file;
  std::string open_path;
  for (const TensorSetRecord& set : checkpoint.manifest().sets) {
    for (const TensorRecord& record : set.tensors) {
      const std::string path = absl::StrCat(checkpoint.directory(), "/", record.file);
      if (path != open_path) {
        ASSIGN_OR_RETURN(file, files.Open(path, OpenMode::kRead));
        open_path = path;
      }
      const TensorBlocks blocks(*file, path, checkpoint.TensorBegin(set, record), record,
                                block_bytes);
      VerifiedTensor verified{.record = &record, .statistics = {}, .damage = {}};
      for (const SliceRecord& slice : record.slices) {
        for (size_t block = 0; block < slice.checksums.size(); ++block) {
          const absl::Status read = blocks.Read(slice, block, buffer);
          if (IsDamage(read)) {
            verified.damage.emplace_back(read.message());
            continue;
          }
          RETURN_IF_ERROR(read);
          const int64_t elements = blocks.End(slice, block) - blocks.Begin(block);
          verified.statistics.Add(
              std::span(buffer).first(static_cast<size_t>(elements * SizeOf(record.tensor.dtype))),
              record.tensor.dtype);
        }
      }
      visit(set.name, std::move(verified));
    }
  }
  return absl::OkStatus();
}

absl::StatusOr<TensorStatistics> ReadStatistics(File& file, const SafetensorsEntry& entry) {
  TensorStatistics statistics;
  const int64_t bytes = entry.tensor.bytes();
  std::vector<std::byte> buffer(static_cast<size_t>(std::min(bytes, kChecksumBlockBytes)));
  for (int64_t done = 0; done < bytes;) {
    const auto part = std::span(buffer).first(
        static_cast<size_t>(std::min(bytes - done, static_cast<int64_t>(buffer.size()))));
    RETURN_IF_ERROR(file.ReadAt(entry.begin + done, part));
    statistics.Add(part, entry.tensor.dtype);
    done += static_cast<int64_t>(part.size());
  }
  return statistics;
}

}  // namespace panthera
