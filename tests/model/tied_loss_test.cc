// The loss at which a model whose output matrix is its embedding begins (Su Jianlin,
// https://kexue.fm/archives/9698).
//
// With branches near zero the model maps token i to h = sqrt(d) * w_i / |w_i| and scores token j by
// h . w_j: about d * sigma for i itself, for others normal with deviation s = sqrt(d) * sigma. On
// targets that are another token the loss is log(e^(d sigma) + n - 1); with the halves of h
// exchanged it is that of unrelated rows, log(n) + s^2 / 2.
#include <algorithm>
#include <cmath>
#include <string>
#include <vector>

#include <gtest/gtest.h>

#include "model/init.h"
#include "model/transformer.h"
#include "runtime/comm/self_communicator.h"
#include "tests/support/random_tensor.h"

namespace panthera {
namespace {

using testing::HostTensor;
using testing::ToDoubles;

constexpr int64_t kRows = 512;
constexpr int64_t kTokens = 64;

// The mean loss over kRows random tokens, with branches that write nothing into the residual
// stream.
double InitialLoss(const ModelOptions& options) {
  MemoryLedger ledger;
  SelfCommunicator self;
  ParameterStore params;
  Transformer model(options, self, params);
  params.Allocate({}, ledger, self, WeightStorage::kFp32);
  model.Allocate({}, ledger, DType::kF32, /*rows=*/0);
  InitializeShards(params, 3);
  for (int i = 0; i < params.num_params(); ++i) {
    const std::string& name = params.spec({i}).name;
    if (name.find("o_proj") != std::string::npos || name.find("down_proj") != std::string::npos) {
      const Tensor value = params.value({i});
      std::fill_n(value.data<float>(), value.elements(), 0.0F);
    }
  }
  Context ctx({}, ledger, int64_t{256} << 20);
  const HostTensor tokens = testing::RandomTokens(kRows, options.vocab_size, 1);
  const HostTensor targets = testing::RandomTokens(kRows, options.vocab_size, 2);
  const HostTensor losses(Shape{kRows}, DType::kF32);
  const HostTensor correct(Shape{kRows}, DType::kI32);
  model.Loss(ctx, params,
             {tokens.tensor().Reshape({kRows / kTokens, kTokens}),
              targets.tensor().Reshape({kRows / kTokens, kTokens})},
             losses, correct);
  double sum = 0;
  for (const double loss : ToDoubles(losses)) {
    sum += loss;
  }
  return sum / static_cast<double>(kRows);
}

// n = 12,000 and d = 768, with the losses that were measured for these deviations: of the swapped
// model on few tokens, whose common target scores shift it by up to a quarter of s.
TEST(TiedLossTest, Row10InitialLossIsWhatTheTieCostsAndSwappedHalvesSaveIt) {
  constexpr double kVocabulary = 12000;
  constexpr double kWidth = 768;
  ModelOptions options;
  options.vocab_size = static_cast<int64_t>(kVocabulary);
  options.width = static_cast<int64_t>(kWidth);
  options.heads = 12;
  options.kv_heads = 1;
  options.head_width = 64;
  options.layers = 1;
  options.ffn_width = 8;
  options.sequence_length = kTokens;
  options.norm_epsilon = 1e-12;  // far below the variance of any of these tables
  const struct {
    double deviation;
    double tied;
    double swapped;
  } table[] = {{1 / std::sqrt(kWidth), 27.63, 10.09},
               {0.02, 15.32, 9.65},
               {std::log(kVocabulary) / kWidth, 10.10, 9.52},
               {std::pow(24.0, -1.0 / 3) / std::sqrt(kWidth), 10.21, 9.52}};
  for (const auto& row : table) {
    options.init_deviation = row.deviation;
    const double own = kWidth * row.deviation;
    const double other = std::sqrt(kWidth) * row.deviation;
    // Four deviations of the mean: the length of a row varies by 1 / sqrt(2 d), and a target's
    // score by s.
    const double bound = 4 * std::hypot(own / std::sqrt(2 * kWidth), other) / std::sqrt(kRows);

    options.tie = Tie::kTied;
    const double tied = InitialLoss(options);
    EXPECT_NEAR(tied, row.tied, bound) << row.deviation;
    EXPECT_NEAR(tied, std::log(std::exp(own) + (kVocabulary - 1) * std::exp(other * other / 2)),
                bound)
        << row.deviation;

    options.tie = Tie::kSwapHalves;
    const double swapped = InitialLoss(options);
    EXPECT_NEAR(swapped, std::log(kVocabulary) + other * other / 2, bound) << row.deviation;
    EXPECT_NEAR(swapped, row.swapped, bound + other / 4) << row.deviation;
  }
}

TEST(TiedLossTest, AnUntiedModelBeginsWhereTheSwappedOneDoes) {
  ModelOptions options;
  options.vocab_size = 2000;
  options.width = 256;
  options.heads = 4;
  options.kv_heads = 4;
  options.head_width = 64;
  options.layers = 1;
  options.ffn_width = 12;
  options.sequence_length = kTokens;
  options.init_deviation = 1 / std::sqrt(256.0);
  options.tie = Tie::kNone;
  EXPECT_NEAR(InitialLoss(options), std::log(2000.0) + 0.5, 4 / std::sqrt(kRows));
}

}  // namespace
}  // namespace panthera
