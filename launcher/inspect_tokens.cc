#include <algorithm>
#include <memory>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"

#include "launcher/inspection.h"
#include "runtime/base/status_macros.h"
#include "runtime/data/token_file.h"
#include "runtime/data/tokenizer.h"

namespace panthera {
namespace {

// Up to this many ids are read without --verify: a few seconds.
constexpr int64_t kMostTokensUnasked = 2'000'000'000;

struct IdRange {
  int64_t smallest = 0;  // negative: an id of 2^31 or more
  int64_t largest = 0;
};

IdRange ReadIds(const TokenFile& file) {
  constexpr int64_t kBlock = 1 << 20;
  IdRange range;
  std::vector<int32_t> ids(static_cast<size_t>(std::min(kBlock, file.tokens())));
  for (int64_t begin = 0; begin < file.tokens(); begin += kBlock) {
    const int64_t count = std::min(kBlock, file.tokens() - begin);
    file.Read(begin, count, ids.data());
    file.Release(begin, count);
    const auto [low, high] = std::minmax_element(ids.begin(), ids.begin() + count);
    range.smallest = std::min<int64_t>(range.smallest, *low);
    range.largest = std::max<int64_t>(range.largest, *high);
  }
  return range;
}

}  // namespace

absl::StatusOr<Wholeness> InspectTokens(const std::string& path, const InspectOptions& options,
                                        std::ostream& out) {
  const absl::StatusOr<TokenFile> file = TokenFile::Open(path);
  if (absl::IsDataLoss(file.status())) {
    out << path << ": a token file\n"
        << FactLine("whole", "no: " + std::string(file.status().message()));
    return Wholeness::kDamaged;
  }
  RETURN_IF_ERROR(file.status());
  const bool is_pair = file->format() == TokenFormat::kMegatron;
  out << path << (is_pair ? ": a Megatron pair of token files\n" : ": an llm.c token file\n");
  out << FactLine("ids", file->type() == TokenType::kUint16 ? "uint16"
                         : is_pair                          ? "int32"
                                                            : "uint32")
      << FactLine("tokens", absl::StrCat(file->tokens()))
      << FactLine("documents",
                  is_pair ? absl::StrCat(file->documents()) : "not told: llm.c files have no index")
      << FactLine("samples", absl::StrFormat(
                                 "%d whole ones of %d tokens (--sequence-length)",
                                 std::max<int64_t>(file->tokens() - 1, 0) / options.sequence_length,
                                 options.sequence_length))
      << FactLine("fingerprint", absl::StrFormat("%016x", file->Fingerprint()));
  if (!options.verify && file->tokens() > kMostTokensUnasked) {
    out << FactLine("largest id", "not read; --verify reads all ids")
        << FactLine("whole", "yes: lengths, offsets and boundaries fit");
    return Wholeness::kWhole;
  }
  const IdRange range = ReadIds(*file);
  if (range.smallest < 0) {
    out << FactLine("whole", "no: it has ids of 2^31 or more");
    return Wholeness::kDamaged;
  }
  out << FactLine("largest id", absl::StrCat(range.largest, ": model.vocab_size must be at least ",
                                             range.largest + 1))
      << FactLine("whole", "yes: lengths, offsets and boundaries fit, and every id can be read");
  return Wholeness::kWhole;
}

absl::StatusOr<Wholeness> InspectTokenizer(const std::string& path, std::ostream& out) {
  ASSIGN_OR_RETURN(const std::unique_ptr<Tokenizer> tokenizer, OpenTokenizer(path));
  out << path << ": a SentencePiece model\n"
      << FactLine("tokens", absl::StrCat(tokenizer->vocab_size()))
      << FactLine("end of document", absl::StrCat("id ", tokenizer->eos_id()))
      << FactLine("bytes", absl::StrCat(tokenizer->model_bytes().size()))
      << FactLine("fingerprint", tokenizer->fingerprint()) << FactLine("whole", "yes: it loads");
  return Wholeness::kWhole;
}

}  // namespace panthera
