#include "runtime/device/arena.h"

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include <gmock/gmock.h>
#include <gtest/gtest.h>

namespace panthera {
namespace {

using ::testing::ElementsAre;

constexpr Device kMeta{DeviceKind::kMeta, 0};

std::vector<std::string> PeakNames(const Arena& arena) {
  std::vector<std::string> names;
  for (const Arena::Allocation& allocation : arena.peak_allocations()) {
    names.emplace_back(allocation.name);
  }
  return names;
}

TEST(ArenaTest, AllocationsAreAlignedAndDoNotOverlap) {
  MemoryLedger ledger;
  Arena arena(Device{}, ledger, 4096);
  const Tensor first = arena.Allocate({3}, DType::kU8, "first");
  const Tensor second = arena.Allocate({5, 13}, DType::kF32, "second");
  const Tensor third = arena.Allocate({2}, DType::kBF16, "third");
  for (const Tensor& tensor : {first, second, third}) {
    EXPECT_EQ(reinterpret_cast<uintptr_t>(tensor.bytes_data()) % Arena::kAlignmentBytes, 0U);
  }
  EXPECT_EQ(second.shape(), Shape({5, 13}));
  EXPECT_EQ(second.dtype(), DType::kF32);
  EXPECT_EQ(second.bytes_data() - first.bytes_data(), 256);
  EXPECT_EQ(third.bytes_data() - second.bytes_data(), 512) << "260 bytes, rounded up";
  EXPECT_EQ(arena.used_bytes(), 1024);
}

TEST(ArenaTest, ScopesGiveBackWhatWasAllocatedSinceTheyBegan) {
  MemoryLedger ledger;
  Arena arena(Device{}, ledger, 4096);
  (void)arena.Allocate({256}, DType::kU8, "kept");
  std::byte* inner_place = nullptr;
  {
    const Arena::Scope outer(arena);
    (void)arena.Allocate({256}, DType::kU8, "outer");
    {
      const Arena::Scope inner(arena);
      inner_place = arena.Allocate({512}, DType::kU8, "inner").bytes_data();
      EXPECT_EQ(arena.used_bytes(), 1024);
    }
    EXPECT_EQ(arena.used_bytes(), 512);
    EXPECT_EQ(arena.Allocate({1}, DType::kU8, "next").bytes_data(), inner_place);
  }
  EXPECT_EQ(arena.used_bytes(), 256);
  EXPECT_EQ(arena.peak_bytes(), 1024);
}

TEST(ArenaTest, MetaHasNoBoundAndRemembersWhatWasAliveAtThePeak) {
  MemoryLedger ledger;
  Arena arena(kMeta, ledger, 0);
  (void)arena.Allocate({1}, DType::kF32, "kept");
  {
    const Arena::Scope scope(arena);
    (void)arena.Allocate({64}, DType::kF32, "small");
  }
  {
    const Arena::Scope scope(arena);
    const Tensor large = arena.Allocate({int64_t{1} << 40}, DType::kF32, "large");
    EXPECT_EQ(large.bytes_data(), nullptr);
    EXPECT_EQ(large.device(), kMeta);
  }
  {
    // As high as the peak, but not higher: the first peak stays.
    const Arena::Scope scope(arena);
    (void)arena.Allocate({int64_t{1} << 40}, DType::kF32, "later");
  }
  EXPECT_EQ(arena.peak_bytes(), 256 + (int64_t{1} << 42));
  EXPECT_THAT(PeakNames(arena), ElementsAre("kept", "large"));
  EXPECT_EQ(arena.peak_allocations().back().bytes, int64_t{1} << 42);
  EXPECT_EQ(ledger.total_bytes(), 0);
}

TEST(ArenaTest, ThePlannedPeakIsEnoughForTheSameStep) {
  const auto step = [](Arena& arena) {
    for (const int64_t length : {100, 300, 200}) {
      const Arena::Scope scope(arena);
      (void)arena.Allocate({length}, DType::kBF16, "input");
      (void)arena.Allocate({length, 3}, DType::kF32, "output");
    }
  };
  MemoryLedger ledger;
  Arena plan(kMeta, ledger, 0);
  step(plan);
  Arena arena(Device{}, ledger, plan.peak_bytes());
  step(arena);
  EXPECT_EQ(arena.peak_bytes(), plan.peak_bytes());
  EXPECT_EQ(ledger.bytes(MemoryCategory::kActivations), plan.peak_bytes());
}

TEST(ArenaDeathTest, FullArenaNamesWhatIsAlive) {
  MemoryLedger ledger;
  Arena arena(Device{}, ledger, 1024);
  {
    const Arena::Scope scope(arena);
    (void)arena.Allocate({1}, DType::kU8, "gone");
  }
  (void)arena.Allocate({200}, DType::kF32, "scores");
  EXPECT_DEATH((void)arena.Allocate({1}, DType::kF32, "sums"),
               "1280 vs. 1024\\) the arena has no room for sums; alive:\n"
               "  scores 1.00 KiB\n"
               "  sums 256 B");
}

TEST(ArenaDeathTest, ScopesMustEndInReverseOrder) {
  MemoryLedger ledger;
  Arena arena(Device{}, ledger, 1024);
  std::optional<Arena::Scope> outer(std::in_place, arena);
  (void)arena.Allocate({1}, DType::kU8, "first");
  std::optional<Arena::Scope> inner(std::in_place, arena);
  EXPECT_DEATH(
      {
        outer.reset();
        inner.reset();
      },
      "256 vs. 0\\) arena scopes must end in the reverse order");
}

}  // namespace
}  // namespace panthera
