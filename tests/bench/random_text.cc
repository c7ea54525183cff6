#include "tests/bench/random_text.h"

#include "runtime/base/status_macros.h"
#include "runtime/data/megatron_writer.h"
#include "tests/support/random_tensor.h"

namespace panthera::bench {

absl::Status WriteRandomText(const std::string& stem, int64_t tokens, int64_t vocab_size) {
  const testing::HostTensor text = testing::RandomTokens(tokens, vocab_size, 1);
  ASSIGN_OR_RETURN(MegatronWriter writer, MegatronWriter::Create(stem, vocab_size));
  RETURN_IF_ERROR(writer.Append({text.tensor().data<int32_t>(), static_cast<size_t>(tokens)}));
  RETURN_IF_ERROR(writer.EndDocument());
  return writer.Publish();
}

}  // namespace panthera::bench
