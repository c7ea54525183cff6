#ifndef PANTHERA_MODEL_KEY_VALUE_CACHE_H_
#define PANTHERA_MODEL_KEY_VALUE_CACHE_H_

#include <cstdint>

#include "model/layers/attention.h"
#include "model/options.h"
#include "runtime/device/buffer.h"

namespace panthera {

// The keys and values of one sequence's tokens in every block, for generation. Owns its memory.
class KeyValueCache {
 public:
  // `kv_heads` of the model's are kept.
  KeyValueCache(Device device, MemoryLedger& ledger, const ModelOptions& options, int64_t kv_heads,
                DType dtype, int64_t capacity_tokens);

  int64_t capacity() const { return capacity_; }
  // Tokens held so far.
  int64_t length() const { return length_; }
  void Extend(int64_t tokens);
  void Clear() { length_ = 0; }
  LayerCache layer(int64_t index) const;

 private:
  int64_t capacity_;
  int64_t length_ = 0;
  Shape shape_;
  DType dtype_;
  Buffer buffer_;
};

}  // namespace panthera

#endif  // PANTHERA_MODEL_KEY_VALUE_CACHE_H_
