#include "launcher/model_instance.h"

#include <utility>

namespace panthera {

ModelInstance::ModelInstance(const ModelOptions& options, WeightStorage storage,
                             Communicator& data_parallel, std::unique_ptr<Context> context,
                             LowBits low_bits)
    : dtype_(ValueDType(storage)), context_(std::move(context)), model_(options, params_) {
  params_.Allocate(context_->device(), context_->ledger(), data_parallel, storage, low_bits);
  model_.Allocate(context_->device(), context_->ledger());
}

}  // namespace panthera
