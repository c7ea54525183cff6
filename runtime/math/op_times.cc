#include "runtime/math/op_times.h"

#include <utility>

#include "runtime/base/check.h"

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
                                           "tensor-parallel exchange",
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

void OpTimes::Clear() {
  entries_ = {};
  num_marks_ = 0;
}

void OpTimes::Collect() {
  CHECK_EQ(running_, kNobody) << "collected inside an op";
  if (num_marks_ == 0) {
    return;
  }
  marks_[num_marks_ - 1].event->Synchronize();
  for (size_t i = 0; i + 1 < num_marks_; ++i) {
    const Mark& mark = marks_[i];
    if (mark.running != kNobody) {
      const auto milliseconds =
          static_cast<double>(marks_[i + 1].event->MillisecondsSince(*mark.event));
      entries_[mark.running].seconds += 1e-3 * milliseconds;
    }
  }
  num_marks_ = 0;
}

double OpTimes::total_seconds() const {
  double total = 0;
  for (const Entry& entry : entries_) {
    total += entry.seconds;
  }
  return total;
}

size_t OpTimes::SwitchTo(size_t running, Stream& compute) {
  if (compute.device().is_cuda()) {
    if (num_marks_ == marks_.size()) {
      marks_.push_back(
          {std::make_unique<Event>(compute.device(), cuda::Timing::kMeasured), kNobody});
    }
    Mark& mark = marks_[num_marks_++];
    mark.event->Record(compute);
    mark.running = running;
  } else {
    const Clock::time_point now = Clock::now();
    if (running_ != kNobody) {
      entries_[running_].seconds += std::chrono::duration<double>(now - since_).count();
    }
    since_ = now;
  }
  return std::exchange(running_, running);
}

void OpTimer::Begin(OpKind kind, const OpWork& work) {
  const size_t index = OpTimes::Index(kind);
  OpTimes::Entry& entry = times_->entries_[index];
  ++entry.calls;
  entry.work.flops += work.flops;
  entry.work.bytes += work.bytes;
  outer_ = times_->SwitchTo(index, compute_);
}

}  // namespace panthera
