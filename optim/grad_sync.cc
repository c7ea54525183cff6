#include "optim/grad_sync.h"

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <cstring>
#include <utility>

#include "optim/cuda_kernels.h"
#include "optim/shard_blocks.h"
#include "optim/state_shards.h"
#include "runtime/base/check.h"
#include "runtime/base/status_macros.h"
#include "runtime/comm/reduce.h"
#include "runtime/math/op_times.h"
#include "runtime/math/vector_ops.h"

namespace panthera {
GradSync::GradSync(const OptimOptions& options, Context& ctx, const ParameterStore& store,
                   MeshAxes axes, Optimizer& optimizer)
    : accumulate_(options.accumulate),
      nonfinite_(options.nonfinite),
      clip_norm_(options.clip_norm),
      ctx_(ctx),
      store_(store),
      axes_(axes),
      optimizer_(optimizer),
      squares_(ctx, store, axes, "gradient sums", [](GroupId) { return true; }),
      flags_(options.nonfinite, ctx, store, axes),
      judged_(ctx.device()),
      written_(static_cast<size_t>(store.num_params())),
      complete_(static_cast<size_t>(store.num_groups()), true) {
  AllocateOwn();
  if (accumulate_ == Accumulation::kMomentum) {
    AllocateSlots();
  }
  if (axes.data().size() > 1) {
    AllocateStaging();
  }
  if (axes.tensor_size() > 1) {
    AllocateTensorStaging();
  }
  AllocateVerdict();
}

void GradSync::AllocateOwn() {
  for (int i = 0; i < store_.num_groups(); ++i) {
    const GroupLayout& layout = store_.layout(GroupId{i});
    Buffer memory;
    if (accumulate_ == Accumulation::kGradient || !is_sharded(layout)) {
      memory = axes_.data().Allocate(ctx_.device(), ctx_.ledger(), MemoryCategory::kGradients,
                                     "gradients", layout.elements * SizeOf(DType::kF32));
    }
    own_.push_back({std::move(memory), Event(ctx_.device()), i});
    written_out_.emplace_back(ctx_.device());
    if (accumulate_ == Accumulation::kGradient) {
      shards_.push_back(gradient_shard(GroupId{i}));
    }
  }
}

void GradSync::AllocateSlots() {
  int64_t largest = 0;
  int64_t second = 0;
  for (int i = 0; i < store_.num_groups(); ++i) {
    const GroupLayout& layout = store_.layout(GroupId{i});
    if (is_sharded(layout)) {
      const int64_t bytes = layout.elements * SizeOf(DType::kF32);
      second = std::max(second, std::min(bytes, largest));
      largest = std::max(largest, bytes);
    }
  }
  // The smaller one first: ClaimSlot takes the first that is large enough.
  for (const int64_t bytes : {second, largest}) {
    if (bytes > 0) {
      slots_.push_back({axes_.data().Allocate(ctx_.device(), ctx_.ledger(),
                                              MemoryCategory::kGradients, "gradient slots", bytes),
                        Event(ctx_.device()), kNobody});
    }
  }
}

void GradSync::AllocateStaging() {
  int64_t send = 0;
  int64_t receive = 0;
  for (int i = 0; i < store_.num_groups(); ++i) {
    const GroupLayout& layout = store_.layout(GroupId{i});
    const int64_t contribution = layout.shard_elements * SizeOf(layout.value_dtype);
    receive = std::max(receive, axes_.data().size() * contribution);
    if (layout.value_dtype != DType::kF32) {
      send = std::max(send, axes_.data().size() * contribution);
    }
  }
  send_ = axes_.data().Allocate(ctx_.device(), ctx_.ledger(), MemoryCategory::kCommunication,
                                "gradients to send", send);
  receive_ = axes_.data().Allocate(ctx_.device(), ctx_.ledger(), MemoryCategory::kCommunication,
                                   "received gradients", receive);
}

void GradSync::AllocateTensorStaging() {
  int64_t largest = 0;
  for (int i = 0; i < store_.num_groups(); ++i) {
    const GroupLayout& layout = store_.layout(GroupId{i});
    largest = std::max(largest, is_sharded(layout) ? 0 : layout.elements);
  }
  tensor_receive_ = axes_.tensor().Allocate(
      ctx_.device(), ctx_.ledger(), MemoryCategory::kCommunication, "received gradients of gains",
      axes_.tensor_size() * largest * SizeOf(DType::kF32));
}

void GradSync::AllocateVerdict() {
  losses_ = axes_.data().Allocate(ctx_.device(), ctx_.ledger(), MemoryCategory::kCommunication,
                                  "losses", axes_.data().size() * SizeOf(DType::kF64));
  verdict_ = Buffer(ctx_.device(), ctx_.ledger(), MemoryCategory::kCommunication, "verdict",
                    sizeof(StepVerdict));
  host_verdict_ = HostMirror(ctx_, "verdict", verdict_.View({sizeof(StepVerdict)}, DType::kU8));
  host_sums_ = HostMirror(ctx_, "gradient sums", squares_.param_sums());
  host_counts_ = HostMirror(ctx_, "gradient flags", flags_.counts());
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
  ctx_.compute().WaitFor(free_slot->released);
  return *free_slot;
}

void GradSync::Release(GroupId id) {
  own_[static_cast<size_t>(id.index)].released.Record(ctx_.exchange());
  for (Slot& slot : slots_) {
    if (slot.holder == id.index) {
      slot.released.Record(ctx_.exchange());
      slot.holder = kNobody;
    }
  }
}

Tensor GradSync::LocalGradient(GroupId id) {
  const GroupLayout& layout = store_.layout(id);
  const bool in_slot = accumulate_ == Accumulation::kMomentum && is_sharded(layout);
  Slot& memory = in_slot ? ClaimSlot(id) : own_[static_cast<size_t>(id.index)];
  return memory.buffer.View({layout.elements}, DType::kF32);
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
  if (!written) {
    ctx_.compute().WaitFor(own_[static_cast<size_t>(group.index)].released);
  }
  written_[static_cast<size_t>(id.index)] = true;
  return {gradient, written ? Accumulate::kAdd : Accumulate::kOverwrite};
}

void GradSync::ZeroUnwritten(GroupId id) {
  for (const ParamId param : store_.layout(id).params) {
    if (!written_[static_cast<size_t>(param.index)]) {
      SetZero(ctx_.compute(), Target(param).gradient);
    }
  }
}

void GradSync::SumOverTensorAxis(Tensor local) {
  const OpTimer timer(ctx_, {Op::kExchange}, {.bytes = Traffic({local})});
  const Tensor received =
      tensor_receive_.View({axes_.tensor_size(), local.elements()}, DType::kF32);
  axes_.tensor().AllGather(local, received, ctx_.exchange());
  SumRows(received, 1, Accumulate::kOverwrite, local, ctx_.exchange());
}

Tensor GradSync::Exchange(GroupId id, const Tensor& local) {
  const GroupLayout& layout = store_.layout(id);
  if (!is_sharded(layout) && axes_.tensor_size() > 1) {
    SumOverTensorAxis(local);
  }
  const int64_t ranks = axes_.data().size();
  const Shape shape = {ranks, layout.shard_elements};
  if (ranks == 1) {
    return local.Reshape(shape);
  }
  const OpTimer timer(ctx_, {Op::kExchange}, {.bytes = Traffic({local})});
  const Tensor received = receive_.View(shape, layout.value_dtype);
  if (!is_sharded(layout)) {
    axes_.data().AllGather(local, received, ctx_.exchange());
    return received;
  }
  Tensor sent = local.Reshape(shape);
  if (layout.value_dtype == DType::kBF16) {
    sent = send_.View(shape, DType::kBF16);
    RoundToBf16(ctx_.exchange(), local.Reshape(shape), sent);
  }
  axes_.data().AllToAll(sent, received, ctx_.exchange());
  return received;
}

void GradSync::SumSquares(GroupId id, const Tensor& shard) {
  const Tensor squares = squares_.local(id);
  if (ctx_.device().is_cuda()) {
    cuda::SumSquares(ctx_.exchange(), store_, id, shard, squares);
  } else if (ctx_.device().is_cpu()) {
    const float* gradient = shard.data<float>();
    double* sums = squares.data<double>();
    ForEachBlock(store_, id, [&](const ShardBlock& block) {
      sums[block.index] = SumOfSquares(gradient + block.shard_begin, block.elements);
    });
  }
}

void GradSync::ReduceIntoShard(GroupId id, const Tensor& local) {
  const int64_t ranks = axes_.data().size();
  const auto weight = static_cast<float>(1.0 / static_cast<double>(micro_steps_ * ranks));
  const Tensor contributions = Exchange(id, local);
  const Tensor shard = gradient_shard(id);
  const OpTimer timer(ctx_, {Op::kFold}, {.bytes = Traffic({contributions, shard})});
  if (ranks > 1) {
    SumRows(contributions, weight, Accumulate::kOverwrite, shard, ctx_.exchange());
  } else if (weight != 1) {
    Scale(ctx_.exchange(), weight, shard);
  }
  SumSquares(id, shard);
}

void GradSync::GroupComplete(GroupId id) {
  const auto index = static_cast<size_t>(id.index);
  CHECK(!complete_[index]) << "group " << store_.layout(id).name << " is complete already";
  const bool folds = accumulate_ == Accumulation::kMomentum;
  if (folds || last_micro_step()) {
    ZeroUnwritten(id);
  }
  complete_[index] = true;
  if (!folds && !last_micro_step()) {
    return;
  }
  written_out_[index].Record(ctx_.compute());
  ctx_.exchange().WaitFor(written_out_[index]);
  if (folds) {
    FoldIntoMomentum(id, LocalGradient(id));
  } else {
    ReduceIntoShard(id, LocalGradient(id));
  }
  Release(id);
}

void GradSync::FoldIntoMomentum(GroupId id, const Tensor& local) {
  const Tensor contributions = Exchange(id, local);
  if (nonfinite_ == NonFinitePolicy::kTiger) {
    flags_.Mark(ctx_.exchange(), id, contributions);
  }
  FoldInput fold;
  fold.place = micro_ == 0 ? MicroStepPlace::kFirst : MicroStepPlace::kLater;
  fold.weight = 1.0 / static_cast<double>(micro_steps_ * axes_.data().size());
  fold.squares = squares_.local(id);
  fold.left_out = flags_.flags();
  optimizer_.FoldGradient(ctx_, ctx_.exchange(), id, contributions, fold);
}

void GradSync::FinishMicroStep() {
  for (int i = 0; i < store_.num_groups(); ++i) {
    CHECK(complete_[static_cast<size_t>(i)])
        << "group " << store_.layout(GroupId{i}).name << " was never completed in this micro-step";
  }
  if (!last_micro_step()) {
    return;
  }
  for (const Slot& own : own_) {
    ctx_.compute().WaitFor(own.released);
  }
}

void GradSync::Judge(const Tensor& loss_sum, int64_t targets) {
  CHECK_SHAPE(loss_sum, 1);
  Stream& stream = ctx_.compute();
  const int rank = axes_.data().rank();
  const Tensor losses = losses_.View({axes_.data().size()}, DType::kF64);
  Copy(stream, loss_sum, losses.Slice(rank, rank + 1));
  axes_.data().AllGather(losses.Slice(rank, rank + 1), losses, stream);
  squares_.SumParams(stream);
  // Folding squared the sums over ranks, one for each micro-step.
  const auto ranks = static_cast<double>(axes_.data().size());
  const bool folds = accumulate_ == Accumulation::kMomentum;
  JudgeStep(stream,
            {.losses = losses,
             .param_sums = squares_.param_sums(),
             .targets = targets,
             .norm_divisor = folds ? ranks * ranks * static_cast<double>(micro_steps_) : 1.0,
             .clip_norm = clip_norm_,
             .policy = nonfinite_},
            flags_.flags(), verdict_.View({sizeof(StepVerdict)}, DType::kU8));
  for (HostMirror* mirror : {&host_verdict_, &host_sums_, &host_counts_}) {
    mirror->Fetch(stream);
  }
  judged_.Record(stream);
}

Tensor GradSync::gradient_scale() const {
  return verdict_.View({1}, DType::kF32, offsetof(StepVerdict, gradient_scale));
}

absl::StatusOr<StepReport> GradSync::Report() {
  StepReport report;
  if (ctx_.device().is_meta()) {
    return report;
  }
  RETURN_IF_ERROR(Await(judged_, axes_));
  StepVerdict verdict;
  std::memcpy(&verdict, host_verdict_.host().bytes_data(), sizeof(verdict));
  report.loss_nats = verdict.loss_nats;
  report.gradient_norm = verdict.gradient_norm;
  const double* sums = host_sums_.host().data<double>();
  const bool counts = flags_.counts().elements() > 0;
  NonFiniteReport& nonfinite = report.nonfinite;
  for (int i = 0; i < store_.num_params(); ++i) {
    const int32_t count = counts ? host_counts_.host().data<int32_t>()[i] : 0;
    nonfinite.masked_gradients += count;
    if (count > 0 || !std::isfinite(sums[i])) {
      nonfinite.tensors.push_back(ParamId{i});
    }
  }
  nonfinite.found = verdict.is_finite == 0 || nonfinite.masked_gradients > 0;
  nonfinite.skipped = verdict.is_skipped != 0;
  return report;
}

Tensor GradSync::gradient_shard(GroupId id) const {
  CHECK(accumulate_ == Accumulation::kGradient) << "gradients were folded into the momentum";
  const GroupLayout& layout = store_.layout(id);
  // The shard takes the place of this rank's own contribution to it, which was sent before.
  const int64_t begin = is_sharded(layout) ? axes_.data().rank() * layout.shard_elements : 0;
  return own_[static_cast<size_t>(id.index)].buffer.View({layout.shard_elements}, DType::kF32,
                                                         begin * SizeOf(DType::kF32));
}

}  // namespace panthera
