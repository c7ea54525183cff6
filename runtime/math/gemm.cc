#include "runtime/math/gemm.h"

#include <algorithm>
#include <mutex>
#include <tuple>
#include <utility>

#include "absl/container/flat_hash_map.h"
#include "absl/container/flat_hash_set.h"
#include <oneapi/dnnl/dnnl.hpp>

#include "runtime/base/check.h"
#include "runtime/base/parallel_for.h"
#include "runtime/math/cublas_lt_gemm.h"
#include "runtime/math/gemm_algorithms.h"

namespace panthera {
namespace {

struct Extent {
  int64_t m;
  int64_t n;
  int64_t k;
};

int64_t OpRows(Transpose transpose, const Matrix& x) {
  return transpose == Transpose::kYes ? x.columns : x.rows;
}
int64_t OpColumns(Transpose transpose, const Matrix& x) {
  return transpose == Transpose::kYes ? x.rows : x.columns;
}

Extent CheckProduct(const Product& p) {
  const Extent extent{OpRows(p.transpose_a, p.a), OpColumns(p.transpose_b, p.b),
                      OpColumns(p.transpose_a, p.a)};
  CHECK_EQ(OpRows(p.transpose_b, p.b), extent.k) << "inner sizes of a product";
  CHECK_EQ(p.c.rows, extent.m) << "rows of a product";
  CHECK_EQ(p.c.columns, extent.n) << "columns of a product";
  CHECK_EQ(p.a.batch, p.c.batch);
  CHECK_EQ(p.b.batch, p.c.batch);
  CHECK_EQ(p.a.dtype, p.b.dtype);
  CHECK(p.a.dtype == DType::kF32 || p.a.dtype == DType::kBF16) << Name(p.a.dtype);
  CHECK(p.c.dtype == DType::kF32 || p.c.dtype == DType::kBF16) << Name(p.c.dtype);
  return extent;
}

bool IsEmpty(const Extent& extent, const Matrix& c) {
  return extent.m == 0 || extent.n == 0 || c.batch == 0;
}

// Where widened copies and the library's own scratch lie inside a product's scratch.
struct ScratchPlan {
  int64_t wide_a = 0;
  int64_t wide_b = 0;
  int64_t wide_c = 0;
  int64_t library = 0;

  int64_t total() const { return wide_a + wide_b + wide_c + library; }
};

int64_t WideBytes(const Matrix& x) {
  return RoundUp(x.batch * x.rows * x.columns * SizeOf(DType::kF32), Arena::kAlignmentBytes);
}

// The same matrix, dense, in fp32, at `data`.
Matrix Widened(const Matrix& x, std::byte* data) {
  Matrix wide = x;
  wide.data = data;
  wide.dtype = DType::kF32;
  wide.row_stride = x.columns;
  wide.batch_stride = x.rows * x.columns;
  return wide;
}

template <typename To, typename From>
void ConvertElements(const Matrix& from, const Matrix& to) {
  ParallelFor(from.batch * from.rows, 16, [&](int64_t begin, int64_t end) {
    for (int64_t row = begin; row < end; ++row) {
      const int64_t b = row / from.rows;
      const int64_t r = row % from.rows;
      const From* in =
          reinterpret_cast<const From*>(from.data) + b * from.batch_stride + r * from.row_stride;
      To* out = reinterpret_cast<To*>(to.data) + b * to.batch_stride + r * to.row_stride;
      for (int64_t c = 0; c < from.columns; ++c) {
        out[c] = static_cast<To>(static_cast<float>(in[c]));
      }
    }
  });
}

dnnl::memory::data_type LibraryType(DType dtype) {
  return dtype == DType::kBF16 ? dnnl::memory::data_type::bf16 : dnnl::memory::data_type::f32;
}

dnnl::memory::desc Describe(const Matrix& x, Transpose transpose) {
  const bool transposed = transpose == Transpose::kYes;
  return {{x.batch, OpRows(transpose, x), OpColumns(transpose, x)},
          LibraryType(x.dtype),
          {x.batch_stride, transposed ? 1 : x.row_stride, transposed ? x.row_stride : 1}};
}

// oneDNN 2 takes operation descriptors, which oneDNN 3 no longer has.
template <typename Matmul>
typename Matmul::primitive_desc DescribeMatmul(const dnnl::engine& engine,
                                               const dnnl::memory::desc& a,
                                               const dnnl::memory::desc& b,
                                               const dnnl::memory::desc& c,
                                               const dnnl::primitive_attr& attributes) {
  if constexpr (requires { typename Matmul::desc; }) {
    return {typename Matmul::desc(a, b, c), attributes, engine};
  } else {
    return {engine, a, b, c, attributes};
  }
}

// What makes two products the same to the library.
using ProductKey =
    std::tuple<Transpose, Transpose, Accumulate, DType, DType,
               std::tuple<int64_t, int64_t, int64_t>, int64_t,
               std::tuple<int64_t, int64_t, int64_t>, std::tuple<int64_t, int64_t, int64_t>>;

ProductKey KeyOf(const Product& p, const Extent& extent) {
  return {p.transpose_a,
          p.transpose_b,
          p.accumulate,
          p.a.dtype,
          p.c.dtype,
          {extent.m, extent.n, extent.k},
          p.c.batch,
          {p.a.row_stride, p.b.row_stride, p.c.row_stride},
          {p.a.batch_stride, p.b.batch_stride, p.c.batch_stride}};
}

}  // namespace

class GemmEngine::Impl {
 public:
  Impl(Device target, Bf16 bf16)
      : target_(target), widen_(bf16 == Bf16::kWidened || !MachineHasBf16()) {}

  ScratchPlan Plan(const Product& p) {
    const Extent extent = CheckProduct(p);
    ScratchPlan plan;
    if (IsEmpty(extent, p.c)) {
      return plan;
    }
    if (target_.is_cuda()) {
      if (p.c.device.is_meta()) {
        Remember(p);
      }
      plan.library = CublasLtGemm::kWorkspaceBytes;
      return plan;
    }
    if (Widens(p)) {
      plan.wide_a = WideBytes(p.a);
      plan.wide_b = WideBytes(p.b);
      plan.wide_c = p.c.dtype == DType::kBF16 ? WideBytes(p.c) : 0;
    }
    plan.library =
        RoundUp(static_cast<int64_t>(
                    Compiled(WithWideOperands(p, plan, nullptr), extent).scratchpad.get_size()),
                Arena::kAlignmentBytes);
    return plan;
  }

  void Run(Stream& stream, const Product& p, const Tensor& scratch) {
    const Extent extent = CheckProduct(p);
    if (IsEmpty(extent, p.c)) {
      return;
    }
    const ScratchPlan plan = Plan(p);
    CHECK_GE(scratch.bytes(), plan.total());
    if (target_.is_cuda()) {
      OnGpu().Enqueue(stream, p, scratch.bytes_data());
      return;
    }
    const Product wide = WithWideOperands(p, plan, scratch.bytes_data());
    if (Widens(p)) {
      ConvertElements<float, BF16>(p.a, wide.a);
      ConvertElements<float, BF16>(p.b, wide.b);
      if (p.c.dtype == DType::kBF16 && p.accumulate == Accumulate::kAdd) {
        ConvertElements<float, BF16>(p.c, wide.c);
      }
    }
    Execute(wide, extent, scratch.bytes_data() + (plan.total() - plan.library));
    if (Widens(p) && p.c.dtype == DType::kBF16) {
      ConvertElements<BF16, float>(wide.c, p.c);
    }
  }

  const std::vector<Product>& planned_products() const { return planned_; }

  CublasLtGemm& OnGpu() {
    if (cublas_lt_ == nullptr) {
      cublas_lt_ = std::make_unique<CublasLtGemm>(target_);
    }
    return *cublas_lt_;
  }

 private:
  struct Primitive {
    dnnl::matmul matmul;
    dnnl::memory::desc a;
    dnnl::memory::desc b;
    dnnl::memory::desc c;
    dnnl::memory::desc scratchpad;
  };

  static bool MachineHasBf16() {
    const auto isa = static_cast<unsigned>(dnnl::get_effective_cpu_isa());
    const auto bf16 = static_cast<unsigned>(dnnl::cpu_isa::avx512_core_bf16);
    return (isa & bf16) == bf16;
  }

  void Remember(const Product& p) {
    if (planned_forms_.insert(DescribeForm(p)).second) {
      planned_.push_back(p);
    }
  }

  bool Widens(const Product& p) const { return widen_ && p.a.dtype == DType::kBF16; }

  Product WithWideOperands(const Product& p, const ScratchPlan& plan, std::byte* scratch) const {
    if (!Widens(p)) {
      return p;
    }
    const auto at = [&](int64_t offset) { return scratch == nullptr ? nullptr : scratch + offset; };
    Product wide = p;
    wide.a = Widened(p.a, at(0));
    wide.b = Widened(p.b, at(plan.wide_a));
    if (p.c.dtype == DType::kBF16) {
      wide.c = Widened(p.c, at(plan.wide_a + plan.wide_b));
    }
    return wide;
  }

  const Primitive& Compiled(const Product& p, const Extent& extent) {
    const ProductKey key = KeyOf(p, extent);
    const std::lock_guard<std::mutex> lock(mutex_);
    const auto found = compiled_.find(key);
    if (found != compiled_.end()) {
      return *found->second;
    }
    dnnl::primitive_attr attributes;
    attributes.set_scratchpad_mode(dnnl::scratchpad_mode::user);
    if (p.accumulate == Accumulate::kAdd) {
      dnnl::post_ops add;
      add.append_sum(1.0F);
      attributes.set_post_ops(add);
    }
    const dnnl::memory::desc a = Describe(p.a, p.transpose_a);
    const dnnl::memory::desc b = Describe(p.b, p.transpose_b);
    const dnnl::memory::desc c = Describe(p.c, Transpose::kNo);
    const auto description = DescribeMatmul<dnnl::matmul>(engine_, a, b, c, attributes);
    auto primitive = std::make_unique<Primitive>(
        Primitive{dnnl::matmul(description), a, b, c, description.scratchpad_desc()});
    return *compiled_.emplace(key, std::move(primitive)).first->second;
  }

  void Execute(const Product& p, const Extent& extent, std::byte* library_scratch) {
    const Primitive& primitive = Compiled(p, extent);
    dnnl::stream stream(engine_);
    primitive.matmul.execute(
        stream,
        {{DNNL_ARG_SRC, dnnl::memory(primitive.a, engine_, p.a.data)},
         {DNNL_ARG_WEIGHTS, dnnl::memory(primitive.b, engine_, p.b.data)},
         {DNNL_ARG_DST, dnnl::memory(primitive.c, engine_, p.c.data)},
         {DNNL_ARG_SCRATCHPAD, dnnl::memory(primitive.scratchpad, engine_, library_scratch)}});
    stream.wait();
  }

  Device target_;
  bool widen_;
  std::unique_ptr<CublasLtGemm> cublas_lt_;  // from its first use on
  std::vector<Product> planned_;
  absl::flat_hash_set<std::string> planned_forms_;
  dnnl::engine engine_{dnnl::engine::kind::cpu, 0};
  std::mutex mutex_;  // guards compiled_; its values stay where they are
  absl::flat_hash_map<ProductKey, std::unique_ptr<Primitive>> compiled_;
};

GemmEngine::GemmEngine(Device target, Bf16 bf16) : impl_(std::make_unique<Impl>(target, bf16)) {}
GemmEngine::~GemmEngine() = default;

int64_t GemmEngine::ScratchBytes(const Product& product) { return impl_->Plan(product).total(); }

void GemmEngine::Run(Stream& stream, const Product& product, const Tensor& scratch) {
  impl_->Run(stream, product, scratch);
}

const std::vector<Product>& GemmEngine::planned_products() const {
  return impl_->planned_products();
}

GemmAlgorithmLibrary GemmEngine::library() { return impl_->OnGpu().library(); }

absl::Status GemmEngine::UseAlgorithms(const GemmAlgorithms& algorithms) {
  return impl_->OnGpu().UseAlgorithms(algorithms);
}

GemmAlgorithm GemmEngine::FastestAlgorithm(Stream& stream, const Product& product,
                                           const Tensor& scratch) {
  CheckProduct(product);
  CHECK_GE(scratch.bytes(), ScratchBytes(product));
  return impl_->OnGpu().FastestAlgorithm(stream, product, scratch.bytes_data());
}

int64_t GemmScratchBytes(Context& ctx, const Product& product) {
  return ctx.gemm().ScratchBytes(product);
}

void GemmInScratch(Context& ctx, const Product& product, const Tensor& scratch) {
  if (!ctx.device().is_meta()) {
    ctx.gemm().Run(ctx.compute(), product, scratch);
  }
}

void Gemm(Context& ctx, const Product& product) {
  const Arena::Scope scope(ctx.arena());
  const Tensor scratch =
      ctx.arena().Allocate({GemmScratchBytes(ctx, product)}, DType::kU8, "product scratch");
  GemmInScratch(ctx, product, scratch);
}

void Gemm(Context& ctx, Transpose transpose_a, const Matrix& a, Transpose transpose_b,
          const Matrix& b, Accumulate accumulate, const Matrix& c) {
  Gemm(ctx, {transpose_a, a, transpose_b, b, accumulate, c});
}

}  // namespace panthera
