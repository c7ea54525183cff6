#ifndef PANTHERA_OPTIM_SKIP_BUDGET_H_
#define PANTHERA_OPTIM_SKIP_BUDGET_H_

#include <bitset>
#include <cstdint>

namespace panthera {

// So many steps does a SkipBudget look back.
inline constexpr int64_t kSkipWindow = 100;

// Tells a run that stumbles from one that has fallen: counts the steps, among the latest
// kSkipWindow, in which something was not finite (NonFiniteReport::found). A window sees both a run
// that makes no more progress, after budget + 1 steps, and one that loses every fifth step for
// ever, which a count of consecutive steps would not. It begins empty, also when a run is resumed.
class SkipBudget {
 public:
  // OptimOptions::skip_budget; kSkipWindow is never exceeded.
  explicit SkipBudget(int64_t budget) : budget_(budget) {}

  void Record(bool found_nonfinite);
  bool latest_was_nonfinite() const { return window_[0]; }
  // Those in the window.
  int64_t nonfinite_steps() const { return static_cast<int64_t>(window_.count()); }
  bool exceeded() const { return nonfinite_steps() > budget_; }

 private:
  int64_t budget_;
  std::bitset<kSkipWindow> window_;  // bit i: the step i steps before the latest
};

}  // namespace panthera

#endif  // PANTHERA_OPTIM_SKIP_BUDGET_H_
