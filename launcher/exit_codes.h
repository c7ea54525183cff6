// How a worker ends. README lists these for people who write job scripts.
#ifndef PANTHERA_LAUNCHER_EXIT_CODES_H_
#define PANTHERA_LAUNCHER_EXIT_CODES_H_

namespace panthera {

inline constexpr int kExitDone = 0;
// `panthera plan`: the run does not fit the memory that was given.
inline constexpr int kExitDoesNotFit = 1;
// The input or the environment was refused; nothing was changed. The message names the fix.
inline constexpr int kExitRefused = 2;
// The loss or a gradient is not finite. The run goes on from its last checkpoint marked finite.
inline constexpr int kExitNotFinite = 3;
// Failed in the middle: a full disk, data that cannot be read. Checkpoints are as they were.
inline constexpr int kExitFailed = 4;
// Stopped by SIGUSR1 or SIGTERM after saving; the same command goes on from there. (The code that
// sysexits.h calls EX_TEMPFAIL.)
inline constexpr int kExitStoppedBySignal = 75;

// 70 is MpiRuntime::kMpiFailureExitCode: a call between ranks failed and ended the job.

}  // namespace panthera

#endif  // PANTHERA_LAUNCHER_EXIT_CODES_H_
