// Parameters of every kind for tests of optimizers, and access to them by logical element.
#ifndef PANTHERA_TESTS_OPTIM_SMALL_MODEL_H_
#define PANTHERA_TESTS_OPTIM_SMALL_MODEL_H_

#include <cstdint>
#include <deque>
#include <memory>
#include <string>
#include <vector>

#include "absl/functional/function_ref.h"

#include "optim/optimizer.h"
#include "runtime/comm/mesh_axes.h"
#include "runtime/math/context.h"
#include "runtime/params/parameter_store.h"

namespace panthera::testing {

// The embedding is named by its own group; the others follow in this order.
inline constexpr GroupId kTable{0};
inline constexpr GroupId kBlock0{1};
inline constexpr GroupId kBlock1{2};
inline constexpr GroupId kVectors{3};

inline constexpr int64_t kTableRows = 13;

// A table of 13 rows of 37; two blocks with matrices below, above and across block boundaries; one
// gain and one bias.
void AddSmallModel(ParameterStore& store);
// What one of `parts` tensor-parallel ranks has of it: rows of the table, of "q0" and "k0", columns
// of "up0" and "up1", and the vectors as they are. Parts of a tensor need not be equal.
void AddPartOfSmallModel(ParameterStore& store, int part, int parts);

// One value for each logical element: [param][element].
using Elements = std::vector<std::vector<float>>;
using ElementFunction = absl::FunctionRef<float(ParamId, int64_t)>;

// The same number in [-1, 1) for the same arguments.
float Noise(uint64_t seed, ParamId id, int64_t element);
// A whole number from -8 to 8.
float SmallInteger(uint64_t seed, ParamId id, int64_t element);

Elements EmptyElements(const ParameterStore& store);

// One rank's parameters and optimizer, on any device. Elements are those of logical tensors.
struct Worker {
  // With this rank's part of the small model.
  Worker(Device device, MemoryLedger& ledger, MeshAxes axes, const OptimOptions& options);
  Worker(Device device, MemoryLedger& ledger, MeshAxes axes, const OptimOptions& options,
         absl::FunctionRef<void(ParameterStore&)> add);

  // Sets this rank's shards; rounded to nearest.
  void SetWeights(ElementFunction value);
  // What the shard of a group would hold: `value` in the places of elements, `padding` elsewhere.
  std::vector<float> ShardOf(GroupId group, ElementFunction value, float padding) const;
  // A tensor on the device, alive as long as the worker. It is written by ctx.compute(), which
  // nobody waits for.
  Tensor OnDevice(const std::vector<float>& values, const Shape& shape);
  // The mean over ranks is not taken: contributions[r] = value(param, element, r), padding NaN.
  Tensor Contributions(GroupId group, int64_t ranks,
                       absl::FunctionRef<float(ParamId, int64_t, int64_t)> value);
  // Enqueues on ctx.compute() to copy values to a tensor of the device.
  void Write(const std::vector<float>& values, const Tensor& to);
  // Folds one micro-step of `ranks` equal parts.
  void Fold(MicroStepPlace place, double weight, int64_t ranks,
            absl::FunctionRef<float(ParamId, int64_t, int64_t)> value, const Tensor& left_out = {});
  // A step with gradients for all groups, multiplied by `scale`.
  void StepWithGradients(StepInput input, ElementFunction value, float scale = 1);
  // Copies this rank's elements, with all stored precision.
  void CopyWeights(Elements& out);
  void CopyState(const char* name, Elements& out);
  // The elements of a segment of a shard, which lie at `from`.
  void CopyElements(const ShardSegment& segment, const float* from, Elements& out) const;
  // The bytes of all groups' weights as this rank has them of all ranks, padding included.
  std::string ReplicaBytes();

  Communicator& comm;  // data-parallel
  Context ctx;
  ParameterStore store;
  std::unique_ptr<Optimizer> optimizer;

 private:
  std::deque<Buffer> device_memory_;
  std::deque<std::vector<float>> written_;  // alive until the device has copied them
};

// Finished options of an algorithm with the accumulation that suits it.
OptimOptions OptionsFor(Algorithm algorithm);

}  // namespace panthera::testing

#endif  // PANTHERA_TESTS_OPTIM_SMALL_MODEL_H_
