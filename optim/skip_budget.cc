#include "optim/skip_budget.h"

namespace panthera {

void SkipBudget::Record(bool found_nonfinite) {
  window_ <<= 1;
  window_[0] = found_nonfinite;
}

}  // namespace panthera
