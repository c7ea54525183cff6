// Tiger on the parameters of one block, as bf16 with eight more bits and bf16 momentum.
#include <cstdint>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "optim/optimizer.h"
#include "runtime/comm/self_communicator.h"
#include "tests/bench/kernel_case.h"

namespace panthera::bench {
namespace {

// One block and its optimizer; owns their memory, which no Operands counts.
class BlockOptimizer {
 public:
  BlockOptimizer(int64_t elements, int64_t width, PublishMode publish, Context& ctx,
                 Operands& operands)
      : ctx_(ctx) {
    options_.weights = WeightStorage::kBf16Plus8;
    options_.momentum = MomentumStorage::kBf16;
    options_.publish = publish;
    CHECK_OK(options_.Finish());
    const GroupId group = store_.AddGroup("block", GroupKind::kSharded);
    store_.Add(group, {.name = "matrix",
                       .shape = {elements / width, width},
                       .kind = ParamKind::kMatrix,
                       .init_mean = 0,
                       .init_deviation = 0.02});
    store_.Allocate(ctx.device(), ctx.ledger(), self_, options_.weights, options_.low_bits());
    optimizer_ = CreateOptimizer(options_, ctx, store_, self_);
    gradient_ = operands.Noise({1, store_.layout(group).elements}, DType::kF32);
  }

  void Fold() { optimizer_->FoldGradient(ctx_, ctx_.compute(), {0}, gradient_, {}); }
  void Update() {
    StepInput input;
    input.learning_rate = 1e-3;
    optimizer_->Step(ctx_, input);
  }

 private:
  Context& ctx_;
  SelfCommunicator self_;
  ParameterStore store_;
  OptimOptions options_;
  std::unique_ptr<Optimizer> optimizer_;
  Tensor gradient_;
};

}  // namespace

std::vector<KernelCase> OptimizerKernels(const ModelShape& model) {
  const int64_t width = model.width;
  const int64_t elements = 4 * width * width + 3 * width * model.ffn_width;
  const auto bytes = [&](double per_element) {
    return OpWork{.flops = 0, .bytes = static_cast<double>(elements) * per_element};
  };
  const auto make = [elements, width](Context& ctx, Operands& operands,
                                      PublishMode publish = PublishMode::kWeights) {
    return std::make_shared<BlockOptimizer>(elements, width, publish, ctx, operands);
  };
  return {
      // The fp32 gradient is read, the momentum read and written.
      {.kernel = "tiger_fold",
       .shape = model.name,
       .work = bytes(4 + 2 * 2),
       .make = [make](Context& ctx, Operands& operands) -> KernelCall {
         return {[block = make(ctx, operands)] { block->Fold(); }, {}};
       }},
      // The momentum is read, three bytes of weight read and written. That weights are read before,
      // for their RMS, does not count: their squares could be summed as they are written.
      {.kernel = "tiger_update",
       .shape = model.name,
       .work = bytes(2 + 2 * 3),
       .make = [make](Context& ctx, Operands& operands) -> KernelCall {
         const std::shared_ptr<BlockOptimizer> block = make(ctx, operands);
         block->Fold();
         return {[block] { block->Update(); }, {}};
       }},
      // The same in two passes, between which 2 bits are written and read.
      {.kernel = "tiger_decide_and_apply",
       .shape = model.name,
       .work = bytes(2 + 2 * 3 + 2 * 0.25),
       .make = [make](Context& ctx, Operands& operands) -> KernelCall {
         const std::shared_ptr<BlockOptimizer> block = make(ctx, operands, PublishMode::kDirection);
         block->Fold();
         return {[block] { block->Update(); }, {}};
       }},
  };
}

}  // namespace panthera::bench
