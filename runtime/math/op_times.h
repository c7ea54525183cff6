// Where the time of a training step goes: seconds, calls and work of each kind of op.
//
//   OpTimes times;  ctx.set_op_times(&times);  ... steps ...  times.at({Op::kSwiGlu}).seconds
//
// Whoever measures owns the OpTimes; every op opens with one OpTimer, which costs one branch where
// nobody measures. Results never depend on it.
#ifndef PANTHERA_RUNTIME_MATH_OP_TIMES_H_
#define PANTHERA_RUNTIME_MATH_OP_TIMES_H_

#include <array>
#include <chrono>
#include <cstddef>
#include <cstdint>
#include <initializer_list>
#include <string>

#include "runtime/device/tensor.h"
#include "runtime/math/context.h"

namespace panthera {

// What a step consists of, in the order in which a step comes to it.
enum class Op : uint8_t {
  kData,          // the batch is read
  kEmbedding,     //
  kNorm,          // with the residual addition that is fused into it
  kQkv,           // products with the matrices of that name
  kRope,          //
  kAttention,     // scores, softmax, weighted sum
  kAttentionOut,  // product
  kGateUp,        // product
  kSwiGlu,        //
  kDown,          // product
  kResidual,      //
  kHead,          // product
  kCrossEntropy,  //
  kExchange,      // gradients travel between ranks
  kFold,          // gradients of all ranks are summed, into the momentum or a buffer
  kUpdate,        // weights and state
  kPublish,       // weights travel between ranks
};
inline constexpr int kNumOps = 17;

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

  void Clear() { entries_ = {}; }
  const Entry& at(OpKind kind) const { return entries_[Index(kind)]; }
  // Of all kinds together: what is missing to the time of a step was spent outside ops.
  double total_seconds() const;

 private:
  friend class OpTimer;

  static size_t Index(OpKind kind) {
    return static_cast<size_t>(kind.op) * kNumOpPasses + static_cast<size_t>(kind.pass);
  }

  std::array<Entry, static_cast<size_t>(kNumOps) * kNumOpPasses> entries_;
  class OpTimer* innermost_ = nullptr;
};

// Counts the time of its scope as that of one op, if somebody measures. Time in an inner scope is
// the inner op's alone. Used by the thread that owns the context, never inside a ParallelFor.
class OpTimer {
 public:
  OpTimer(Context& ctx, OpKind kind, const OpWork& work) : times_(ctx.op_times()) {
    if (times_ != nullptr) {
      Begin(kind, work);
    }
  }
  OpTimer(const OpTimer&) = delete;
  OpTimer& operator=(const OpTimer&) = delete;
  ~OpTimer() {
    if (times_ != nullptr) {
      End();
    }
  }

 private:
  using Clock = std::chrono::steady_clock;

  void Begin(OpKind kind, const OpWork& work);
  void End();

  OpTimes* times_;
  // Set if times_ is.
  OpTimes::Entry* entry_ = nullptr;
  OpTimer* outer_ = nullptr;
  double inner_seconds_ = 0;
  Clock::time_point begin_;
};

}  // namespace panthera

#endif  // PANTHERA_RUNTIME_MATH_OP_TIMES_H_
