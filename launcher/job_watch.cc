#include "launcher/job_watch.h"

#include <algorithm>
#include <cstdint>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"

#include "launcher/exit_codes.h"

namespace panthera {
namespace {

constexpr size_t kMostNamed = 4;
// A rank reports several times in this part of the limit.
constexpr double kSilentShare = 0.5;

std::string Seconds(double seconds) { return absl::StrFormat("%.0f s", seconds); }

std::string NoProgress(double limit) {
  return absl::StrFormat("no rank has made progress for %.0f s (train.stall_seconds)", limit);
}

// "rank 3, <one>; rank 5, <other> and 12 more".
class SuspectList {
 public:
  bool empty() const { return count_ == 0; }

  void Add(size_t rank, const std::string& why) {
    if (count_ < kMostNamed) {
      absl::StrAppend(&text_, count_ == 0 ? "" : "; ", "rank ", rank, ", ", why);
    }
    ++count_;
  }

  std::string text() const {
    return count_ <= kMostNamed ? text_
                                : absl::StrCat(text_, " and ", count_ - kMostNamed, " more");
  }

 private:
  std::string text_;
  size_t count_ = 0;
};

}  // namespace

void JobWatch::Report(int rank, const Activity& activity, double now) {
  Rank& state = ranks_[static_cast<size_t>(rank)];
  if (activity.beats != state.activity.beats) {
    state.progressed = now;
  }
  state.activity = activity;
  state.heard = now;
}

void JobWatch::Leave(int rank) { ranks_[static_cast<size_t>(rank)].left = true; }

void JobWatch::Lose(int rank, double now) { ranks_[static_cast<size_t>(rank)].lost = now; }

std::optional<Verdict> JobWatch::Judge(double limit, double now) const {
  double newest = 0;
  for (size_t r = 0; r < ranks_.size(); ++r) {
    const Rank& rank = ranks_[r];
    newest = std::max(newest, rank.progressed);
    if (rank.lost.has_value() && !rank.left && now - *rank.lost > kLauncherPatienceSeconds) {
      return DeathOf(static_cast<int>(r));
    }
  }
  if (limit == 0 || now - newest <= limit) {
    return std::nullopt;
  }
  return Verdict{kExitStalled, absl::StrCat(NoProgress(limit), "; ", Suspects(limit, now))};
}

std::string JobWatch::Suspects(double limit, double now) const {
  SuspectList silent;
  SuspectList working;
  SuspectList behind;
  int64_t fewest_calls = ranks_.front().activity.calls;
  int64_t most_calls = 0;
  for (const Rank& rank : ranks_) {
    fewest_calls = std::min(fewest_calls, rank.activity.calls);
    most_calls = std::max(most_calls, rank.activity.calls);
  }
  for (size_t r = 0; r < ranks_.size(); ++r) {
    const Rank& rank = ranks_[r];
    if (rank.left) {
      continue;
    }
    if (now - rank.heard > kSilentShare * limit) {
      silent.Add(r, absl::StrCat("which has not reported for ", Seconds(now - rank.heard),
                                 ", last in ", Describe(rank.activity)));
    } else if (!rank.activity.waits_for_peers()) {
      working.Add(r, absl::StrCat("in ", Describe(rank.activity)));
    } else if (rank.activity.calls == fewest_calls && fewest_calls < most_calls) {
      behind.Add(r, absl::StrCat("behind in ", Describe(rank.activity)));
    }
  }
  for (const SuspectList* suspects : {&silent, &working, &behind}) {
    if (!suspects->empty()) {
      return absl::StrCat("suspected: ", suspects->text());
    }
  }
  return "all ranks wait in the same call: suspected is the network between their hosts";
}

std::optional<Verdict> JudgeAlone(double limit, double progressed, std::optional<double> heard,
                                  double now) {
  if (limit == 0 || now - progressed <= limit) {
    return std::nullopt;
  }
  if (!heard.has_value()) {
    return Verdict{kExitStalled,
                   absl::StrCat("this rank has made no progress for ", Seconds(limit),
                                " (train.stall_seconds) and cannot ask rank 0 about the others")};
  }
  if (now - *heard <= limit) {
    return std::nullopt;
  }
  return Verdict{kExitStalled,
                 absl::StrCat(NoProgress(limit), "; suspected: rank 0, which has not reported for ",
                              Seconds(now - *heard))};
}

Verdict DeathOf(int rank) {
  return {kExitPeerLost, absl::StrCat("rank ", rank, " has died, and its launcher has not ended ",
                                      "the other ranks")};
}

}  // namespace panthera
