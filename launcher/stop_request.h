#ifndef PANTHERA_LAUNCHER_STOP_REQUEST_H_
#define PANTHERA_LAUNCHER_STOP_REQUEST_H_

namespace panthera {

// From now on SIGUSR1 and SIGTERM ask this process to save and stop instead of ending it. A signal
// belongs to the process, so this state does too.
void ListenForStopSignals();

// The signal that has asked, or 0. Ranks get signals at different times, or only one of them gets
// one: they must agree before they act.
int RequestedStopSignal();

}  // namespace panthera

#endif  // PANTHERA_LAUNCHER_STOP_REQUEST_H_
