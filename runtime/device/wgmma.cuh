// Hopper's products of a warpgroup, four warps whose first has an index that 4 divides (wgmma,
// sm_90a only). Names and layouts are those of NVIDIA's PTX ISA. They run beside the threads that
// begin them, and read shared memory as bulk copies wrote it (bulk_copy.cuh). The emulation on the
// host does not have them.
#ifndef PANTHERA_RUNTIME_DEVICE_WGMMA_CUH_
#define PANTHERA_RUNTIME_DEVICE_WGMMA_CUH_

#include <cuda_runtime.h>

#include <cstdint>

namespace panthera {

inline constexpr int kWarpgroupThreads = 128;

// A matrix of 16-bit elements in shared memory: panels of 64 columns, in which rows of 128 bytes
// follow one another and the 16-byte chunks of row r stand permuted, chunk c at place c ^ (r % 8)
// ("128-byte swizzle"). Begins at a multiple of 1024 bytes.
template <int kRows, int kColumns>
struct PanelTile {
  static constexpr int kPanelColumns = 64;
  static constexpr int kRowBytes = 128;
  static constexpr int kPanels = kColumns / kPanelColumns;
  static constexpr int kPanelBytes = kRows * kRowBytes;
  static constexpr int kBytes = kPanels * kPanelBytes;
  static_assert(kRows % 8 == 0 && kColumns % kPanelColumns == 0);

  __device__ unsigned char* Panel(int panel) const { return memory + panel * kPanelBytes; }

  unsigned char* memory;
};

// What a product reads, as its instruction wants to know it; additions move it in shared memory.
struct MatrixDescriptor {
  __device__ MatrixDescriptor Plus(int bytes) const {
    return {bits + static_cast<uint64_t>(bytes >> 4)};
  }
  uint64_t bits;
};

template <int kRows, int kColumns>
__device__ inline MatrixDescriptor Describe(PanelTile<kRows, kColumns> tile) {
  using Tile = PanelTile<kRows, kColumns>;
  constexpr uint64_t kSwizzled128 = 1;
  constexpr uint64_t kEightRows = 8 * Tile::kRowBytes;
  const auto address = static_cast<uint32_t>(__cvta_generic_to_shared(tile.memory));
  return {uint64_t{(address & 0x3ffffU) >> 4} | uint64_t{Tile::kPanelBytes >> 4} << 16 |
          (kEightRows >> 4) << 32 | kSwizzled128 << 62};
}

namespace wgmma {

__device__ inline void Multiply(MatrixDescriptor a, MatrixDescriptor b, float (&d)[8][4]) {
  asm volatile(
      "{\n"
      ".reg .pred adds;\n"
      "setp.ne.b32 adds, 0, 0;\n"
      "wgmma.mma_async.sync.aligned.m64n64k16.f32.bf16.bf16 {"
      "%0, %1, %2, %3, %4, %5, %6, %7, %8, %9, %10, %11, %12, %13, %14, %15, "
      "%16, %17, %18, %19, %20, %21, %22, %23, %24, %25, %26, %27, %28, %29, %30, %31"
      "}, %32, %33, adds, 1, 1, 0, 0;\n"
      "}"
      : "=f"(d[0][0]), "=f"(d[0][1]), "=f"(d[0][2]), "=f"(d[0][3]), "=f"(d[1][0]), "=f"(d[1][1]),
        "=f"(d[1][2]), "=f"(d[1][3]), "=f"(d[2][0]), "=f"(d[2][1]), "=f"(d[2][2]), "=f"(d[2][3]),
        "=f"(d[3][0]), "=f"(d[3][1]), "=f"(d[3][2]), "=f"(d[3][3]), "=f"(d[4][0]), "=f"(d[4][1]),
        "=f"(d[4][2]), "=f"(d[4][3]), "=f"(d[5][0]), "=f"(d[5][1]), "=f"(d[5][2]), "=f"(d[5][3]),
        "=f"(d[6][0]), "=f"(d[6][1]), "=f"(d[6][2]), "=f"(d[6][3]), "=f"(d[7][0]), "=f"(d[7][1]),
        "=f"(d[7][2]), "=f"(d[7][3])
      : "l"(a.bits), "l"(b.bits));
}

__device__ inline void MultiplyAdd(MatrixDescriptor a, MatrixDescriptor b, float (&d)[8][4]) {
  asm volatile(
      "{\n"
      ".reg .pred adds;\n"
      "setp.ne.b32 adds, 1, 0;\n"
      "wgmma.mma_async.sync.aligned.m64n64k16.f32.bf16.bf16 {"
      "%0, %1, %2, %3, %4, %5, %6, %7, %8, %9, %10, %11, %12, %13, %14, %15, "
      "%16, %17, %18, %19, %20, %21, %22, %23, %24, %25, %26, %27, %28, %29, %30, %31"
      "}, %32, %33, adds, 1, 1, 0, 0;\n"
      "}"
      : "+f"(d[0][0]), "+f"(d[0][1]), "+f"(d[0][2]), "+f"(d[0][3]), "+f"(d[1][0]), "+f"(d[1][1]),
        "+f"(d[1][2]), "+f"(d[1][3]), "+f"(d[2][0]), "+f"(d[2][1]), "+f"(d[2][2]), "+f"(d[2][3]),
        "+f"(d[3][0]), "+f"(d[3][1]), "+f"(d[3][2]), "+f"(d[3][3]), "+f"(d[4][0]), "+f"(d[4][1]),
        "+f"(d[4][2]), "+f"(d[4][3]), "+f"(d[5][0]), "+f"(d[5][1]), "+f"(d[5][2]), "+f"(d[5][3]),
        "+f"(d[6][0]), "+f"(d[6][1]), "+f"(d[6][2]), "+f"(d[6][3]), "+f"(d[7][0]), "+f"(d[7][1]),
        "+f"(d[7][2]), "+f"(d[7][3])
      : "l"(a.bits), "l"(b.bits));
}

__device__ inline void MultiplyAdd(const uint32_t (&a)[4], MatrixDescriptor b, float (&d)[8][4]) {
  asm volatile(
      "{\n"
      "wgmma.mma_async.sync.aligned.m64n64k16.f32.bf16.bf16 {"
      "%0, %1, %2, %3, %4, %5, %6, %7, %8, %9, %10, %11, %12, %13, %14, %15, "
      "%16, %17, %18, %19, %20, %21, %22, %23, %24, %25, %26, %27, %28, %29, %30, %31"
      "}, {%32, %33, %34, %35}, %36, 1, 1, 1, 1;\n"
      "}"
      : "+f"(d[0][0]), "+f"(d[0][1]), "+f"(d[0][2]), "+f"(d[0][3]), "+f"(d[1][0]), "+f"(d[1][1]),
        "+f"(d[1][2]), "+f"(d[1][3]), "+f"(d[2][0]), "+f"(d[2][1]), "+f"(d[2][2]), "+f"(d[2][3]),
        "+f"(d[3][0]), "+f"(d[3][1]), "+f"(d[3][2]), "+f"(d[3][3]), "+f"(d[4][0]), "+f"(d[4][1]),
        "+f"(d[4][2]), "+f"(d[4][3]), "+f"(d[5][0]), "+f"(d[5][1]), "+f"(d[5][2]), "+f"(d[5][3]),
        "+f"(d[6][0]), "+f"(d[6][1]), "+f"(d[6][2]), "+f"(d[6][3]), "+f"(d[7][0]), "+f"(d[7][1]),
        "+f"(d[7][2]), "+f"(d[7][3])
      : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "l"(b.bits));
}

__device__ inline void Multiply(MatrixDescriptor a, MatrixDescriptor b, float (&d)[16][4]) {
  asm volatile(
      "{\n"
      ".reg .pred adds;\n"
      "setp.ne.b32 adds, 0, 0;\n"
      "wgmma.mma_async.sync.aligned.m64n128k16.f32.bf16.bf16 {"
      "%0, %1, %2, %3, %4, %5, %6, %7, %8, %9, %10, %11, %12, %13, %14, %15, "
      "%16, %17, %18, %19, %20, %21, %22, %23, %24, %25, %26, %27, %28, %29, %30, %31, "
      "%32, %33, %34, %35, %36, %37, %38, %39, %40, %41, %42, %43, %44, %45, %46, %47, "
      "%48, %49, %50, %51, %52, %53, %54, %55, %56, %57, %58, %59, %60, %61, %62, %63"
      "}, %64, %65, adds, 1, 1, 0, 0;\n"
      "}"
      : "=f"(d[0][0]), "=f"(d[0][1]), "=f"(d[0][2]), "=f"(d[0][3]), "=f"(d[1][0]), "=f"(d[1][1]),
        "=f"(d[1][2]), "=f"(d[1][3]), "=f"(d[2][0]), "=f"(d[2][1]), "=f"(d[2][2]), "=f"(d[2][3]),
        "=f"(d[3][0]), "=f"(d[3][1]), "=f"(d[3][2]), "=f"(d[3][3]), "=f"(d[4][0]), "=f"(d[4][1]),
        "=f"(d[4][2]), "=f"(d[4][3]), "=f"(d[5][0]), "=f"(d[5][1]), "=f"(d[5][2]), "=f"(d[5][3]),
        "=f"(d[6][0]), "=f"(d[6][1]), "=f"(d[6][2]), "=f"(d[6][3]), "=f"(d[7][0]), "=f"(d[7][1]),
        "=f"(d[7][2]), "=f"(d[7][3]), "=f"(d[8][0]), "=f"(d[8][1]), "=f"(d[8][2]), "=f"(d[8][3]),
        "=f"(d[9][0]), "=f"(d[9][1]), "=f"(d[9][2]), "=f"(d[9][3]), "=f"(d[10][0]), "=f"(d[10][1]),
        "=f"(d[10][2]), "=f"(d[10][3]), "=f"(d[11][0]), "=f"(d[11][1]), "=f"(d[11][2]),
        "=f"(d[11][3]), "=f"(d[12][0]), "=f"(d[12][1]), "=f"(d[12][2]), "=f"(d[12][3]),
        "=f"(d[13][0]), "=f"(d[13][1]), "=f"(d[13][2]), "=f"(d[13][3]), "=f"(d[14][0]),
        "=f"(d[14][1]), "=f"(d[14][2]), "=f"(d[14][3]), "=f"(d[15][0]), "=f"(d[15][1]),
        "=f"(d[15][2]), "=f"(d[15][3])
      : "l"(a.bits), "l"(b.bits));
}

__device__ inline void MultiplyAdd(MatrixDescriptor a, MatrixDescriptor b, float (&d)[16][4]) {
  asm volatile(
      "{\n"
      ".reg .pred adds;\n"
      "setp.ne.b32 adds, 1, 0;\n"
      "wgmma.mma_async.sync.aligned.m64n128k16.f32.bf16.bf16 {"
      "%0, %1, %2, %3, %4, %5, %6, %7, %8, %9, %10, %11, %12, %13, %14, %15, "
      "%16, %17, %18, %19, %20, %21, %22, %23, %24, %25, %26, %27, %28, %29, %30, %31, "
      "%32, %33, %34, %35, %36, %37, %38, %39, %40, %41, %42, %43, %44, %45, %46, %47, "
      "%48, %49, %50, %51, %52, %53, %54, %55, %56, %57, %58, %59, %60, %61, %62, %63"
      "}, %64, %65, adds, 1, 1, 0, 0;\n"
      "}"
      : "+f"(d[0][0]), "+f"(d[0][1]), "+f"(d[0][2]), "+f"(d[0][3]), "+f"(d[1][0]), "+f"(d[1][1]),
        "+f"(d[1][2]), "+f"(d[1][3]), "+f"(d[2][0]), "+f"(d[2][1]), "+f"(d[2][2]), "+f"(d[2][3]),
        "+f"(d[3][0]), "+f"(d[3][1]), "+f"(d[3][2]), "+f"(d[3][3]), "+f"(d[4][0]), "+f"(d[4][1]),
        "+f"(d[4][2]), "+f"(d[4][3]), "+f"(d[5][0]), "+f"(d[5][1]), "+f"(d[5][2]), "+f"(d[5][3]),
        "+f"(d[6][0]), "+f"(d[6][1]), "+f"(d[6][2]), "+f"(d[6][3]), "+f"(d[7][0]), "+f"(d[7][1]),
        "+f"(d[7][2]), "+f"(d[7][3]), "+f"(d[8][0]), "+f"(d[8][1]), "+f"(d[8][2]), "+f"(d[8][3]),
        "+f"(d[9][0]), "+f"(d[9][1]), "+f"(d[9][2]), "+f"(d[9][3]), "+f"(d[10][0]), "+f"(d[10][1]),
        "+f"(d[10][2]), "+f"(d[10][3]), "+f"(d[11][0]), "+f"(d[11][1]), "+f"(d[11][2]),
        "+f"(d[11][3]), "+f"(d[12][0]), "+f"(d[12][1]), "+f"(d[12][2]), "+f"(d[12][3]),
        "+f"(d[13][0]), "+f"(d[13][1]), "+f"(d[13][2]), "+f"(d[13][3]), "+f"(d[14][0]),
        "+f"(d[14][1]), "+f"(d[14][2]), "+f"(d[14][3]), "+f"(d[15][0]), "+f"(d[15][1]),
        "+f"(d[15][2]), "+f"(d[15][3])
      : "l"(a.bits), "l"(b.bits));
}

__device__ inline void MultiplyAdd(const uint32_t (&a)[4], MatrixDescriptor b, float (&d)[16][4]) {
  asm volatile(
      "{\n"
      "wgmma.mma_async.sync.aligned.m64n128k16.f32.bf16.bf16 {"
      "%0, %1, %2, %3, %4, %5, %6, %7, %8, %9, %10, %11, %12, %13, %14, %15, "
      "%16, %17, %18, %19, %20, %21, %22, %23, %24, %25, %26, %27, %28, %29, %30, %31, "
      "%32, %33, %34, %35, %36, %37, %38, %39, %40, %41, %42, %43, %44, %45, %46, %47, "
      "%48, %49, %50, %51, %52, %53, %54, %55, %56, %57, %58, %59, %60, %61, %62, %63"
      "}, {%64, %65, %66, %67}, %68, 1, 1, 1, 1;\n"
      "}"
      : "+f"(d[0][0]), "+f"(d[0][1]), "+f"(d[0][2]), "+f"(d[0][3]), "+f"(d[1][0]), "+f"(d[1][1]),
        "+f"(d[1][2]), "+f"(d[1][3]), "+f"(d[2][0]), "+f"(d[2][1]), "+f"(d[2][2]), "+f"(d[2][3]),
        "+f"(d[3][0]), "+f"(d[3][1]), "+f"(d[3][2]), "+f"(d[3][3]), "+f"(d[4][0]), "+f"(d[4][1]),
        "+f"(d[4][2]), "+f"(d[4][3]), "+f"(d[5][0]), "+f"(d[5][1]), "+f"(d[5][2]), "+f"(d[5][3]),
        "+f"(d[6][0]), "+f"(d[6][1]), "+f"(d[6][2]), "+f"(d[6][3]), "+f"(d[7][0]), "+f"(d[7][1]),
        "+f"(d[7][2]), "+f"(d[7][3]), "+f"(d[8][0]), "+f"(d[8][1]), "+f"(d[8][2]), "+f"(d[8][3]),
        "+f"(d[9][0]), "+f"(d[9][1]), "+f"(d[9][2]), "+f"(d[9][3]), "+f"(d[10][0]), "+f"(d[10][1]),
        "+f"(d[10][2]), "+f"(d[10][3]), "+f"(d[11][0]), "+f"(d[11][1]), "+f"(d[11][2]),
        "+f"(d[11][3]), "+f"(d[12][0]), "+f"(d[12][1]), "+f"(d[12][2]), "+f"(d[12][3]),
        "+f"(d[13][0]), "+f"(d[13][1]), "+f"(d[13][2]), "+f"(d[13][3]), "+f"(d[14][0]),
        "+f"(d[14][1]), "+f"(d[14][2]), "+f"(d[14][3]), "+f"(d[15][0]), "+f"(d[15][1]),
        "+f"(d[15][2]), "+f"(d[15][3])
      : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "l"(b.bits));
}

}  // namespace wgmma

// Keeps the compiler from moving what it does with registers across this place: it does not know
// when products read and write them.
template <int kTiles>
__device__ inline void Pin(float (&sums)[kTiles][4]) {
#pragma unroll
  for (int n = 0; n < kTiles; ++n) {
    asm volatile("" : "+f"(sums[n][0]), "+f"(sums[n][1]), "+f"(sums[n][2]), "+f"(sums[n][3]));
  }
}
template <int kSteps>
__device__ inline void Pin(uint32_t (&parts)[kSteps][4]) {
#pragma unroll
  for (int n = 0; n < kSteps; ++n) {
    asm volatile("" : "+r"(parts[n][0]), "+r"(parts[n][1]), "+r"(parts[n][2]), "+r"(parts[n][3]));
  }
}

// Before the first product that reads or writes registers which other instructions have written:
// these.
template <typename... Registers>
__device__ inline void FenceProducts(Registers&... registers) {
  (Pin(registers), ...);
  asm volatile("wgmma.fence.sync.aligned;" ::: "memory");
}

// Ends the warpgroup's open group of products and opens the next.
__device__ inline void CommitProducts() {
  asm volatile("wgmma.commit_group.sync.aligned;" ::: "memory");
}

// Waits for the warpgroup's groups of products but the kGroups that were committed last. `sums` are
// those that are complete thereafter.
template <int kGroups, int... kTiles>
__device__ inline void WaitForProducts(float (&... sums)[kTiles][4]) {
  asm volatile("wgmma.wait_group.sync.aligned %0;" ::"n"(kGroups) : "memory");
  (Pin(sums), ...);
}

// Begins sums [64, kColumns] = a b^T over kInner columns of both. Rows and columns of sums are
// spread over the warps, 16 rows each, as MultiplyAdd (mma.cuh) says.
template <int kInner, int kColumns>
__device__ inline void BeginProductOfRows(PanelTile<64, kInner> a, PanelTile<kColumns, kInner> b,
                                          float (&sums)[kColumns / 8][4]) {
  const MatrixDescriptor of_a = Describe(a);
  const MatrixDescriptor of_b = Describe(b);
  wgmma::Multiply(of_a, of_b, sums);
#pragma unroll
  for (int step = 1; step < kInner / 16; ++step) {
    constexpr int kSteps = 4;  // of a panel
    const int within = step % kSteps * 32;
    wgmma::MultiplyAdd(of_a.Plus(step / kSteps * PanelTile<64, kInner>::kPanelBytes + within),
                       of_b.Plus(step / kSteps * PanelTile<kColumns, kInner>::kPanelBytes + within),
                       sums);
  }
}

// Begins sums [64, kColumns] += a b: a [64, kInner] in registers, as MultiplyAdd (mma.cuh) says, 16
// columns after another; all rows of b.
template <int kInner, int kColumns>
__device__ inline void BeginProduct(const uint32_t (&a)[kInner / 16][4],
                                    PanelTile<kInner, kColumns> b, float (&sums)[kColumns / 8][4]) {
  const MatrixDescriptor of_b = Describe(b);
#pragma unroll
  for (int step = 0; step < kInner / 16; ++step) {
    wgmma::MultiplyAdd(a[step], of_b.Plus(step * 16 * PanelTile<kInner, kColumns>::kRowBytes),
                       sums);
  }
}

// Gives up registers, or takes them up, to kCount a thread; by all warps of a warpgroup, in a
// kernel that was compiled for one block on a multiprocessor.
template <int kCount>
__device__ inline void ShrinkRegisters() {
  asm volatile("setmaxnreg.dec.sync.aligned.u32 %0;" ::"n"(kCount));
}
template <int kCount>
__device__ inline void GrowRegisters() {
  asm volatile("setmaxnreg.inc.sync.aligned.u32 %0;" ::"n"(kCount));
}

}  // namespace panthera

#endif  // PANTHERA_RUNTIME_DEVICE_WGMMA_CUH_
