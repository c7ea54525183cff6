#include "launcher/model_instance.h"

#include <utility>

namespace panthera {

ModelInstance::ModelInstance(const ModelOptions& options, WeightStorage storage,
                             const MeshAxes& axes, std::unique_ptr<Context> context, int64_t rows,
                             LowBits low_bits)
    : dtype_(ValueDType(storage)), context_(std::move(context)), model_(options, axes, params_) {
  params_.Allocate(context_->device(), context_->ledger(), axes.data(), storage, low_bits);
  model_.Allocate(context_->device(), context_->ledger(), dtype_, rows);
}

}  // namespace panthera
