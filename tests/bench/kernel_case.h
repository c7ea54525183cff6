// Ops as kernel_bench measures them: sizes, operands, and the work that they cannot do without.
#ifndef PANTHERA_TESTS_BENCH_KERNEL_CASE_H_
#define PANTHERA_TESTS_BENCH_KERNEL_CASE_H_

#include <cstdint>
#include <functional>
#include <string>
#include <vector>

#include "runtime/base/dtype.h"
#include "runtime/math/context.h"
#include "runtime/math/op_times.h"
#include "tests/bench/operands.h"

namespace panthera::bench {

// The sizes of a model and of one of its micro-batches.
struct ModelShape {
  std::string name;
  int64_t tokens;    // of a micro-batch
  int64_t sequence;  // tokens of one of its sequences
  int64_t width;
  int64_t heads;
  int64_t head_width;
  int64_t ffn_width;
  int64_t vocab_size;
  int64_t columns;    // of the logits: vocab_size and padding
  int64_t head_rows;  // rows of logits at a time
};

// 124m, 1.3b and 7b with micro-batches that fill one large GPU.
std::vector<ModelShape> GpuModelShapes();
// A model that any device computes in moments.
ModelShape DryModelShape();

// One call of an op.
struct KernelCall {
  struct Output {
    Tensor tensor;
    // kOverwritten: every element is written; kChanged: of some, in place.
    enum class Kind : uint8_t { kOverwritten, kChanged } kind = Kind::kOverwritten;
  };

  std::function<void()> run;
  std::vector<Output> outputs;
};

// A kernel at one size. `make` gives a call on operands of its own, so that several of them, used
// in turn, do not find each other's data in a cache; both references must outlive the call.
struct KernelCase {
  std::string kernel;
  std::string shape;
  DType dtype = DType::kBF16;
  // Arithmetic counts where there is any, else bytes.
  OpWork work;
  std::function<KernelCall(Context&, Operands&)> make;
};

// Everything of a training step but products and attention: byte by byte.
std::vector<KernelCase> RowKernels(const ModelShape& model);
// Folding gradients of one block into Tiger's momentum, and the update of its weights.
std::vector<KernelCase> OptimizerKernels(const ModelShape& model);
// The products of a layer and of the head, forward and for both gradients.
std::vector<KernelCase> ProductKernels(const ModelShape& model);
// Attention in a model's shape.
std::vector<KernelCase> AttentionKernels(const ModelShape& model);
// Attention over lengths, head widths and schemes; the smaller sweep for any device.
std::vector<KernelCase> AttentionSweep();
std::vector<KernelCase> DryAttentionSweep();
// A product of three square matrices of `size`, what others are compared with.
KernelCase SquareProduct(int64_t size);
// A copy inside the device's memory.
KernelCase DeviceCopy(int64_t bytes);

}  // namespace panthera::bench

#endif  // PANTHERA_TESTS_BENCH_KERNEL_CASE_H_
