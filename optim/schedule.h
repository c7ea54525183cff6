#ifndef PANTHERA_OPTIM_SCHEDULE_H_
#define PANTHERA_OPTIM_SCHEDULE_H_

#include <cstdint>

#include "absl/status/status.h"

#include "optim/options.h"

namespace panthera {

// The learning rate of optimizer step `step` (counted from 0, the step about to be taken) of a run
// of `total_steps`, as a multiple of OptimOptions::learning_rate. A pure function; steps beyond the
// end keep the last factor. The options must have passed ValidateSchedule.
//
// kPiecewise           straight lines through `points`, with the point (0, 0) added if the first
//                      one is not at step 0; constant after the last point. This is the schedule of
//                      the Tiger reference code, here in optimizer steps.
//
// The other two warm up along (step + 1) / warmup_steps while step < warmup_steps, so that the
// first step already moves and step p = max(warmup_steps, 1) - 1 is the first with factor 1. With
// e = total_steps - 1, the last step:
//
// kCosine              f + (1 - f) * (1 + cos(pi * (step - p) / (e - p))) / 2, f = final_factor
// kWarmupStableDecay   1 until step e - decay_steps, from there straight down to f at step e
double ScheduleFactor(const ScheduleOptions& options, int64_t step, int64_t total_steps);

// Refuses what does not fit into a run of `total_steps`, points out of order, and fields that the
// chosen kind does not use.
absl::Status ValidateSchedule(const ScheduleOptions& options, int64_t total_steps);

}  // namespace panthera

#endif  // PANTHERA_OPTIM_SCHEDULE_H_
