#include "model/key_value_cache.h"

namespace panthera {

KeyValueCache::KeyValueCache(Device device, MemoryLedger& ledger, const ModelOptions& options,
                             int64_t kv_heads, DType dtype, int64_t capacity_tokens)
    : capacity_(capacity_tokens),
      shape_({1, capacity_tokens, kv_heads, options.head_width}),
      dtype_(dtype),
      buffer_(device, ledger, MemoryCategory::kActivations, "key/value cache",
              2 * options.layers * shape_.elements() * SizeOf(dtype)) {}

void KeyValueCache::Extend(int64_t tokens) {
  CHECK_LE(length_ + tokens, capacity_);
  length_ += tokens;
}

LayerCache KeyValueCache::layer(int64_t index) const {
  const int64_t bytes = shape_.elements() * SizeOf(dtype_);
  return {.keys = buffer_.View(shape_, dtype_, 2 * index * bytes),
          .values = buffer_.View(shape_, dtype_, (2 * index + 1) * bytes)};
}

}  // namespace panthera
