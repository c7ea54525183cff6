#include "launcher/progress.h"

#include "absl/strings/str_cat.h"

#include "runtime/base/check.h"

namespace panthera {
namespace {

const char* Name(Phase phase) {
  switch (phase) {
    case Phase::kConnecting:
      return "connecting";
    case Phase::kReadingConfiguration:
      return "reading the configuration";
    case Phase::kOpeningData:
      return "opening the data";
    case Phase::kStartingUp:
      return "starting up";
    case Phase::kLoading:
      return "loading";
    case Phase::kStep:
      return "step";
    case Phase::kEvaluating:
      return "evaluation after step";
    case Phase::kChecking:
      return "check for flipped bits after step";
    case Phase::kSaving:
      return "save after step";
    case Phase::kEnding:
      return "ending";
  }
  CHECK(false) << "phase " << static_cast<int>(phase);
  return "";
}

const char* Name(PeerCall call) {
  switch (call) {
    case PeerCall::kNone:
      return "none";
    case PeerCall::kAllToAll:
      return "all-to-all";
    case PeerCall::kAllGather:
      return "all-gather";
    case PeerCall::kBroadcast:
      return "broadcast";
    case PeerCall::kControlAllGather:
      return "all-gather of control messages";
    case PeerCall::kControlBroadcast:
      return "broadcast of a control message";
  }
  CHECK(false) << "call " << static_cast<int>(call);
  return "";
}

}  // namespace

std::string Describe(const Activity& activity) {
  const std::string phase = activity.step > 0
                                ? absl::StrCat(Name(activity.phase), " ", activity.step)
                                : std::string(Name(activity.phase));
  if (activity.waits_for_peers()) {
    return absl::StrCat(phase, ", waiting in ", Name(activity.call), " (call ", activity.calls,
                        ")");
  }
  return absl::StrCat(phase, ", at work after call ", activity.calls);
}

void Progress::Enter(Phase phase, int64_t step) {
  phase_.store(phase, std::memory_order_relaxed);
  step_.store(step, std::memory_order_relaxed);
  Add(beats_);
}

void Progress::BeginCall(PeerCall call) {
  Add(calls_);
  call_.store(call, std::memory_order_relaxed);
  Add(beats_);
}

void Progress::EndCall() {
  call_.store(PeerCall::kNone, std::memory_order_relaxed);
  Add(beats_);
}

Activity Progress::Now() const {
  return {.phase = phase_.load(std::memory_order_relaxed),
          .call = call_.load(std::memory_order_relaxed),
          .step = step_.load(std::memory_order_relaxed),
          .calls = calls_.load(std::memory_order_relaxed),
          .beats = beats_.load(std::memory_order_relaxed)};
}

}  // namespace panthera
