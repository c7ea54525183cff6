#include "optim/grad_sync.h"

#include <algorithm>
#include <cmath>
#include <cstring>

#include "optim/shard_blocks.h"
#include "optim/state_shards.h"
#include "runtime/base/check.h"
#include "runtime/base/parallel_for.h"
#include "runtime/base/simd.h"
#include "runtime/comm/reduce.h"
#include "runtime/math/op_times.h"
#include "runtime/math/rows.h"

namespace panthera {
namespace {

constexpr int64_t kTaskElements = 16 * 1024;

PANTHERA_SIMD void ScaleRow(float scale, int64_t count, float* values) {
  for (int64_t i = 0; i < count; ++i) {
    values[i] *= scale;
  }
}

void RoundToBf16(const Tensor& in, Tensor out) {
  const float* from = in.data<float>();
  BF16* to = out.data<BF16>();
  ParallelFor(in.elements(), kTaskElements,
              [&](int64_t begin, int64_t end) { StoreRow(from + begin, end - begin, to + begin); });
}

void Scale(float scale, Tensor tensor) {
  float* values = tensor.data<float>();
  ParallelFor(tensor.elements(), kTaskElements,
              [&](int64_t begin, int64_t end) { ScaleRow(scale, end - begin, values + begin); });
}

// squares[b] = the sum of squares of block b of a gradient shard.
void SumBlocks(const ParameterStore& store, GroupId group, const Tensor& shard, Tensor squares) {
  const float* gradient = shard.data<float>();
  double* sums = squares.data<double>();
  ForEachBlock(store, group, [&](const ShardBlock& block) {
    sums[block.index] = SumOfSquares(gradient + block.shard_begin, block.elements);
  });
}

bool Sharded(const GroupLayout& layout) { return layout.kind == GroupKind::kSharded; }

}  // namespace

GradSync::GradSync(const OptimOptions& options, Context& ctx, const ParameterStore& store,
                   Communicator& data_parallel, Optimizer& optimizer)
    : accumulate_(options.accumulate),
      nonfinite_(options.nonfinite),
      ctx_(ctx),
      store_(store),
      data_parallel_(data_parallel),
      optimizer_(optimizer),
      squares_(ctx, store, data_parallel, "gradient sums", [](GroupId) { return true; }),
      flags_(options.nonfinite, ctx, store, data_parallel),
      written_(static_cast<size_t>(store.num_params())),
      complete_(static_cast<size_t>(store.num_groups()), true) {
  for (int i = 0; i < store.num_groups(); ++i) {
    const GroupLayout& layout = store.layout(GroupId{i});
    own_.emplace_back();
    if (accumulate_ == Accumulation::kGradient || !Sharded(layout)) {
      own_.back() = data_parallel.Allocate(ctx.device(), ctx.ledger(), MemoryCategory::kGradients,
                                           "gradients", layout.elements * SizeOf(DType::kF32));
    }
    if (accumulate_ == Accumulation::kGradient) {
      shards_.push_back(gradient_shard(GroupId{i}));
    }
  }
  if (accumulate_ == Accumulation::kMomentum) {
    AllocateSlots();
  }
  if (data_parallel.size() > 1) {
    AllocateStaging();
  }
}

void GradSync::AllocateSlots() {
  int64_t largest = 0;
  int64_t second = 0;
  for (int i = 0; i < store_.num_groups(); ++i) {
    const GroupLayout& layout = store_.layout(GroupId{i});
    if (Sharded(layout)) {
      const int64_t bytes = layout.elements * SizeOf(DType::kF32);
      second = std::max(second, std::min(bytes, largest));
      largest = std::max(largest, bytes);
    }
  }
  // The smaller one first: ClaimSlot takes the first that is large enough.
  for (const int64_t bytes : {second, largest}) {
    if (bytes > 0) {
      slots_.push_back(
          {data_parallel_.Allocate(ctx_.device(), ctx_.ledger(), MemoryCategory::kGradients,
                                   "gradient slots", bytes),
           kNobody});
    }
  }
}

void GradSync::AllocateStaging() {
  int64_t send = 0;
  int64_t receive = 0;
  for (int i = 0; i < store_.num_groups(); ++i) {
    const GroupLayout& layout = store_.layout(GroupId{i});
    const int64_t contribution = layout.shard_elements * SizeOf(layout.value_dtype);
    receive = std::max(receive, data_parallel_.size() * contribution);
    if (layout.value_dtype != DType::kF32) {
      send = std::max(send, data_parallel_.size() * contribution);
    }
  }
  send_ = data_parallel_.Allocate(ctx_.device(), ctx_.ledger(), MemoryCategory::kCommunication,
                                  "gradients to send", send);
  receive_ = data_parallel_.Allocate(ctx_.device(), ctx_.ledger(), MemoryCategory::kCommunication,
                                     "received gradients", receive);
}

void GradSync::BeginMicroStep(int64_t micro, int64_t micro_steps) {
  CHECK_GE(micro, 0);
  CHECK_LT(micro, micro_steps);
  CHECK(micro == 0 || (micro == micro_ + 1 && micro_steps == micro_steps_))
      << "micro-step " << micro << " of " << micro_steps << " follows " << micro_ << " of "
      << micro_steps_;
  micro_ = micro;
  micro_steps_ = micro_steps;
  if (micro == 0) {
    flags_.Clear();
  }
  complete_.assign(complete_.size(), false);
  if (micro == 0 || accumulate_ == Accumulation::kMomentum) {
    written_.assign(written_.size(), false);
  }
}

GradSync::Slot& GradSync::ClaimSlot(GroupId id) {
  const int64_t bytes = store_.layout(id).elements * SizeOf(DType::kF32);
  Slot* free_slot = nullptr;
  for (Slot& slot : slots_) {
    if (slot.holder == id.index) {
      return slot;
    }
    if (slot.holder == kNobody && free_slot == nullptr && slot.buffer.bytes() >= bytes) {
      free_slot = &slot;
    }
  }
  CHECK(free_slot != nullptr) << "no gradient slot is free for group " << store_.layout(id).name
                              << ": groups must complete before others begin, but for one";
  free_slot->holder = id.index;
  return *free_slot;
}

void GradSync::ReleaseSlot(GroupId id) {
  for (Slot& slot : slots_) {
    if (slot.holder == id.index) {
      slot.holder = kNobody;
    }
  }
}

Tensor GradSync::LocalGradient(GroupId id) {
  const GroupLayout& layout = store_.layout(id);
  const bool in_slot = accumulate_ == Accumulation::kMomentum && Sharded(layout);
  const Buffer& buffer = in_slot ? ClaimSlot(id).buffer : own_[static_cast<size_t>(id.index)];
  return buffer.View({layout.elements}, DType::kF32);
}

GradientTarget GradSync::Target(ParamId id) {
  const GroupId group = store_.group_of(id);
  CHECK(!complete_[static_cast<size_t>(group.index)])
      << store_.spec(id).name << " gets a gradient after its group was complete";
  const Shape& shape = store_.spec(id).shape;
  const int64_t begin = store_.offset(id);
  const Tensor gradient =
      LocalGradient(group).Slice(begin, begin + shape.elements()).Reshape(shape);
  const bool written = written_[static_cast<size_t>(id.index)];
  written_[static_cast<size_t>(id.index)] = true;
  return {gradient, written ? Accumulate::kAdd : Accumulate::kOverwrite};
}

void GradSync::ZeroUnwritten(GroupId id) {
  for (const ParamId param : store_.layout(id).params) {
    if (!written_[static_cast<size_t>(param.index)]) {
      const Tensor gradient = Target(param).gradient;
      if (!ctx_.device().is_meta()) {
        std::memset(gradient.bytes_data(), 0, static_cast<size_t>(gradient.bytes()));
      }
    }
  }
}

Tensor GradSync::Exchange(GroupId id, const Tensor& local) {
  const GroupLayout& layout = store_.layout(id);
  const int64_t ranks = data_parallel_.size();
  const Shape shape = {ranks, layout.shard_elements};
  if (ranks == 1) {
    return local.Reshape(shape);
  }
  const OpTimer timer(ctx_, {Op::kExchange}, {.bytes = Traffic({local})});
  const Tensor received = receive_.View(shape, layout.value_dtype);
  if (!Sharded(layout)) {
    data_parallel_.AllGather(local, received, ctx_.compute());
    return received;
  }
  Tensor sent = local.Reshape(shape);
  if (layout.value_dtype == DType::kBF16) {
    sent = send_.View(shape, DType::kBF16);
    if (!ctx_.device().is_meta()) {
      RoundToBf16(local, sent);
    }
  }
  data_parallel_.AllToAll(sent, received, ctx_.compute());
  return received;
}

void GradSync::ReduceIntoShard(GroupId id, const Tensor& local) {
  const int64_t ranks = data_parallel_.size();
  const auto weight = static_cast<float>(1.0 / static_cast<double>(micro_steps_ * ranks));
  const Tensor contributions = Exchange(id, local);
  const Tensor shard = gradient_shard(id);
  const OpTimer timer(ctx_, {Op::kFold}, {.bytes = Traffic({contributions, shard})});
  const bool computes = !ctx_.device().is_meta();
  if (ranks > 1) {
    SumRows(contributions, weight, Accumulate::kOverwrite, shard, ctx_.compute());
  } else if (weight != 1 && computes) {
    Scale(weight, shard);
  }
  if (computes) {
    SumBlocks(store_, id, shard, squares_.local(id));
  }
}

void GradSync::GroupComplete(GroupId id) {
  const auto index = static_cast<size_t>(id.index);
  CHECK(!complete_[index]) << "group " << store_.layout(id).name << " is complete already";
  const bool folds = accumulate_ == Accumulation::kMomentum;
  if (folds || last_micro_step()) {
    ZeroUnwritten(id);
  }
  complete_[index] = true;
  if (!folds) {
    if (last_micro_step()) {
      ReduceIntoShard(id, LocalGradient(id));
    }
    return;
  }
  FoldIntoMomentum(id, LocalGradient(id));
  ReleaseSlot(id);
}

void GradSync::FoldIntoMomentum(GroupId id, const Tensor& local) {
  const Tensor contributions = Exchange(id, local);
  if (nonfinite_ == NonFinitePolicy::kTiger) {
    flags_.Mark(id, contributions);
  }
  optimizer_.FoldGradient(
      ctx_, id, contributions,
      {.place = micro_ == 0 ? MicroStepPlace::kFirst : MicroStepPlace::kLater,
       .weight = 1.0 / static_cast<double>(micro_steps_ * data_parallel_.size()),
       .squares = squares_.local(id),
       .left_out = flags_.flags()});
}

void GradSync::FinishMicroStep() {
  for (int i = 0; i < store_.num_groups(); ++i) {
    CHECK(complete_[static_cast<size_t>(i)])
        << "group " << store_.layout(GroupId{i}).name << " was never completed in this micro-step";
  }
  if (!last_micro_step()) {
    return;
  }
  squares_.Gather(data_parallel_, ctx_.compute());
  double total = squares_.Total();
  if (accumulate_ == Accumulation::kMomentum) {
    // Folding squared the sums over ranks, one for each micro-step.
    const auto ranks = static_cast<double>(data_parallel_.size());
    total /= ranks * ranks * static_cast<double>(micro_steps_);
  }
  gradient_norm_ = std::sqrt(total);
}

NonFiniteReport GradSync::LeaveOutNonFinite(double loss_nats) {
  NonFiniteReport report;
  report.masked_gradients = flags_.total_count();
  const bool finite = std::isfinite(loss_nats) && std::isfinite(gradient_norm_);
  report.found = !finite || report.masked_gradients > 0;
  for (int i = 0; i < store_.num_params() && report.found; ++i) {
    if (flags_.count(ParamId{i}) > 0 || !std::isfinite(squares_.ParamSum(ParamId{i}))) {
      report.tensors.push_back(ParamId{i});
    }
  }
  report.skipped = !finite && nonfinite_ == NonFinitePolicy::kSkip;
  if (report.skipped) {
    flags_.MarkAll();
  }
  return report;
}

Tensor GradSync::gradient_shard(GroupId id) const {
  CHECK(accumulate_ == Accumulation::kGradient) << "gradients were folded into the momentum";
  const GroupLayout& layout = store_.layout(id);
  // The shard takes the place of this rank's own contribution to it, which was sent before.
  const int64_t begin = Sharded(layout) ? data_parallel_.rank() * layout.shard_elements : 0;
  return own_[static_cast<size_t>(id.index)].View({layout.shard_elements}, DType::kF32,
                                                  begin * SizeOf(DType::kF32));
}

}  // namespace panthera
