#include "launcher/host_memory.h"

#include <filesystem>
#include <fstream>

#include <gtest/gtest.h>

#include "tests/support/temp_dir.h"

namespace panthera {
namespace {

// Files of /proc and /sys under a directory of its own.
class HostMemoryTest : public ::testing::Test {
 protected:
  HostMemoryTest() {
    Write("proc/meminfo",
          "MemTotal:       4000 kB\nMemAvailable:   3000 kB\nHugePages_Total:       0\n");
  }

  void Write(const std::string& name, const std::string& contents) const {
    const std::filesystem::path path = root_.File(name);
    std::filesystem::create_directories(path.parent_path());
    std::ofstream(path) << contents;
  }

  void WriteGroup2(const std::string& group, const std::string& max, int64_t current) const {
    const std::string directory = "sys/fs/cgroup" + group;
    Write(directory + "/memory.max", max + "\n");
    Write(directory + "/memory.current", std::to_string(current) + "\n");
  }

  std::optional<int64_t> Available() const { return AvailableHostBytes(root_.path()); }

  static constexpr int64_t kMemAvailable = 3000 * 1024;
  testing::TempDir root_;
};

TEST_F(HostMemoryTest, WithoutGroupsItIsMemAvailable) { EXPECT_EQ(Available(), kMemAvailable); }

TEST_F(HostMemoryTest, NothingWhereTheSystemDoesNotTell) {
  std::filesystem::remove(root_.File("proc/meminfo"));
  EXPECT_EQ(Available(), std::nullopt);
}

TEST_F(HostMemoryTest, AGroupWithoutLimitChangesNothing) {
  Write("proc/self/cgroup", "0::/job\n");
  WriteGroup2("/job", "max", 5000);

  EXPECT_EQ(Available(), kMemAvailable);
}

TEST_F(HostMemoryTest, Version2LeavesTheLimitMinusTheUse) {
  Write("proc/self/cgroup", "0::/job\n");
  WriteGroup2("/job", "100000", 30000);

  EXPECT_EQ(Available(), 70000);
}

TEST_F(HostMemoryTest, TheTightestOfTheGroupsAboveDecides) {
  Write("proc/self/cgroup", "0::/slurm/job_7/step_0\n");
  WriteGroup2("/slurm/job_7/step_0", "max", 10);
  WriteGroup2("/slurm/job_7", "50000", 10000);
  WriteGroup2("/slurm", "90000", 20000);

  EXPECT_EQ(Available(), 40000);
}

TEST_F(HostMemoryTest, FilePagesCountAsFree) {
  Write("proc/self/cgroup", "0::/job\n");
  WriteGroup2("/job", "100000", 30000);
  Write("sys/fs/cgroup/job/memory.stat",
        "anon 10000\nfile 18000\ninactive_file 12000\nactive_file 6000\n");

  EXPECT_EQ(Available(), 70000 + 18000);
}

TEST_F(HostMemoryTest, MoreUsedThanAllowedLeavesNothing) {
  Write("proc/self/cgroup", "0::/job\n");
  WriteGroup2("/job", "100000", 100001);

  EXPECT_EQ(Available(), 0);
}

TEST_F(HostMemoryTest, Version1HasAMountOfItsOwnForMemory) {
  Write("proc/self/cgroup", "5:cpu,cpuacct:/other\n4:memory:/docker/ab:c\n0::/\n");
  Write("sys/fs/cgroup/memory/docker/ab:c/memory.limit_in_bytes", "200000\n");
  Write("sys/fs/cgroup/memory/docker/ab:c/memory.usage_in_bytes", "50000\n");
  Write("sys/fs/cgroup/memory/docker/ab:c/memory.stat",
        "cache 999\ninactive_file 1\ntotal_inactive_file 4000\ntotal_active_file 1000\n");
  // What version 1 says for "no limit".
  Write("sys/fs/cgroup/memory/memory.limit_in_bytes", "9223372036854771712\n");
  Write("sys/fs/cgroup/memory/memory.usage_in_bytes", "60000\n");

  EXPECT_EQ(Available(), 155000);
}

TEST_F(HostMemoryTest, InAContainerTheTopOfTheMountIsItsGroup) {
  Write("proc/self/cgroup", "4:memory:/docker/on_the_host\n");
  Write("sys/fs/cgroup/memory/memory.limit_in_bytes", "200000\n");
  Write("sys/fs/cgroup/memory/memory.usage_in_bytes", "50000\n");

  EXPECT_EQ(Available(), 150000);
}

TEST_F(HostMemoryTest, MemAvailableDecidesWhereTheGroupAllowsMore) {
  Write("proc/self/cgroup", "0::/job\n");
  WriteGroup2("/job", std::to_string(10 * kMemAvailable), 0);

  EXPECT_EQ(Available(), kMemAvailable);
}

}  // namespace
}  // namespace panthera
