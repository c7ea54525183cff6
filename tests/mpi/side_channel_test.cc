#include "runtime/comm/side_channel.h"

#include <chrono>
#include <functional>
#include <map>
#include <memory>
#include <string>
#include <vector>

#include "gtest/gtest.h"

#include "tests/support/mpi_test_main.h"

namespace panthera::testing {
namespace {

using Clock = std::chrono::steady_clock;

// Collects events until `done` holds; false if that takes a minute.
bool Collect(SideChannel& channel, std::vector<SideChannel::Event>& events,
             const std::function<bool()>& done) {
  const Clock::time_point deadline = Clock::now() + std::chrono::minutes(1);
  while (!done()) {
    if (Clock::now() > deadline) {
      return false;
    }
    for (SideChannel::Event& event : channel.Wait(std::chrono::milliseconds(50))) {
      events.push_back(std::move(event));
    }
  }
  return true;
}

// Every other rank sends its greeting until rank 0's answer comes; then it closes the channel.
TEST(SideChannelTest, MessagesGoBothWaysAndAnEndIsNoticed) {
  RankWorld& world = MpiTestWorld();
  absl::StatusOr<std::unique_ptr<SideChannel>> opened = SideChannel::Open(world.host());
  ASSERT_TRUE(opened.ok()) << opened.status();
  std::unique_ptr<SideChannel> channel = *std::move(opened);
  std::vector<SideChannel::Event> events;
  const int rank = world.host().rank();
  const std::string greeting = "rank " + std::to_string(rank) + std::string(5000, '.');
  if (rank != 0) {
    ASSERT_TRUE(Collect(*channel, events, [&] {
      channel->Send(0, greeting);
      return !events.empty();
    }));
    EXPECT_EQ(events.front().kind, SideChannel::Event::Kind::kMessage);
    EXPECT_EQ(events.front().message, "answer to " + std::to_string(rank));
    channel.reset();
  } else {
    std::map<int, int> lost;
    size_t next = 0;
    ASSERT_TRUE(Collect(*channel, events, [&] {
      for (; next < events.size(); ++next) {
        const SideChannel::Event& event = events[next];
        if (event.kind == SideChannel::Event::Kind::kLost) {
          ++lost[event.rank];
        } else {
          EXPECT_EQ(event.message, "rank " + std::to_string(event.rank) + std::string(5000, '.'));
          channel->Send(event.rank, "answer to " + std::to_string(event.rank));
        }
      }
      return static_cast<int>(lost.size()) == world.host().size() - 1;
    }));
    for (const auto& [peer, times] : lost) {
      EXPECT_EQ(times, 1) << "rank " << peer;
    }
  }
  world.Meet();
}

TEST(SideChannelTest, WakeEndsAWait) {
  RankWorld& world = MpiTestWorld();
  absl::StatusOr<std::unique_ptr<SideChannel>> channel = SideChannel::Open(world.host());
  ASSERT_TRUE(channel.ok()) << channel.status();
  (*channel)->Wake();
  const Clock::time_point begin = Clock::now();
  (void)(*channel)->Wait(std::chrono::minutes(1));
  EXPECT_LT(Clock::now() - begin, std::chrono::seconds(30));
  world.Meet();
}

}  // namespace
}  // namespace panthera::testing
