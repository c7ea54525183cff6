#include "tests/simt/include/cublasLt.h"

#include <algorithm>
#include <cstring>
#include <iterator>

#include "runtime/base/dtype.h"
#include "tests/simt/emulator/device_state.h"

struct SimtCublasLt {};
struct SimtMatmul {
  cublasOperation_t a = CUBLAS_OP_N;
  cublasOperation_t b = CUBLAS_OP_N;
};
struct SimtMatrixLayout {
  cudaDataType_t type;
  uint64_t rows;
  uint64_t columns;
  int64_t leading;
  int32_t batch = 1;
  int64_t batch_stride = 0;
};
struct SimtPreference {
  uint64_t workspace_bytes = 0;
};

namespace {

// The algorithms, best by the library's estimate first, which errs: the fastest one that
// works is the last but one. Among those proposed are some that cannot be used: one needs more
// workspace than was allowed, one has a state that says so, one is refused when it is called.
struct Algorithm {
  uint64_t number;
  int64_t milliseconds;
  size_t extra_workspace;
  cublasStatus_t proposed;
  cublasStatus_t multiplied;
};
constexpr Algorithm kAlgorithms[] = {
    {11, 4, 0, CUBLAS_STATUS_SUCCESS, CUBLAS_STATUS_SUCCESS},
    {12, 1, 1, CUBLAS_STATUS_SUCCESS, CUBLAS_STATUS_SUCCESS},
    {13, 3, 0, CUBLAS_STATUS_SUCCESS, CUBLAS_STATUS_SUCCESS},
    {14, 1, 0, CUBLAS_STATUS_NOT_SUPPORTED, CUBLAS_STATUS_SUCCESS},
    {15, 1, 0, CUBLAS_STATUS_SUCCESS, CUBLAS_STATUS_NOT_SUPPORTED},
    {16, 2, 0, CUBLAS_STATUS_SUCCESS, CUBLAS_STATUS_SUCCESS},
    {17, 2, 0, CUBLAS_STATUS_SUCCESS, CUBLAS_STATUS_SUCCESS},
};

const Algorithm* Find(const cublasLtMatmulAlgo_t& algorithm) {
  const auto* const found =
      std::find_if(std::begin(kAlgorithms), std::end(kAlgorithms),
                   [&](const Algorithm& known) { return known.number == algorithm.data[0]; });
  return found == std::end(kAlgorithms) ? nullptr : found;
}

// Enough to show that somebody else keeps something there.
constexpr size_t kTouchedWorkspace = 4096;

// One matrix of a batch in column order.
struct Operand {
  const void* data;
  SimtMatrixLayout layout;
  cublasOperation_t operation = CUBLAS_OP_N;

  uint64_t op_rows() const { return operation == CUBLAS_OP_T ? layout.columns : layout.rows; }
  uint64_t op_columns() const { return operation == CUBLAS_OP_T ? layout.rows : layout.columns; }
  int64_t index(int64_t batch, uint64_t row, uint64_t column) const {
    const uint64_t r = operation == CUBLAS_OP_T ? column : row;
    const uint64_t c = operation == CUBLAS_OP_T ? row : column;
    return batch * layout.batch_stride + static_cast<int64_t>(c) * layout.leading +
           static_cast<int64_t>(r);
  }
  float at(int64_t batch, uint64_t row, uint64_t column) const {
    const int64_t i = index(batch, row, column);
    return layout.type == CUDA_R_16BF
               ? static_cast<float>(static_cast<const panthera::BF16*>(data)[i])
               : static_cast<const float*>(data)[i];
  }
};

void Store(void* data, cudaDataType_t type, int64_t index, float value) {
  if (type == CUDA_R_16BF) {
    static_cast<panthera::BF16*>(data)[index] = panthera::BF16(value);
  } else {
    static_cast<float*>(data)[index] = value;
  }
}

void Multiply(const Operand& a, const Operand& b, float alpha, float beta, const Operand& c,
              void* d) {
  for (int32_t batch = 0; batch < c.layout.batch; ++batch) {
    for (uint64_t column = 0; column < c.layout.columns; ++column) {
      for (uint64_t row = 0; row < c.layout.rows; ++row) {
        float sum = 0;
        for (uint64_t k = 0; k < a.op_columns(); ++k) {
          sum += a.at(batch, row, k) * b.at(batch, k, column);
        }
        const float old = beta == 0 ? 0.0F : beta * c.at(batch, row, column);
        Store(d, c.layout.type, c.index(batch, row, column), alpha * sum + old);
      }
    }
  }
}

}  // namespace

size_t cublasLtGetVersion() { return 130100; }

cublasStatus_t cublasLtCreate(cublasLtHandle_t* handle) {
  *handle = new SimtCublasLt;
  return CUBLAS_STATUS_SUCCESS;
}
cublasStatus_t cublasLtDestroy(cublasLtHandle_t handle) {
  delete handle;
  return CUBLAS_STATUS_SUCCESS;
}

cublasStatus_t cublasLtMatmulDescCreate(cublasLtMatmulDesc_t* description,
                                        cublasComputeType_t /*compute*/, cudaDataType_t /*scale*/) {
  *description = new SimtMatmul;
  return CUBLAS_STATUS_SUCCESS;
}
cublasStatus_t cublasLtMatmulDescSetAttribute(cublasLtMatmulDesc_t description,
                                              cublasLtMatmulDescAttributes_t attribute,
                                              const void* value, size_t bytes) {
  if (bytes != sizeof(cublasOperation_t)) {
    return CUBLAS_STATUS_INVALID_VALUE;
  }
  const auto operation = *static_cast<const cublasOperation_t*>(value);
  (attribute == CUBLASLT_MATMUL_DESC_TRANSA ? description->a : description->b) = operation;
  return CUBLAS_STATUS_SUCCESS;
}
cublasStatus_t cublasLtMatmulDescDestroy(cublasLtMatmulDesc_t description) {
  delete description;
  return CUBLAS_STATUS_SUCCESS;
}

cublasStatus_t cublasLtMatrixLayoutCreate(cublasLtMatrixLayout_t* layout, cudaDataType_t type,
                                          uint64_t rows, uint64_t columns, int64_t leading) {
  if (leading < static_cast<int64_t>(rows)) {
    return CUBLAS_STATUS_INVALID_VALUE;
  }
  *layout = new SimtMatrixLayout{type, rows, columns, leading};
  return CUBLAS_STATUS_SUCCESS;
}
cublasStatus_t cublasLtMatrixLayoutSetAttribute(cublasLtMatrixLayout_t layout,
                                                cublasLtMatrixLayoutAttribute_t attribute,
                                                const void* value, size_t bytes) {
  if (attribute == CUBLASLT_MATRIX_LAYOUT_BATCH_COUNT && bytes == sizeof(int32_t)) {
    layout->batch = *static_cast<const int32_t*>(value);
    return CUBLAS_STATUS_SUCCESS;
  }
  if (attribute == CUBLASLT_MATRIX_LAYOUT_STRIDED_BATCH_OFFSET && bytes == sizeof(int64_t)) {
    layout->batch_stride = *static_cast<const int64_t*>(value);
    return CUBLAS_STATUS_SUCCESS;
  }
  return CUBLAS_STATUS_INVALID_VALUE;
}
cublasStatus_t cublasLtMatrixLayoutDestroy(cublasLtMatrixLayout_t layout) {
  delete layout;
  return CUBLAS_STATUS_SUCCESS;
}

cublasStatus_t cublasLtMatmulPreferenceCreate(cublasLtMatmulPreference_t* preference) {
  *preference = new SimtPreference;
  return CUBLAS_STATUS_SUCCESS;
}
cublasStatus_t cublasLtMatmulPreferenceSetAttribute(cublasLtMatmulPreference_t preference,
                                                    cublasLtMatmulPreferenceAttributes_t attribute,
                                                    const void* value, size_t bytes) {
  const bool is_workspace = attribute == CUBLASLT_MATMUL_PREF_MAX_WORKSPACE_BYTES;
  if (bytes != (is_workspace ? sizeof(uint64_t) : sizeof(uint32_t))) {
    return CUBLAS_STATUS_INVALID_VALUE;
  }
  if (is_workspace) {
    preference->workspace_bytes = *static_cast<const uint64_t*>(value);
  }
  return CUBLAS_STATUS_SUCCESS;
}
cublasStatus_t cublasLtMatmulPreferenceDestroy(cublasLtMatmulPreference_t preference) {
  delete preference;
  return CUBLAS_STATUS_SUCCESS;
}

cublasStatus_t cublasLtMatmulAlgoGetHeuristic(cublasLtHandle_t /*handle*/,
                                              cublasLtMatmulDesc_t description,
                                              cublasLtMatrixLayout_t a, cublasLtMatrixLayout_t b,
                                              cublasLtMatrixLayout_t c, cublasLtMatrixLayout_t d,
                                              cublasLtMatmulPreference_t preference, int requested,
                                              cublasLtMatmulHeuristicResult_t* results,
                                              int* count) {
  const Operand left{nullptr, *a, description->a};
  const Operand right{nullptr, *b, description->b};
  *count = 0;
  if (left.op_rows() != c->rows || right.op_columns() != c->columns ||
      left.op_columns() != right.op_rows() || c->type != d->type || a->batch != c->batch ||
      b->batch != c->batch || requested < 1) {
    return CUBLAS_STATUS_INVALID_VALUE;
  }
  // As the library's table of supported types has it.
  if (a->type != b->type || (a->type == CUDA_R_32F && c->type != CUDA_R_32F)) {
    return CUBLAS_STATUS_NOT_SUPPORTED;
  }
  for (const Algorithm& algorithm : kAlgorithms) {
    if (*count < requested) {
      cublasLtMatmulHeuristicResult_t& result = results[(*count)++];
      result = {};
      result.algo.data[0] = algorithm.number;
      result.workspaceSize = preference->workspace_bytes + algorithm.extra_workspace;
      result.state = algorithm.proposed;
    }
  }
  return CUBLAS_STATUS_SUCCESS;
}

cublasStatus_t cublasLtMatmulAlgoCheck(cublasLtHandle_t /*handle*/,
                                       cublasLtMatmulDesc_t /*description*/,
                                       cublasLtMatrixLayout_t /*a*/, cublasLtMatrixLayout_t /*b*/,
                                       cublasLtMatrixLayout_t /*c*/, cublasLtMatrixLayout_t /*d*/,
                                       const cublasLtMatmulAlgo_t* algorithm,
                                       cublasLtMatmulHeuristicResult_t* result) {
  const Algorithm* const known = Find(*algorithm);
  if (known == nullptr) {
    return CUBLAS_STATUS_INVALID_VALUE;
  }
  *result = {};
  return known->proposed;
}

cublasStatus_t cublasLtMatmul(cublasLtHandle_t /*handle*/, cublasLtMatmulDesc_t description,
                              const void* alpha, const void* a, cublasLtMatrixLayout_t a_layout,
                              const void* b, cublasLtMatrixLayout_t b_layout, const void* beta,
                              const void* c, cublasLtMatrixLayout_t c_layout, void* d,
                              cublasLtMatrixLayout_t /*d_layout*/,
                              const cublasLtMatmulAlgo_t* algorithm, void* workspace,
                              size_t workspace_bytes, cudaStream_t stream) {
  const Algorithm* const known = Find(*algorithm);
  if (known == nullptr) {
    return CUBLAS_STATUS_INVALID_VALUE;
  }
  if (known->multiplied != CUBLAS_STATUS_SUCCESS) {
    return known->multiplied;
  }
  const Operand left{a, *a_layout, description->a};
  const Operand right{b, *b_layout, description->b};
  const Operand old{c, *c_layout};
  // Scalars are read when the call is made.
  const float scale = *static_cast<const float*>(alpha);
  const float keep = *static_cast<const float*>(beta);
  simt::DeviceState::Get().Enqueue(stream, [=] {
    simt::DeviceState::Get().PassTime(known->milliseconds);
    std::memset(workspace, 0xff, std::min(workspace_bytes, kTouchedWorkspace));
    Multiply(left, right, scale, keep, old, d);
  });
  return CUBLAS_STATUS_SUCCESS;
}
