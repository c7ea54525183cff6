#include "tests/bench/kernel_case.h"

namespace panthera::bench {

std::vector<ModelShape> GpuModelShapes() {
  return {{.name = "124m",
           .tokens = 65536,
           .sequence = 2048,
           .width = 768,
           .heads = 12,
           .head_width = 64,
           .ffn_width = 2048,
           .vocab_size = 50257,
           .columns = 50304,
           .head_rows = 8192},
          {.name = "1.3b",
           .tokens = 32768,
           .sequence = 2048,
           .width = 2048,
           .heads = 16,
           .head_width = 128,
           .ffn_width = 5504,
           .vocab_size = 50257,
           .columns = 50304,
           .head_rows = 8192},
          {.name = "7b",
           .tokens = 16384,
           .sequence = 2048,
           .width = 4096,
           .heads = 32,
           .head_width = 128,
           .ffn_width = 11008,
           .vocab_size = 50257,
           .columns = 50304,
           .head_rows = 8192}};
}

ModelShape DryModelShape() {
  return {.name = "dry",
          .tokens = 64,
          .sequence = 32,
          .width = 128,
          .heads = 2,
          .head_width = 64,
          .ffn_width = 192,
          .vocab_size = 300,
          .columns = 320,
          .head_rows = 32};
}

}  // namespace panthera::bench
