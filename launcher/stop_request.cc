#include "launcher/stop_request.h"

#include <csignal>

#include "runtime/base/check.h"

namespace panthera {
namespace {

// NOLINTNEXTLINE(cppcoreguidelines-avoid-non-const-global-variables): handlers take no argument.
volatile std::sig_atomic_t requested_signal = 0;

extern "C" void RememberSignal(int signal) { requested_signal = signal; }

}  // namespace

void ListenForStopSignals() {
  struct sigaction action = {};
  action.sa_handler = RememberSignal;
  // Interrupted system calls go on: a save that is under way must not fail because of the signal.
  action.sa_flags = SA_RESTART;
  CHECK_EQ(sigaction(SIGUSR1, &action, nullptr), 0);
  CHECK_EQ(sigaction(SIGTERM, &action, nullptr), 0);
}

int RequestedStopSignal() { return requested_signal; }

}  // namespace panthera
