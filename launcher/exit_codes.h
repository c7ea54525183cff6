// How a worker ends. README lists these for people who write job scripts.
#ifndef PANTHERA_LAUNCHER_EXIT_CODES_H_
#define PANTHERA_LAUNCHER_EXIT_CODES_H_

namespace panthera {

inline constexpr int kExitDone = 0;
// `panthera plan`: the run does not fit the memory that was given.
inline constexpr int kExitDoesNotFit = 1;
// `panthera inspect`: what it was given is known but damaged.
inline constexpr int kExitDamaged = 1;
// The input or the environment was refused; nothing was changed. The message names the fix.
inline constexpr int kExitRefused = 2;
// More steps than optim.skip_budget allows met a loss or gradient that is not finite, or weights
// or optimizer state were not finite when a checkpoint was due. The same command goes on from the
// last checkpoint, all of whose numbers are finite.
inline constexpr int kExitNotFinite = 3;
// Failed in the middle: a full disk, data that cannot be read. Checkpoints are as they were.
inline constexpr int kExitFailed = 4;
// Weights or optimizer state changed by themselves, which only faulty hardware explains; found by
// train.check_every. The message names group, rank and step, and the checkpoint to remove if one
// was being written meanwhile; none is written from what was found. The same command goes on from
// the newest checkpoint.
inline constexpr int kExitFlippedBits = 5;
// A rank, the network or the launcher was lost, and the others ended with it; the same command goes
// on from the newest checkpoint. The same as MpiRuntime::kMpiFailureExitCode.
inline constexpr int kExitPeerLost = 70;
// Stopped by SIGUSR1 or SIGTERM after saving; the same command goes on from there. (The code that
// sysexits.h calls EX_TEMPFAIL.)
inline constexpr int kExitStoppedBySignal = 75;
// No rank has made progress for train.stall_seconds; the message names the rank that is suspected.
// The same command goes on from the newest checkpoint.
inline constexpr int kExitStalled = 76;

}  // namespace panthera

#endif  // PANTHERA_LAUNCHER_EXIT_CODES_H_
