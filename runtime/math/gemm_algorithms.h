#ifndef PANTHERA_RUNTIME_MATH_GEMM_ALGORITHMS_H_
#define PANTHERA_RUNTIME_MATH_GEMM_ALGORITHMS_H_

#include <cstdint>
#include <map>
#include <optional>
#include <string>
#include <utility>

#include "absl/status/statusor.h"

#include "runtime/math/gemm.h"

namespace panthera {

// A version of cuBLASLt on a kind of GPU, to which alone algorithms mean something.
struct GemmAlgorithmLibrary {
  std::string gpu;      // "NVIDIA H200"
  int64_t version = 0;  // of cuBLASLt
  friend bool operator==(const GemmAlgorithmLibrary& a, const GemmAlgorithmLibrary& b) = default;
};

// By which of the library's algorithms products are computed. An algorithm decides the order of a
// product's sums and so its bits: a run that goes on must go on with the same ones.
class GemmAlgorithms {
 public:
  GemmAlgorithms() = default;
  explicit GemmAlgorithms(GemmAlgorithmLibrary library) : library_(std::move(library)) {}

  const GemmAlgorithmLibrary& library() const { return library_; }
  int64_t size() const { return static_cast<int64_t>(algorithms_.size()); }

  // For products of this form.
  void Set(const Product& product, const GemmAlgorithm& algorithm);
  std::optional<GemmAlgorithm> Find(const Product& product) const;
  // Takes over what `others`, of the same library, has for forms that have no algorithm here.
  void Add(const GemmAlgorithms& others);

  friend bool operator==(const GemmAlgorithms& a, const GemmAlgorithms& b) = default;

 private:
  friend std::string GemmAlgorithmsJson(const GemmAlgorithms& algorithms);
  friend absl::StatusOr<GemmAlgorithms> ParseGemmAlgorithms(const std::string& text);

  GemmAlgorithmLibrary library_;
  std::map<std::string, GemmAlgorithm> algorithms_;  // by DescribeForm
};

// The bytes to which a matrix's address and strides are aligned as far as products care: the
// largest power of two that divides them all, up to the 16 bytes of the widest access. No more, so
// that a product has the same algorithm, and bits, wherever its matrices lie in an arena. An absent
// address, as on kMeta, counts as aligned.
int64_t GemmAlignment(const Matrix& matrix);

// A product's form in one line: types, sizes, strides and alignments of its matrices, what is
// transposed, and whether it adds. Products of one form have one algorithm.
std::string DescribeForm(const Product& product);

// The contents of a file: a line for each product, in an order that depends on nothing else.
std::string GemmAlgorithmsJson(const GemmAlgorithms& algorithms);
// What GemmAlgorithmsJson wrote, or in one line what is wrong with it.
absl::StatusOr<GemmAlgorithms> ParseGemmAlgorithms(const std::string& text);

}  // namespace panthera

#endif  // PANTHERA_RUNTIME_MATH_GEMM_ALGORITHMS_H_
