#ifndef PANTHERA_TESTS_SIMT_EMULATOR_FIBER_H_
#define PANTHERA_TESTS_SIMT_EMULATOR_FIBER_H_

#include <cstddef>

namespace simt {

// A stack and the place where execution on it stands. AddressSanitizer and ThreadSanitizer are told
// of every switch. Not movable: its stack points to it.
class Fiber {
 public:
  // `entry(argument)` begins on the fiber's own stack at the first Resume and must never return: it
  // ends in a Suspend that is not resumed. An overrun of the stack meets a guard page.
  Fiber(void (*entry)(void*), void* argument);
  Fiber(const Fiber&) = delete;
  Fiber& operator=(const Fiber&) = delete;
  // May be called while the fiber is suspended anywhere; what lies on its stack is not destroyed.
  ~Fiber();

  // Runs the fiber until it suspends. Called from outside.
  void Resume();

  // Returns from the Resume that runs this fiber; called on the fiber itself. Returns when it is
  // resumed.
  void Suspend();

  // Tells the race detector that what ran on the fiber so far came before what the caller does
  // next. No other switch tells it so.
  void OrderBeforeCaller();

 private:
  struct Switch;

  void (*entry_)(void*);
  void* argument_;
  char* stack_ = nullptr;
  void* context_ = nullptr;  // of this fiber while it is suspended
  void* resumer_ = nullptr;  // of who resumed it while it runs
  // For AddressSanitizer: the fake stacks of both sides, and the resumer's real one.
  void* fake_stack_ = nullptr;
  void* resumer_fake_stack_ = nullptr;
  const void* resumer_stack_ = nullptr;
  size_t resumer_stack_bytes_ = 0;
  // For ThreadSanitizer: both sides.
  void* detector_fiber_ = nullptr;
  void* resumer_detector_fiber_ = nullptr;
};

}  // namespace simt

#endif  // PANTHERA_TESTS_SIMT_EMULATOR_FIBER_H_
