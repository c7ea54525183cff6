#include "optim/schedule.h"

#include <algorithm>
#include <cmath>
#include <numbers>

#include "absl/strings/str_format.h"

#include "runtime/base/check.h"

namespace panthera {
namespace {

double Line(double from, double to, int64_t passed, int64_t length) {
  return from + (to - from) * static_cast<double>(passed) / static_cast<double>(length);
}

double Piecewise(const std::vector<SchedulePoint>& points, int64_t step) {
  SchedulePoint before{0, points.front().step == 0 ? points.front().factor : 0.0};
  for (const SchedulePoint& point : points) {
    if (step < point.step) {
      return Line(before.factor, point.factor, step - before.step, point.step - before.step);
    }
    before = point;
  }
  return before.factor;
}

absl::Status ValidatePoints(const std::vector<SchedulePoint>& points) {
  if (points.empty()) {
    return absl::InvalidArgumentError(
        "schedule.points is empty: kind = \"piecewise\" needs at least one point, such as "
        "{step = 0, factor = 1.0} for a constant rate");
  }
  for (size_t i = 1; i < points.size(); ++i) {
    if (points[i].step <= points[i - 1].step) {
      return absl::InvalidArgumentError(absl::StrFormat(
          "schedule.points must be in the order of their steps: step %d follows step %d",
          points[i].step, points[i - 1].step));
    }
  }
  return absl::OkStatus();
}

}  // namespace

double ScheduleFactor(const ScheduleOptions& options, int64_t step, int64_t total_steps) {
  CHECK_GE(step, 0);
  if (options.kind == ScheduleKind::kPiecewise) {
    return Piecewise(options.points, step);
  }
  if (step < options.warmup_steps) {
    return Line(0, 1, step + 1, options.warmup_steps);
  }
  const bool cosine = options.kind == ScheduleKind::kCosine;
  const int64_t last = total_steps - 1;
  const int64_t peak = std::max<int64_t>(options.warmup_steps, 1) - 1;
  const int64_t decay_begin = cosine ? peak : last - options.decay_steps;
  if (step <= decay_begin) {
    return 1;
  }
  if (step >= last) {
    return last > decay_begin ? options.final_factor : 1;
  }
  if (!cosine) {
    return Line(1, options.final_factor, step - decay_begin, last - decay_begin);
  }
  const double angle = Line(0, std::numbers::pi, step - decay_begin, last - decay_begin);
  return options.final_factor + (1 - options.final_factor) * (1 + std::cos(angle)) / 2;
}

absl::Status ValidateSchedule(const ScheduleOptions& options, int64_t total_steps) {
  const char* kind = EnumName(options.kind);
  const bool piecewise = options.kind == ScheduleKind::kPiecewise;
  if (piecewise && options.warmup_steps != 0) {
    return absl::InvalidArgumentError(
        "schedule.warmup_steps is not used by kind = \"piecewise\": remove it and make the "
        "first point the end of the warm-up");
  }
  if (!piecewise && !options.points.empty()) {
    return absl::InvalidArgumentError(absl::StrFormat(
        "schedule.points is not used by kind = \"%s\": remove it or set kind = \"piecewise\"",
        kind));
  }
  if (options.kind != ScheduleKind::kWarmupStableDecay && options.decay_steps != 0) {
    return absl::InvalidArgumentError(
        absl::StrFormat("schedule.decay_steps is not used by kind = \"%s\": remove it or set "
                        "kind = \"warmup_stable_decay\"",
                        kind));
  }
  if (piecewise) {
    return ValidatePoints(options.points);
  }
  // Compared without adding, which could overflow.
  if (options.warmup_steps > total_steps ||
      options.decay_steps > total_steps - options.warmup_steps) {
    return absl::InvalidArgumentError(
        absl::StrFormat("schedule.warmup_steps (%d) and decay_steps (%d) together exceed the run's "
                        "%d steps; shorten "
                        "them or raise train.steps",
                        options.warmup_steps, options.decay_steps, total_steps));
  }
  return absl::OkStatus();
}

}  // namespace panthera
