#include "runtime/math/cublas_lt_gemm.h"

#include <cublasLt.h>

#include <bit>
#include <limits>
#include <optional>
#include <tuple>
#include <utility>
#include <vector>

#include "absl/container/flat_hash_map.h"
#include "absl/strings/str_cat.h"

#include "runtime/base/check.h"
#include "runtime/base/one_line.h"
#include "runtime/device/cuda_check.h"
#include "runtime/device/cuda_device.h"

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

// What makes two products the same to the library.
using MatrixKey = std::tuple<DType, int64_t, int64_t, int64_t, int64_t, int64_t, int64_t>;
using ProductKey = std::tuple<Transpose, Transpose, Accumulate, MatrixKey, MatrixKey, MatrixKey>;

MatrixKey KeyOf(const Matrix& x) {
  return {x.dtype, x.batch, x.rows, x.columns, x.row_stride, x.batch_stride, GemmAlignment(x)};
}

}  // namespace

class CublasLtGemm::Impl {
 public:
  explicit Impl(Device device) : device_(device) {
    CHECK_CUDA(cudaSetDevice(device.ordinal));
    CHECK_CUBLAS(cublasLtCreate(&handle_));
    const auto version = static_cast<int64_t>(cublasLtGetVersion());
    library_ = {.gpu = cuda::ModelName(device), .version = version};
  }
  Impl(const Impl&) = delete;
  Impl& operator=(const Impl&) = delete;
  ~Impl() { cublasLtDestroy(handle_); }

  void Enqueue(Stream& stream, const Product& p, std::byte* workspace) {
    CheckStream(stream);
    const Compiled& compiled = Compile(p);
    CHECK_CUBLAS(Multiply(stream, p, compiled.description, compiled.algorithm, workspace));
  }

  const GemmAlgorithmLibrary& library() const { return library_; }

  absl::Status UseAlgorithms(const GemmAlgorithms& algorithms) {
    const GemmAlgorithmLibrary& other = algorithms.library();
    if (!(other == library_)) {
      return absl::FailedPreconditionError(absl::StrCat(
          "the GEMM algorithms are those of cuBLASLt ", other.version, " on ", OneLine(other.gpu),
          ", this is cuBLASLt ", library_.version, " on ", library_.gpu));
    }
    algorithms_ = algorithms;
    compiled_.clear();
    return absl::OkStatus();
  }

  GemmAlgorithm FastestAlgorithm(Stream& stream, const Product& p, std::byte* workspace) {
    CheckStream(stream);
    const Description description(p);
    Event begin(device_, cuda::Timing::kMeasured);
    Event end(device_, cuda::Timing::kMeasured);
    const cublasLtMatmulAlgo_t* fastest = nullptr;
    float least = std::numeric_limits<float>::infinity();
    const std::vector<cublasLtMatmulAlgo_t> candidates = Propose(p, description, kCandidates);
    for (const cublasLtMatmulAlgo_t& candidate : candidates) {
      // The first run warms up, and shows whether the algorithm takes the product after all.
      if (Multiply(stream, p, description, candidate, workspace) != CUBLAS_STATUS_SUCCESS) {
        continue;
      }
      for (int run = 0; run < kMeasuredRuns; ++run) {
        begin.Record(stream);
        CHECK_CUBLAS(Multiply(stream, p, description, candidate, workspace));
        end.Record(stream);
        end.Synchronize();
        // Of equally fast ones the library's order decides.
        if (const float milliseconds = end.MillisecondsSince(begin); milliseconds < least) {
          least = milliseconds;
          fastest = &candidate;
        }
      }
    }
    CHECK(fastest != nullptr) << "no algorithm of cuBLASLt computes " << DescribeForm(p);
    return std::bit_cast<GemmAlgorithm>(*fastest);
  }

 private:
  static constexpr int kCandidates = 16;
  static constexpr int kMeasuredRuns = 5;

  // A product as the library is told of it.
  struct Description {
    explicit Description(const Product& p)
        : operation(DescribeOperation(p)), a(Describe(p.a)), b(Describe(p.b)), c(Describe(p.c)) {}

    Operation operation;
    Layout a;
    Layout b;
    Layout c;
  };
  struct Compiled {
    Description description;
    cublasLtMatmulAlgo_t algorithm;
  };

  // Scratch is handed from one product to the next in the order of their stream.
  void CheckStream(const Stream& stream) {
    if (stream_ == nullptr) {
      stream_ = stream.handle();
    }
    CHECK(stream_ == stream.handle()) << "products of one engine run on one stream";
  }

  cublasStatus_t Multiply(Stream& stream, const Product& p, const Description& description,
                          const cublasLtMatmulAlgo_t& algorithm, std::byte* workspace) {
    const float alpha = 1;
    const float beta = p.accumulate == Accumulate::kAdd ? 1 : 0;
    // In the library's column order: c^T = op(b)^T op(a)^T.
    return cublasLtMatmul(handle_, description.operation.get(), &alpha, p.b.data,
                          description.b.get(), p.a.data, description.a.get(), &beta, p.c.data,
                          description.c.get(), p.c.data, description.c.get(), &algorithm, workspace,
                          static_cast<size_t>(kWorkspaceBytes),
                          static_cast<cudaStream_t>(stream.handle()));
  }

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
    set(CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_A_BYTES, static_cast<uint32_t>(GemmAlignment(p.b)));
    set(CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_B_BYTES, static_cast<uint32_t>(GemmAlignment(p.a)));
    set(CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_C_BYTES, static_cast<uint32_t>(GemmAlignment(p.c)));
    set(CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_D_BYTES, static_cast<uint32_t>(GemmAlignment(p.c)));
    return preference;
  }

  const Compiled& Compile(const Product& p) {
    const ProductKey key{p.transpose_a, p.transpose_b, p.accumulate,
                         KeyOf(p.a),    KeyOf(p.b),    KeyOf(p.c)};
    const auto found = compiled_.find(key);
    if (found != compiled_.end()) {
      return *found->second;
    }
    auto compiled = std::make_unique<Compiled>(Compiled{Description(p), {}});
    if (const std::optional<GemmAlgorithm> algorithm = algorithms_.Find(p)) {
      compiled->algorithm = std::bit_cast<cublasLtMatmulAlgo_t>(*algorithm);
      CheckAlgorithm(p, *compiled);
    } else {
      compiled->algorithm = Propose(p, compiled->description, 1).front();
    }
    return *compiled_.emplace(key, std::move(compiled)).first->second;
  }

  // At least one algorithm, and up to `most`, the best by the library's own estimate first.
  std::vector<cublasLtMatmulAlgo_t> Propose(const Product& p, const Description& description,
                                            int most) {
    const Preference preference = Prefer(p);
    std::vector<cublasLtMatmulHeuristicResult_t> results(static_cast<size_t>(most));
    int count = 0;
    CHECK_CUBLAS(cublasLtMatmulAlgoGetHeuristic(
        handle_, description.operation.get(), description.b.get(), description.a.get(),
        description.c.get(), description.c.get(), preference.get(), most, results.data(), &count));
    std::vector<cublasLtMatmulAlgo_t> algorithms;
    for (int i = 0; i < count; ++i) {
      const cublasLtMatmulHeuristicResult_t& result = results[static_cast<size_t>(i)];
      if (result.state == CUBLAS_STATUS_SUCCESS &&
          result.workspaceSize <= static_cast<size_t>(kWorkspaceBytes)) {
        algorithms.push_back(result.algo);
      }
    }
    CHECK(!algorithms.empty()) << "cuBLASLt has no algorithm for " << DescribeForm(p);
    return algorithms;
  }

  // Aborts unless the library takes the algorithm that it was told to use for a product.
  void CheckAlgorithm(const Product& p, const Compiled& compiled) {
    const Description& description = compiled.description;
    cublasLtMatmulHeuristicResult_t result{};
    const cublasStatus_t status = cublasLtMatmulAlgoCheck(
        handle_, description.operation.get(), description.b.get(), description.a.get(),
        description.c.get(), description.c.get(), &compiled.algorithm, &result);
    CHECK(status == CUBLAS_STATUS_SUCCESS &&
          result.workspaceSize <= static_cast<size_t>(kWorkspaceBytes))
        << "cuBLASLt does not take the stored algorithm for " << DescribeForm(p)
        << "; the file of GEMM algorithms was damaged";
  }

  Device device_;
  cublasLtHandle_t handle_ = nullptr;
  GemmAlgorithmLibrary library_;
  GemmAlgorithms algorithms_;
  cuda::StreamHandle stream_ = nullptr;
  absl::flat_hash_map<ProductKey, std::unique_ptr<Compiled>> compiled_;
};

CublasLtGemm::CublasLtGemm(Device device) : impl_(std::make_unique<Impl>(device)) {}
CublasLtGemm::~CublasLtGemm() = default;

void CublasLtGemm::Enqueue(Stream& stream, const Product& product, std::byte* workspace) {
  impl_->Enqueue(stream, product, workspace);
}

const GemmAlgorithmLibrary& CublasLtGemm::library() const { return impl_->library(); }

absl::Status CublasLtGemm::UseAlgorithms(const GemmAlgorithms& algorithms) {
  return impl_->UseAlgorithms(algorithms);
}

GemmAlgorithm CublasLtGemm::FastestAlgorithm(Stream& stream, const Product& product,
                                             std::byte* workspace) {
  return impl_->FastestAlgorithm(stream, product, workspace);
}

}  // namespace panthera
