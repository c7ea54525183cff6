#include "launcher/sampling.h"

#include <algorithm>
#include <cmath>
#include <numeric>
#include <vector>

#include "runtime/base/philox.h"

namespace panthera {
namespace {

struct Candidate {
  int64_t token;
  double weight;  // exp((logit - largest) / temperature)
};

// The candidates that top_k leaves, most likely first.
std::vector<Candidate> RankCandidates(std::span<const float> logits,
                                      const SamplingOptions& options) {
  std::vector<int64_t> order(logits.size());
  std::iota(order.begin(), order.end(), 0);
  const auto before = [&](int64_t a, int64_t b) {
    const float x = logits[static_cast<size_t>(a)];
    const float y = logits[static_cast<size_t>(b)];
    return x != y ? x > y : a < b;
  };
  const bool limited = options.top_k > 0 && options.top_k < static_cast<int64_t>(order.size());
  const auto kept = limited ? order.begin() + options.top_k : order.end();
  std::partial_sort(order.begin(), kept, order.end(), before);
  order.erase(kept, order.end());
  const double largest = logits[static_cast<size_t>(order[0])];
  std::vector<Candidate> candidates;
  candidates.reserve(order.size());
  for (const int64_t token : order) {
    const double logit = logits[static_cast<size_t>(token)];
    candidates.push_back({token, std::exp((logit - largest) / options.temperature)});
  }
  return candidates;
}

double SumWeights(const std::vector<Candidate>& candidates) {
  double sum = 0;
  for (const Candidate& candidate : candidates) {
    sum += candidate.weight;
  }
  return sum;
}

void KeepNucleus(std::vector<Candidate>& candidates, double top_p) {
  const double goal = top_p * SumWeights(candidates);
  double sum = 0;
  size_t kept = 0;
  while (kept < candidates.size() && (kept == 0 || sum < goal)) {
    sum += candidates[kept++].weight;
  }
  candidates.resize(kept);
}

}  // namespace

int64_t SampleToken(std::span<const float> logits, const SamplingOptions& options, double uniform) {
  CHECK(!logits.empty());
  if (options.temperature == 0) {
    return std::max_element(logits.begin(), logits.end()) - logits.begin();
  }
  std::vector<Candidate> candidates = RankCandidates(logits, options);
  if (options.top_p < 1) {
    KeepNucleus(candidates, options.top_p);
  }
  double left = uniform * SumWeights(candidates);
  for (const Candidate& candidate : candidates) {
    left -= candidate.weight;
    if (left < 0) {
      return candidate.token;
    }
  }
  return candidates.back().token;
}

Generator::Generator(ModelInstance& instance)
    : instance_(instance),
      context_tokens_(instance.model().options().sequence_length),
      cache_(instance.context().device(), instance.context().ledger(), instance.model().options(),
             instance.dtype(), context_tokens_) {
  Context& ctx = instance.context();
  const int64_t vocab_size = instance.model().options().vocab_size;
  const int64_t token_bytes =
      RoundUp(context_tokens_ * SizeOf(DType::kI32), Arena::kAlignmentBytes);
  memory_ = Buffer(ctx.device(), ctx.ledger(), MemoryCategory::kData, "generation",
                   token_bytes + vocab_size * SizeOf(instance.dtype()));
  tokens_ = memory_.View({context_tokens_}, DType::kI32);
  logits_ = memory_.View({1, vocab_size}, instance.dtype(), token_bytes);
}

void Generator::Feed(std::span<const int32_t> tokens) {
  Context& ctx = instance_.context();
  const auto count = static_cast<int64_t>(tokens.size());
  const Tensor input = tokens_.Slice(0, count);
  if (!ctx.device().is_meta()) {
    std::copy(tokens.begin(), tokens.end(), input.data<int32_t>());
  }
  instance_.model().Decode(ctx, instance_.params(), input, cache_, logits_);
}

void Generator::PlanLongest() {
  cache_.Clear();
  Feed(std::vector<int32_t>(static_cast<size_t>(context_tokens_)));
}

void Generator::Generate(std::span<const int32_t> prompt, int64_t count,
                         const SamplingOptions& options, absl::FunctionRef<bool(int32_t)> emit) {
  CHECK(!prompt.empty());
  CHECK(!instance_.context().device().is_meta());
  cache_.Clear();
  std::vector<int32_t> text(prompt.begin(), prompt.end());
  const auto limit = static_cast<size_t>(context_tokens_);
  const auto tail = [&](size_t tokens) {
    return std::span<const int32_t>(text).last(std::min(tokens, text.size()));
  };
  Feed(tail(std::max<size_t>(1, limit - 1)));
  std::vector<float> logits(static_cast<size_t>(logits_.size(1)));
  for (int64_t i = 0; i < count; ++i) {
    DispatchFloat(logits_.dtype(), [&]<typename T>() {
      const T* values = logits_.data<T>();
      std::transform(values, values + logits.size(), logits.begin(),
                     [](T value) { return static_cast<float>(value); });
    });
    const Philox draw =
        Philox4x32(static_cast<uint64_t>(options.seed), static_cast<uint64_t>(i), 0);
    const auto token = static_cast<int32_t>(SampleToken(logits, options, draw.value[0] * 0x1p-32));
    text.push_back(token);
    if (!emit(token) || i + 1 == count) {
      return;
    }
    if (cache_.length() == cache_.capacity()) {
      cache_.Clear();
      Feed(tail(std::max<size_t>(1, limit / 2)));
    } else {
      Feed(tail(1));
    }
  }
}

}  // namespace panthera
