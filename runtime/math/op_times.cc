#include "runtime/math/op_times.h"

namespace panthera {
namespace {

constexpr const char* kOpNames[kNumOps] = {"data",
                                           "embedding",
                                           "norm",
                                           "qkv product",
                                           "rope",
                                           "attention",
                                           "attention output product",
                                           "gate and up product",
                                           "swiglu",
                                           "down product",
                                           "residual",
                                           "head product",
                                           "cross-entropy",
                                           "exchange",
                                           "fold",
                                           "update",
                                           "publish"};
constexpr const char* kPassNames[kNumOpPasses] = {"", " backward", " weight gradient"};

}  // namespace

std::string Name(OpKind kind) {
  return std::string(kOpNames[static_cast<size_t>(kind.op)]) +
         kPassNames[static_cast<size_t>(kind.pass)];
}

double Traffic(std::initializer_list<Tensor> tensors) {
  double bytes = 0;
  for (const Tensor& tensor : tensors) {
    bytes += static_cast<double>(tensor.bytes());
  }
  return bytes;
}

double OpTimes::total_seconds() const {
  double total = 0;
  for (const Entry& entry : entries_) {
    total += entry.seconds;
  }
  return total;
}

void OpTimer::Begin(OpKind kind, const OpWork& work) {
  entry_ = &times_->entries_[OpTimes::Index(kind)];
  ++entry_->calls;
  entry_->work.flops += work.flops;
  entry_->work.bytes += work.bytes;
  outer_ = times_->innermost_;
  times_->innermost_ = this;
  begin_ = Clock::now();
}

void OpTimer::End() {
  const double seconds = std::chrono::duration<double>(Clock::now() - begin_).count();
  entry_->seconds += seconds - inner_seconds_;
  times_->innermost_ = outer_;
  if (outer_ != nullptr) {
    outer_->inner_seconds_ += seconds;
  }
}

}  // namespace panthera
