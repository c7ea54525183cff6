#include "launcher/sampling.h"

#include <algorithm>
#include <cmath>
#include <numeric>
#include <vector>

#include "absl/strings/str_format.h"

#include "runtime/base/philox.h"
#include "runtime/base/status_macros.h"

namespace panthera {
namespace {

struct Candidate {
  int64_t token;
  double weight;  // exp((logit - largest) / temperature)
};

absl::Status CheckFinite(std::span<const float> logits) {
  const auto bad =
      std::find_if(logits.begin(), logits.end(), [](float x) { return !std::isfinite(x); });
  if (bad == logits.end()) {
    return absl::OkStatus();
  }
  return absl::FailedPreconditionError(
      absl::StrFormat("the checkpoint gives non-finite logits (%g for token %d): the training had "
                      "diverged; take an "
                      "earlier checkpoint with --step",
                      *bad, bad - logits.begin()));
}

// Puts the candidates that top_k leaves first, in order, and drops the others.
void KeepLikeliest(std::span<const float> logits, int64_t top_k, std::vector<int64_t>& order) {
  const auto before = [&](int64_t a, int64_t b) {
    const float x = logits[static_cast<size_t>(a)];
    const float y = logits[static_cast<size_t>(b)];
    return x != y ? x > y : a < b;
  };
  if (top_k > 0 && top_k < static_cast<int64_t>(order.size())) {
    std::partial_sort(order.begin(), order.begin() + top_k, order.end(), before);
    order.resize(static_cast<size_t>(top_k));
  } else {
    std::sort(order.begin(), order.end(), before);
  }
}

// The candidates that top_k leaves: likeliest first, or by id where nothing is cut off.
std::vector<Candidate> Candidates(std::span<const float> logits, const SamplingOptions& options) {
  std::vector<int64_t> order(logits.size());
  std::iota(order.begin(), order.end(), 0);
  if (options.top_k > 0 || options.top_p < 1) {
    KeepLikeliest(logits, options.top_k, order);
  }
  const double largest = *std::max_element(logits.begin(), logits.end());
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

absl::StatusOr<int64_t> SampleToken(std::span<const float> logits, const SamplingOptions& options,
                                    double uniform) {
  CHECK(!logits.empty());
  CHECK_GE(uniform, 0.0);
  CHECK_LT(uniform, 1.0);
  RETURN_IF_ERROR(CheckFinite(logits));
  if (options.temperature == 0) {
    return std::max_element(logits.begin(), logits.end()) - logits.begin();
  }
  std::vector<Candidate> candidates = Candidates(logits, options);
  if (options.top_p < 1) {
    KeepNucleus(candidates, options.top_p);
  }
  // The running sum ends at exactly the total, which is above the goal because uniform < 1; a
  // candidate whose weight underflowed to zero does not move it and is never drawn.
  const double goal = uniform * SumWeights(candidates);
  double sum = 0;
  size_t drawn = 0;
  while ((sum += candidates[drawn].weight) <= goal) {
    ++drawn;
    CHECK_LT(drawn, candidates.size()) << "temperature " << options.temperature;
  }
  return candidates[drawn].token;
}

Generator::Generator(ModelInstance& instance, int64_t vocab_size)
    : instance_(instance),
      vocab_size_(vocab_size),
      context_tokens_(instance.model().options().sequence_length),
      cache_(instance.model().MakeCache(instance.context().device(), instance.context().ledger(),
                                        instance.dtype(), context_tokens_)) {
  Context& ctx = instance.context();
  const int64_t model_vocab_size = instance.model().options().vocab_size;
  CHECK_GE(vocab_size, 1);
  CHECK_LE(vocab_size, model_vocab_size);
  const int64_t token_bytes =
      RoundUp(context_tokens_ * SizeOf(DType::kI32), Arena::kAlignmentBytes);
  memory_ = Buffer(ctx.device(), ctx.ledger(), MemoryCategory::kData, "generation",
                   token_bytes + model_vocab_size * SizeOf(instance.dtype()));
  tokens_ = memory_.View({context_tokens_}, DType::kI32);
  logits_ = memory_.View({1, model_vocab_size}, instance.dtype(), token_bytes);
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

void Generator::ReadLogits(std::span<float> logits) const {
  DispatchFloat(logits_.dtype(), [&]<typename T>() {
    const T* values = logits_.data<T>();
    std::transform(values, values + logits.size(), logits.begin(),
                   [](T value) { return static_cast<float>(value); });
  });
}

void Generator::Plan(int64_t prompt_tokens, int64_t count) {
  const auto feed = [&](int64_t tokens) {
    Feed(std::vector<int32_t>(static_cast<size_t>(tokens)));
  };
  cache_.Clear();
  feed(std::min(prompt_tokens, most_prompt_tokens()));
  bool refilled = false;
  for (int64_t i = 1; i < count; ++i) {
    if (cache_.length() < cache_.capacity()) {
      feed(1);
      continue;
    }
    if (refilled) {
      // From here on everything repeats.
      break;
    }
    cache_.Clear();
    feed(refill_tokens());
    refilled = true;
  }
}

absl::Status Generator::Generate(std::span<const int32_t> prompt, int64_t count,
                                 const SamplingOptions& options,
                                 absl::FunctionRef<bool(int32_t)> emit) {
  CHECK(!prompt.empty());
  CHECK(!instance_.context().device().is_meta());
  cache_.Clear();
  std::vector<int32_t> text(prompt.begin(), prompt.end());
  const auto tail = [&](int64_t tokens) {
    return std::span<const int32_t>(text).last(std::min(static_cast<size_t>(tokens), text.size()));
  };
  Feed(tail(most_prompt_tokens()));
  std::vector<float> logits(static_cast<size_t>(vocab_size_));
  for (int64_t i = 0; i < count; ++i) {
    ReadLogits(logits);
    const Philox draw =
        Philox4x32(static_cast<uint64_t>(options.seed), static_cast<uint64_t>(i), 0);
    ASSIGN_OR_RETURN(const int64_t token, SampleToken(logits, options, draw.value[0] * 0x1p-32));
    text.push_back(static_cast<int32_t>(token));
    if (!emit(text.back()) || i + 1 == count) {
      break;
    }
    if (cache_.length() == cache_.capacity()) {
      cache_.Clear();
      Feed(tail(refill_tokens()));
    } else {
      Feed(tail(1));
    }
  }
  return absl::OkStatus();
}

}  // namespace panthera
