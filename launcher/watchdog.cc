#include "launcher/watchdog.h"

#include <signal.h>
#include <unistd.h>

#include <algorithm>
#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"

#include "launcher/exit_codes.h"
#include "runtime/base/check.h"
#include "runtime/base/log.h"
#include "runtime/comm/mpi_runtime.h"

namespace panthera {
namespace {

static_assert(kExitPeerLost == MpiRuntime::kMpiFailureExitCode);

// How often to look whether the launcher lives.
constexpr double kLookSeconds = 1;
// Between reports: a share of the limit, within these.
constexpr double kReportShare = 0.1;
constexpr double kShortestReport = 0.1;
constexpr double kLongestReport = 10;
// A rank waits a little longer than rank 0 before it judges by itself.
constexpr double kAlonePatience = 2;
// From the verdict to the end: who has judged lets the others print their lines, and the others
// leave it to that rank to end the job.
constexpr double kJudgeFarewell = 0.5;
constexpr double kOtherFarewell = 3;

// The first byte of a message.
constexpr char kReport = 'R';
constexpr char kGoodbye = 'B';
constexpr char kVerdict = 'V';

double ReportSeconds(double limit) {
  return limit == 0 ? kLongestReport
                    : std::clamp(kReportShare * limit, kShortestReport, kLongestReport);
}

double LookSeconds(double limit) { return std::min(kLookSeconds, ReportSeconds(limit)); }

std::chrono::milliseconds Milliseconds(double seconds) {
  return std::chrono::milliseconds(static_cast<int64_t>(1000 * seconds));
}

// The process that started this one, if it is the launcher of a job; otherwise 0, for then it may
// end before this one: a shell whose user has logged out.
pid_t FindLauncher() {
  for (const char* name : {"PMIX_RANK", "PMI_RANK", "OMPI_COMM_WORLD_RANK"}) {
    if (std::getenv(name) != nullptr) {
      return getppid();
    }
  }
  return 0;
}

template <typename T>
std::string AsBytes(const T& value) {
  return {reinterpret_cast<const char*>(&value), sizeof(value)};
}

template <typename T>
bool FromBytes(const std::string& bytes, T& value) {
  if (bytes.size() < 1 + sizeof(value)) {
    return false;
  }
  std::memcpy(&value, bytes.data() + 1, sizeof(value));
  return true;
}

}  // namespace

Watchdog::Watchdog(const Progress& progress, std::chrono::seconds limit)
    : progress_(progress),
      launcher_(FindLauncher()),
      limit_(static_cast<double>(limit.count())),
      last_look_(Clock::now()) {
  // The thread gets none of the process' signals: handlers run where they always did.
  sigset_t all;
  sigset_t before;
  CHECK_EQ(sigfillset(&all), 0);
  CHECK_EQ(pthread_sigmask(SIG_SETMASK, &all, &before), 0);
  thread_ = std::thread([this] { Run(); });
  CHECK_EQ(pthread_sigmask(SIG_SETMASK, &before, nullptr), 0);
}

Watchdog::~Watchdog() {
  stopping_ = true;
  Wake();
  thread_.join();
}

void Watchdog::Join(HostGroup& group, std::chrono::seconds limit) {
  std::unique_ptr<SideChannel> channel;
  if (group.size() > 1) {
    absl::StatusOr<std::unique_ptr<SideChannel>> opened = SideChannel::Open(group);
    if (opened.ok()) {
      channel = *std::move(opened);
    } else if (group.rank() == 0) {
      LOG(WARNING) << "every rank watches itself alone: " << std::string(opened.status().message());
    }
  }
  const std::lock_guard<std::mutex> lock(mutex_);
  wakes_ = channel.get();
  joined_ =
      Joined{std::move(channel), group.rank(), group.size(), static_cast<double>(limit.count())};
  changed_.notify_all();
}

void Watchdog::Leave() {
  leaving_ = true;
  Wake();
}

void Watchdog::Wake() {
  const std::lock_guard<std::mutex> lock(mutex_);
  changed_.notify_all();
  if (wakes_ != nullptr) {
    wakes_->Wake();
  }
}

void Watchdog::Run() {
  while (!stopping_) {
    Wait();
    AdvanceClock();
    CheckLauncher();
    SendReports();
    if (const std::optional<Verdict> verdict = Judge(); verdict.has_value()) {
      End(*verdict);
    }
  }
  SayGoodbye();
}

void Watchdog::Wait() {
  if (channel_ != nullptr) {
    HandleEvents(LookSeconds(limit_));
    return;
  }
  std::unique_lock<std::mutex> lock(mutex_);
  if (!joined_.has_value() && !stopping_) {
    changed_.wait_for(lock, Milliseconds(LookSeconds(limit_)));
  }
  if (joined_.has_value()) {
    StartTogether(*std::exchange(joined_, std::nullopt));
  }
}

void Watchdog::StartTogether(Joined joined) {
  channel_ = std::move(joined.channel);
  rank_ = joined.rank;
  limit_ = joined.limit;
  SetLogRank(joined.size == 1 ? -1 : rank_);
  now_ = next_report_ = progressed_ = heard_ = 0;
  last_look_ = Clock::now();
  if (rank_ == 0 && channel_ != nullptr) {
    job_.emplace(joined.size);
  }
}

void Watchdog::AdvanceClock() {
  const Clock::time_point look = Clock::now();
  const double passed = std::chrono::duration<double>(look - last_look_).count();
  last_look_ = look;
  // A longer pause means that this process did not run, and most likely the others neither.
  now_ += std::min(passed, 2 * LookSeconds(limit_));
  if (const int64_t beats = progress_.Now().beats; beats != last_beats_) {
    last_beats_ = beats;
    progressed_ = now_;
  }
}

void Watchdog::CheckLauncher() const {
  if (launcher_ != 0 && getppid() != launcher_) {
    LOG(ERROR) << "the launcher (process " << launcher_ << ") has died; ending with exit code "
               << kExitPeerLost << ", and the same command goes on from the newest checkpoint";
    std::_Exit(kExitPeerLost);
  }
}

void Watchdog::SendReports() {
  if (leaving_) {
    SayGoodbye();
  }
  if (channel_ == nullptr || now_ < next_report_) {
    return;
  }
  next_report_ = now_ + ReportSeconds(limit_);
  if (job_.has_value()) {
    job_->Report(0, progress_.Now(), now_);
  }
  SendToOthers(std::string(1, kReport) + AsBytes(progress_.Now()));
}

void Watchdog::SayGoodbye() {
  if (!said_goodbye_) {
    said_goodbye_ = true;
    if (job_.has_value()) {
      job_->Leave(0);
    }
    SendToOthers(std::string(1, kGoodbye));
  }
}

void Watchdog::SendToOthers(const std::string& message) {
  if (channel_ == nullptr) {
    return;
  }
  if (rank_ != 0) {
    channel_->Send(0, message);
    return;
  }
  channel_->SendToAll(message);
}

void Watchdog::HandleEvents(double seconds) {
  for (const SideChannel::Event& event : channel_->Wait(Milliseconds(seconds))) {
    switch (event.kind) {
      case SideChannel::Event::Kind::kMessage:
        HandleMessage(event.rank, event.message);
        break;
      case SideChannel::Event::Kind::kLost:
        if (job_.has_value()) {
          job_->Lose(event.rank, now_);
        } else {
          hub_lost_ = now_;
        }
        break;
      case SideChannel::Event::Kind::kUnreachable:
        reachable_ = false;
        if (limit_ > 0) {
          LOG(WARNING) << "cannot reach rank 0 by TCP: if the job stands still, this rank will not "
                          "know because of whom";
        }
        break;
    }
  }
}

void Watchdog::HandleMessage(int from, const std::string& message) {
  Activity activity;
  int32_t exit_code = 0;
  if (message[0] == kGoodbye) {
    if (job_.has_value()) {
      job_->Leave(from);
    } else {
      hub_left_ = true;
    }
  } else if (message[0] == kReport && FromBytes(message, activity)) {
    if (job_.has_value()) {
      job_->Report(from, activity, now_);
    }
    heard_ = now_;
  } else if (message[0] == kVerdict && FromBytes(message, exit_code)) {
    received_ = Verdict{exit_code, message.substr(1 + sizeof(exit_code))};
  }
}

std::optional<Verdict> Watchdog::Judge() const {
  if (job_.has_value()) {
    return job_->Judge(limit_, now_);
  }
  if (received_.has_value()) {
    return received_;
  }
  if (hub_lost_.has_value() && !hub_left_ && now_ - *hub_lost_ > kLauncherPatienceSeconds) {
    return DeathOf(0);
  }
  const bool hears = channel_ != nullptr && reachable_;
  return JudgeAlone(limit_, progressed_,
                    hears ? std::optional(heard_ + kAlonePatience) : std::nullopt, now_);
}

void Watchdog::End(const Verdict& verdict) {
  const std::string where =
      absl::StrFormat("%s for %.0f s", Describe(progress_.Now()), now_ - progressed_);
  LOG(ERROR) << where << ": " << verdict.reason << "; ending the job with exit code "
             << verdict.exit_code << ", and the same command goes on from the newest checkpoint";
  if (channel_ != nullptr) {
    if (job_.has_value()) {
      SendToOthers(std::string(1, kVerdict) + AsBytes(int32_t{verdict.exit_code}) + verdict.reason);
    }
    const Clock::time_point end =
        Clock::now() + Milliseconds(received_.has_value() ? kOtherFarewell : kJudgeFarewell);
    while (Clock::now() < end) {
      (void)channel_->Wait(Milliseconds(kShortestReport));
    }
  }
  MpiRuntime::Abort(verdict.exit_code);
}

}  // namespace panthera
