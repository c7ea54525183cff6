// Token files: part 0 is STEM.bin; part 1, if there is one, STEM.idx.
#include <algorithm>
#include <cstring>
#include <string>
#include <vector>

#include "absl/strings/match.h"

#include "runtime/base/check.h"
#include "runtime/data/loader.h"
#include "runtime/data/megatron_writer.h"
#include "runtime/data/token_file.h"
#include "tests/fuzz/fuzz_target.h"
#include "tests/runtime/data/token_bytes.h"
#include "tests/support/temp_dir.h"

namespace panthera::testing {
namespace {

constexpr int64_t kSequenceLength = 3;
constexpr int64_t kVocabulary = 300;
constexpr size_t kIndexHeaderBytes = 34;
constexpr size_t kLlmCHeaderBytes = 1024;

template <typename T>
T LoadAt(const std::string& bytes, size_t offset) {
  T value;
  CHECK_LE(offset + sizeof(T), bytes.size());
  std::memcpy(&value, bytes.data() + offset, sizeof(T));
  return value;
}

template <typename T>
void StoreAt(T value, size_t offset, std::string& bytes) {
  CHECK_LE(offset + sizeof(T), bytes.size());
  std::memcpy(bytes.data() + offset, &value, sizeof(T));
}

// Makes the counts of an index fit its size, and what else `choice` has bits for: offsets that
// follow each other, rising boundaries, as many ids as the index describes.
void RepairPair(uint64_t choice, std::string& content, std::string& index) {
  if (index.size() < kIndexHeaderBytes) {
    return;
  }
  const std::string header = MegatronIndex().Bytes();
  const size_t id_bytes = index[17] == 4 ? 4 : 2;
  index.replace(0, 18, header, 0, 17).insert(17, 1, id_bytes == 4 ? '\x04' : '\x08');
  const size_t room = index.size() - kIndexHeaderBytes;
  const size_t sequences = std::min<size_t>(LoadAt<uint64_t>(index, 18), room / 12);
  const size_t boundaries = std::max<size_t>((room - 12 * sequences) / 8, 1);
  StoreAt<uint64_t>(sequences, 18, index);
  StoreAt<uint64_t>(boundaries, 26, index);
  index.resize(kIndexHeaderBytes + 12 * sequences + 8 * boundaries);
  int64_t end = 0;
  for (size_t i = 0; i < sequences; ++i) {
    const size_t length_at = kIndexHeaderBytes + 4 * i;
    if ((choice & 1) != 0) {
      StoreAt<int32_t>(LoadAt<int32_t>(index, length_at) & 0xFF, length_at, index);
    }
    if ((choice & 2) != 0) {
      StoreAt<int64_t>(end, kIndexHeaderBytes + 4 * sequences + 8 * i, index);
    }
    end += int64_t{LoadAt<int32_t>(index, length_at)} * static_cast<int64_t>(id_bytes);
  }
  if ((choice & 4) != 0) {
    content.resize(static_cast<size_t>(std::clamp<int64_t>(end, 0, 1 << 16)));
  }
  for (size_t i = 0; (choice & 8) != 0 && i < boundaries; ++i) {
    const size_t value = i + 1 == boundaries ? sequences : i * sequences / boundaries;
    StoreAt<uint64_t>(value, kIndexHeaderBytes + 12 * sequences + 8 * i, index);
  }
}

void RepairLlmC(std::string& content) {
  if (content.size() < kLlmCHeaderBytes) {
    return;
  }
  const bool wide = content[0] == static_cast<char>(20240801 & 0xFF);
  StoreAt<int32_t>(wide ? 20240801 : 20240520, 0, content);
  StoreAt<int32_t>(wide ? 7 : 1, 4, content);
  const size_t ids = (content.size() - kLlmCHeaderBytes) / (wide ? 4 : 2);
  StoreAt<int32_t>(static_cast<int32_t>(ids), 8, content);
  content.resize(kLlmCHeaderBytes + ids * (wide ? 4 : 2));
}

class TokenFileTarget final : public FuzzTarget {
 public:
  std::vector<Parts> Seeds() const override {
    return {Pair(kVocabulary),
            Pair(1 << 17),
            {LlmCBytes(20240520, 1, 7, Ids({1, 2, 299, 4, 5, 6, 0}, 2))},
            {LlmCBytes(20240801, 7, 5, Ids({1, 2, 3, 299, 0}, 4))}};
  }

  void Repair(uint64_t choice, Parts& parts) const override {
    if (parts.size() == 1) {
      RepairLlmC(parts[0]);
    } else {
      RepairPair(choice, parts[0], parts[1]);
    }
  }

  Verdict Check(const Parts& parts) override {
    ReplaceFile(stem_ + ".bin", parts[0]);
    (void)std::remove((stem_ + ".idx").c_str());
    if (parts.size() > 1) {
      ReplaceFile(stem_ + ".idx", parts[1]);
    }
    const absl::StatusOr<TokenFile> file = TokenFile::Open(stem_ + ".bin");
    if (!file.ok()) {
      CheckIsOneLine(file.status());
      CHECK(absl::StrContains(std::string(file.status().message()), stem_))
          << file.status().ToString();
      return Verdict::kRefused;
    }
    const std::vector<int32_t> ids = CheckIds(*file, parts[0], parts.size() > 1);
    CheckDocuments(*file);
    CheckLoader(ids);
    return Verdict::kAccepted;
  }

 private:
  // What MegatronWriter makes of three documents, one of them without ids.
  Parts Pair(int64_t vocab_size) const {
    absl::StatusOr<MegatronWriter> writer = MegatronWriter::Create(stem_, vocab_size);
    CHECK_OK(writer.status());
    for (const std::vector<int32_t>& ids :
         {std::vector<int32_t>{1, 2, 299, 4, 5, 6, 0}, {}, {7, 8, 9, 0}}) {
      CHECK_OK(writer->Append(ids));
      CHECK_OK(writer->EndDocument());
    }
    CHECK_OK(writer->Publish());
    return {ReadBytes(stem_ + ".bin"), ReadBytes(stem_ + ".idx")};
  }

  // All ids, which must be those that lie in the file's bytes.
  static std::vector<int32_t> CheckIds(const TokenFile& file, const std::string& content,
                                       bool is_pair) {
    const size_t begin = is_pair ? 0 : kLlmCHeaderBytes;
    const auto size = static_cast<size_t>(SizeOf(file.type()));
    CHECK_EQ(begin + static_cast<size_t>(file.tokens()) * size, content.size());
    std::vector<int32_t> ids(static_cast<size_t>(file.tokens()));
    file.WillNeed(0, file.tokens());
    file.Read(0, file.tokens(), ids.data());
    bool is_inside = true;
    for (size_t i = 0; i < ids.size(); ++i) {
      const size_t offset = begin + i * size;
      CHECK_EQ(ids[i],
               size == 2 ? LoadAt<uint16_t>(content, offset) : LoadAt<int32_t>(content, offset));
      is_inside = is_inside && ids[i] >= 0 && ids[i] < kVocabulary;
    }
    const absl::Status status = file.CheckVocabulary(kVocabulary);
    CHECK_EQ(status.ok(), is_inside) << status.ToString();
    return ids;
  }

  static void CheckDocuments(const TokenFile& file) {
    CHECK_EQ(file.DocumentBegin(file.documents()), file.tokens());
    for (int64_t d = 0; d < file.documents(); ++d) {
      CHECK_GE(file.DocumentBegin(d), 0);
      CHECK_LE(file.DocumentBegin(d), file.DocumentBegin(d + 1));
    }
  }

  // Every sample of two epochs is there, and is the one that its index says.
  void CheckLoader(const std::vector<int32_t>& ids) const {
    const std::vector<DataSource> sources = {{.path = stem_ + ".bin", .weight = 1}};
    const SampleFormat format = {.sequence_length = kSequenceLength, .vocab_size = kVocabulary};
    const absl::StatusOr<DataLoader> loader = DataLoader::Open(sources, format, /*seed=*/1);
    const auto tokens = static_cast<int64_t>(ids.size());
    if (tokens <= kSequenceLength) {
      CHECK(!loader.ok());
      CheckIsOneLine(loader.status());
      return;
    }
    CHECK_OK(loader.status());
    const int64_t samples = (tokens - 1) / kSequenceLength;
    for (int64_t g = 0; g < 2 * std::min<int64_t>(samples, 50); ++g) {
      std::vector<int32_t> inputs(kSequenceLength);
      std::vector<int32_t> targets(kSequenceLength);
      const Shape shape = {1, kSequenceLength};
      const absl::Status status =
          loader->Fill(g, Tensor(inputs.data(), shape, DType::kI32, Device{}),
                       Tensor(targets.data(), shape, DType::kI32, Device{}));
      const auto first = ids.begin() + loader->At(g).index * kSequenceLength;
      const bool is_inside = std::all_of(first, first + kSequenceLength + 1,
                                         [](int32_t id) { return id >= 0 && id < kVocabulary; });
      CHECK_EQ(status.ok(), is_inside) << status.ToString();
      if (is_inside) {
        CHECK(std::equal(inputs.begin(), inputs.end(), first));
        CHECK(std::equal(targets.begin(), targets.end(), first + 1));
      }
    }
  }

  const TempDir folder_;
  const std::string stem_ = folder_.File("ids");
};

}  // namespace

std::unique_ptr<FuzzTarget> MakeTokenFileTarget() { return std::make_unique<TokenFileTarget>(); }

}  // namespace panthera::testing
