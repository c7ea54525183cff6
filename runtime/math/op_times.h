// Where the time of a training step goes: seconds, calls and work of each kind of op.
//
//   OpTimes times;  ctx.set_op_times(&times);  ... steps ...  times.at({Op::kSwiGlu}).seconds
//
// Whoever measures owns the OpTimes; every op opens with one OpTimer, which costs one branch where
// nobody measures. Results never depend on it. On a GPU the time is that of the context's compute
// stream, on which an OpTimer records events; the host does not wait for them before Collect.
#ifndef PANTHERA_RUNTIME_MATH_OP_TIMES_H_
#define PANTHERA_RUNTIME_MATH_OP_TIMES_H_

#include <array>
#include <chrono>
#include <cstddef>
#include <cstdint>
#include <initializer_list>
#include <memory>
#include <string>
#include <vector>

#include "runtime/device/stream.h"
#include "runtime/device/tensor.h"
#include "runtime/math/context.h"

namespace panthera {

// What a step consists of, in the order in which a step comes to it.
enum class Op : uint8_t {
  kData,            // the batch is read
  kEmbedding,       //
  kNorm,            // with the residual addition that is fused into it
  kQkv,             // products with the matrices of that name
  kRope,            //
  kAttention,       // scores, softmax, weighted sum
  kAttentionOut,    // product
  kGateUp,          // product
  kSwiGlu,          //
  kDown,            // product
  kResidual,        //
  kHead,            // product
  kCrossEntropy,    //
  kTensorExchange,  // activations travel between tensor-parallel ranks, and are summed
  kExchange,        // gradients travel between ranks
  kFold,            // gradients of all ranks are summed, into the momentum or a buffer
  kUpdate,          // weights and state
  kPublish,         // weights travel between ranks
};
inline constexpr int kNumOps = 18;

enum class OpPass : uint8_t {
  kForward,         // and whatever has no other pass
  kBackward,        // gradients of the inputs, and of gains with them
  kWeightGradient,  // of a product's matrix
};
inline constexpr int kNumOpPasses = 3;

struct OpKind {
  Op op;
  OpPass pass = OpPass::kForward;
};
// "swiglu backward"
std::string Name(OpKind kind);

// What an op cannot do without: arithmetic of its products (a multiply-add is two), and bytes that
// must be read and written at least once.
struct OpWork {
  double flops = 0;
  double bytes = 0;
};

// Bytes of all elements of these tensors: OpWork::bytes of an op that takes each once.
double Traffic(std::initializer_list<Tensor> tensors);

class OpTimes {
 public:
  struct Entry {
    int64_t calls = 0;
    double seconds = 0;
    OpWork work;
  };

  // Forgets everything, also what was not collected.
  void Clear();
  // Adds the seconds of ops on a GPU since the last call to their entries, where they are missing
  // until then. Blocks the host until the GPU has done these ops. Nothing to do on other devices.
  // Never inside an op.
  void Collect();
  const Entry& at(OpKind kind) const { return entries_[Index(kind)]; }
  // Of all kinds together: what is missing to the time of a step was spent outside ops.
  double total_seconds() const;

 private:
  friend class OpTimer;
  using Clock = std::chrono::steady_clock;

  static constexpr size_t kNumEntries = static_cast<size_t>(kNumOps) * kNumOpPasses;
  static constexpr size_t kNobody = kNumEntries;

  // A point in the compute stream, and whose time the time after it is.
  struct Mark {
    std::unique_ptr<Event> event;
    size_t running;
  };

  static size_t Index(OpKind kind) {
    return static_cast<size_t>(kind.op) * kNumOpPasses + static_cast<size_t>(kind.pass);
  }
  // Time from now on is that of entry `running`. Returns whose it was until now.
  size_t SwitchTo(size_t running, Stream& compute);

  std::array<Entry, kNumEntries> entries_;
  size_t running_ = kNobody;
  Clock::time_point since_;  // not on a GPU: when running_ began to be so
  // On a GPU: the first num_marks_ are to be collected, the others' events are free.
  std::vector<Mark> marks_;
  size_t num_marks_ = 0;
};

// Counts the time of its scope as that of one op, if somebody measures. Time in an inner scope is
// the inner op's alone. Used by the thread that owns the context, never inside a ParallelFor.
class OpTimer {
 public:
  OpTimer(Context& ctx, OpKind kind, const OpWork& work)
      : times_(ctx.op_times()), compute_(ctx.compute()) {
    if (times_ != nullptr) {
      Begin(kind, work);
    }
  }
  OpTimer(const OpTimer&) = delete;
  OpTimer& operator=(const OpTimer&) = delete;
  ~OpTimer() {
    if (times_ != nullptr) {
      times_->SwitchTo(outer_, compute_);
    }
  }

 private:
  void Begin(OpKind kind, const OpWork& work);

  OpTimes* times_;
  Stream& compute_;
  size_t outer_ = OpTimes::kNobody;  // whose time it was before
};

}  // namespace panthera

#endif  // PANTHERA_RUNTIME_MATH_OP_TIMES_H_
