#include "runtime/math/cublas_lt_gemm.h"

#include <cublasLt.h>

#include <algorithm>
#include <tuple>
#include <utility>

#include "absl/container/flat_hash_map.h"

#include "runtime/base/check.h"
#include "runtime/device/cuda_check.h"

#define CHECK_CUBLAS(call)                                                                       \
  do {                                                                                           \
    const cublasStatus_t cublas_status = (call);                                                 \
    CHECK_EQ(static_cast<int>(cublas_status), static_cast<int>(CUBLAS_STATUS_SUCCESS)) << #call; \
  } while (false)

namespace panthera {
namespace {

cudaDataType_t LibraryType(DType dtype) { return dtype == DType::kBF16 ? CUDA_R_16BF : CUDA_R_32F; }

// Owns one of the library's descriptors.
template <typename Handle, cublasStatus_t (*kDestroy)(Handle)>
class Descriptor {
 public:
  Descriptor() = default;
  Descriptor(Descriptor&& other) noexcept : handle_(std::exchange(other.handle_, nullptr)) {}
  Descriptor(const Descriptor&) = delete;
  Descriptor& operator=(const Descriptor&) = delete;
  ~Descriptor() {
    if (handle_ != nullptr) {
      kDestroy(handle_);
    }
  }
  Handle* slot() { return &handle_; }
  Handle get() const { return handle_; }

 private:
  Handle handle_ = nullptr;
};
using Operation = Descriptor<cublasLtMatmulDesc_t, &cublasLtMatmulDescDestroy>;
using Layout = Descriptor<cublasLtMatrixLayout_t, &cublasLtMatrixLayoutDestroy>;
using Preference = Descriptor<cublasLtMatmulPreference_t, &cublasLtMatmulPreferenceDestroy>;

// A row-major matrix is its transpose in the column order of the library.
Layout Describe(const Matrix& x) {
  Layout layout;
  CHECK_CUBLAS(cublasLtMatrixLayoutCreate(layout.slot(), LibraryType(x.dtype),
                                          static_cast<uint64_t>(x.columns),
                                          static_cast<uint64_t>(x.rows), x.row_stride));
  const auto batch = static_cast<int32_t>(x.batch);
  const int64_t stride = x.batch_stride;
  CHECK_CUBLAS(cublasLtMatrixLayoutSetAttribute(layout.get(), CUBLASLT_MATRIX_LAYOUT_BATCH_COUNT,
                                                &batch, sizeof(batch)));
  CHECK_CUBLAS(cublasLtMatrixLayoutSetAttribute(
      layout.get(), CUBLASLT_MATRIX_LAYOUT_STRIDED_BATCH_OFFSET, &stride, sizeof(stride)));
  return layout;
}

// The largest power of two up to 256 that divides the matrix's address and its strides in bytes.
uint32_t Alignment(const Matrix& x) {
  const int64_t size = SizeOf(x.dtype);
  uint64_t bits =
      reinterpret_cast<uintptr_t>(x.data) | static_cast<uint64_t>(x.row_stride * size) | 256U;
  if (x.batch > 1) {
    bits |= static_cast<uint64_t>(x.batch_stride * size);
  }
  return static_cast<uint32_t>(bits & (~bits + 1));
}

// What makes two products the same to the library.
using MatrixKey = std::tuple<DType, int64_t, int64_t, int64_t, int64_t, int64_t, uint32_t>;
using ProductKey = std::tuple<Transpose, Transpose, Accumulate, MatrixKey, MatrixKey, MatrixKey>;

MatrixKey KeyOf(const Matrix& x) {
  return {x.dtype, x.batch, x.rows, x.columns, x.row_stride, x.batch_stride, Alignment(x)};
}

}  // namespace

class CublasLtGemm::Impl {
 public:
  explicit Impl(Device device) {
    CHECK_CUDA(cudaSetDevice(device.ordinal));
    CHECK_CUBLAS(cublasLtCreate(&library_));
  }
  Impl(const Impl&) = delete;
  Impl& operator=(const Impl&) = delete;
  ~Impl() { cublasLtDestroy(library_); }

  void Enqueue(Stream& stream, const Product& p, std::byte* workspace) {
    const Compiled& compiled = Compile(p);
    const float alpha = 1;
    const float beta = p.accumulate == Accumulate::kAdd ? 1 : 0;
    // In the library's column order: c^T = op(b)^T op(a)^T.
    CHECK_CUBLAS(cublasLtMatmul(library_, compiled.operation.get(), &alpha, p.b.data,
                                compiled.b.get(), p.a.data, compiled.a.get(), &beta, p.c.data,
                                compiled.c.get(), p.c.data, compiled.c.get(), &compiled.algorithm,
                                workspace, static_cast<size_t>(kWorkspaceBytes),
                                static_cast<cudaStream_t>(stream.handle())));
  }

 private:
  struct Compiled {
    Operation operation;
    Layout a;
    Layout b;
    Layout c;
    cublasLtMatmulAlgo_t algorithm{};
  };

  static Operation DescribeOperation(const Product& p) {
    Operation operation;
    CHECK_CUBLAS(cublasLtMatmulDescCreate(operation.slot(), CUBLAS_COMPUTE_32F, CUDA_R_32F));
    const auto set = [&](cublasLtMatmulDescAttributes_t attribute, Transpose transpose) {
      const cublasOperation_t value = transpose == Transpose::kYes ? CUBLAS_OP_T : CUBLAS_OP_N;
      CHECK_CUBLAS(
          cublasLtMatmulDescSetAttribute(operation.get(), attribute, &value, sizeof(value)));
    };
    set(CUBLASLT_MATMUL_DESC_TRANSA, p.transpose_b);
    set(CUBLASLT_MATMUL_DESC_TRANSB, p.transpose_a);
    return operation;
  }

  static Preference Prefer(const Product& p) {
    Preference preference;
    CHECK_CUBLAS(cublasLtMatmulPreferenceCreate(preference.slot()));
    const auto set = [&](cublasLtMatmulPreferenceAttributes_t attribute, const auto& value) {
      CHECK_CUBLAS(
          cublasLtMatmulPreferenceSetAttribute(preference.get(), attribute, &value, sizeof(value)));
    };
    set(CUBLASLT_MATMUL_PREF_MAX_WORKSPACE_BYTES, static_cast<uint64_t>(kWorkspaceBytes));
    set(CUBLASLT_MATMUL_PREF_REDUCTION_SCHEME_MASK,
        static_cast<uint32_t>(CUBLASLT_REDUCTION_SCHEME_COMPUTE_TYPE));
    set(CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_A_BYTES, Alignment(p.b));
    set(CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_B_BYTES, Alignment(p.a));
    set(CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_C_BYTES, Alignment(p.c));
    set(CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_D_BYTES, Alignment(p.c));
    return preference;
  }

  const Compiled& Compile(const Product& p) {
    const ProductKey key{p.transpose_a, p.transpose_b, p.accumulate,
                         KeyOf(p.a),    KeyOf(p.b),    KeyOf(p.c)};
    const auto found = compiled_.find(key);
    if (found != compiled_.end()) {
      return *found->second;
    }
    auto compiled = std::make_unique<Compiled>(Compiled{
        .operation = DescribeOperation(p),
        .a = Describe(p.a),
        .b = Describe(p.b),
        .c = Describe(p.c),
    });
    const Preference preference = Prefer(p);
    cublasLtMatmulHeuristicResult_t result{};
    int count = 0;
    CHECK_CUBLAS(cublasLtMatmulAlgoGetHeuristic(
        library_, compiled->operation.get(), compiled->b.get(), compiled->a.get(),
        compiled->c.get(), compiled->c.get(), preference.get(), 1, &result, &count));
    CHECK_GE(count, 1) << "cuBLASLt has no algorithm for a product of " << p.c.rows << " x "
                       << p.c.columns << " of " << p.a.dtype << " to " << p.c.dtype;
    compiled->algorithm = result.algo;
    return *compiled_.emplace(key, std::move(compiled)).first->second;
  }

  cublasLtHandle_t library_ = nullptr;
  absl::flat_hash_map<ProductKey, std::unique_ptr<Compiled>> compiled_;
};

CublasLtGemm::CublasLtGemm(Device device) : impl_(std::make_unique<Impl>(device)) {}
CublasLtGemm::~CublasLtGemm() = default;

void CublasLtGemm::Enqueue(Stream& stream, const Product& product, std::byte* workspace) {
  impl_->Enqueue(stream, product, workspace);
}

}  // namespace panthera
