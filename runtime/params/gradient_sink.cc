#include "runtime/params/gradient_sink.h"

#include "runtime/base/check.h"

namespace panthera {

GradientTarget FusedTarget(GradientSink& sink, std::span<const ParamId> ids) {
  CHECK(!ids.empty());
  GradientTarget fused = sink.Target(ids[0]);
  int64_t rows = fused.gradient.size(0);
  for (size_t i = 1; i < ids.size(); ++i) {
    const GradientTarget next = sink.Target(ids[i]);
    const Tensor& gradient = next.gradient;
    CHECK_EQ(gradient.shape().WithLeading(1), fused.gradient.shape().WithLeading(1))
        << "fused parameters must have rows of one width";
    CHECK(next.accumulate == fused.accumulate)
        << "parameter " << ids[i].index << " was written before, parameter " << ids[0].index
        << " was not (or the reverse): fused parameters are always written together";
    if (!gradient.device().is_meta()) {
      const std::byte* end =
          fused.gradient.bytes_data() +
          rows * fused.gradient.shape().WithLeading(1).elements() * SizeOf(fused.gradient.dtype());
      CHECK_EQ(static_cast<const void*>(gradient.bytes_data()), static_cast<const void*>(end))
          << "the gradients of fused parameters must lie next to each other";
    }
    rows += gradient.size(0);
  }
  fused.gradient = Tensor(fused.gradient.bytes_data(), fused.gradient.shape().WithLeading(rows),
                          fused.gradient.dtype(), fused.gradient.device());
  return fused;
}

}  // namespace panthera
