#ifndef PANTHERA_OPTIM_STATE_SHARDS_H_
#define PANTHERA_OPTIM_STATE_SHARDS_H_

#include <cstdint>
#include <map>
#include <span>
#include <vector>

#include "optim/optimizer.h"
#include "optim/options.h"
#include "runtime/device/buffer.h"
#include "runtime/math/context.h"
#include "runtime/params/parameter_store.h"

namespace panthera {

// For each of an optimizer's groups a tensor like this rank's shard, zero at first. Owns the
// memory, entered under `category` and `name` (a literal).
class StateShards {
 public:
  StateShards(Context& ctx, const ParameterStore& store, std::span<const GroupId> groups,
              MemoryCategory category, const char* name, DType dtype);

  // Of one of the groups.
  const Tensor& shard(GroupId id) const { return shards_.at(id); }
  // visit(name, group, shard) for every one of them, in order.
  void ForEach(Optimizer::StateVisitor visit) const;

 private:
  const char* name_;
  std::vector<Buffer> buffers_;
  std::map<GroupId, Tensor> shards_;
};

// The type of the state that optim.momentum names.
DType StateDType(MomentumStorage storage);
// Element begin + i = in[i], rounded to nearest (bf16), or 0 where |in[i]| < 2^-126.
void StoreState(const Tensor& tensor, int64_t begin, int64_t count, const float* in);
// momentum[i] = keep * momentum[i] + take * gradient[i].
void BlendRow(float keep, float take, const float* gradient, int64_t count, float* momentum);
// theta[i] = ShrinkTowards(centre, factor, theta[i]).
void ShrinkRow(float centre, float factor, int64_t count, float* theta);
// The sum of in[i]^2: fp32 inside a chunk (see SumTerms).
double SumOfSquares(const float* in, int64_t count);

}  // namespace panthera

#endif  // PANTHERA_OPTIM_STATE_SHARDS_H_
