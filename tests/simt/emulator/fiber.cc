#include "tests/simt/emulator/fiber.h"

#include <cstdlib>

#include <boost/context/detail/fcontext.hpp>
#include <sys/mman.h>

#if defined(__SANITIZE_ADDRESS__)
#include <sanitizer/asan_interface.h>
#include <sanitizer/common_interface_defs.h>
#endif
#if defined(__SANITIZE_THREAD__)
#include <sanitizer/tsan_interface.h>
#endif

// A switch happens on two stacks at once, which the race detector would take for two threads.
#define SIMT_NOT_WATCHED __attribute__((no_sanitize("thread")))

namespace simt {
namespace {

namespace context = boost::context::detail;

constexpr size_t kGuardBytes = 4096;
#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
constexpr size_t kStackBytes = 256 << 10;
#else
constexpr size_t kStackBytes = 64 << 10;
#endif

}  // namespace

// The two directions of a switch, with what the sanitizers must know.
struct Fiber::Switch {
  // The first code on a fiber's stack.
  SIMT_NOT_WATCHED static void Start(context::transfer_t from) {
    auto* fiber = static_cast<Fiber*>(from.data);
    fiber->resumer_ = from.fctx;
#if defined(__SANITIZE_ADDRESS__)
    __sanitizer_finish_switch_fiber(nullptr, &fiber->resumer_stack_, &fiber->resumer_stack_bytes_);
#endif
    fiber->entry_(fiber->argument_);
    std::abort();
  }
};

Fiber::Fiber(void (*entry)(void*), void* argument) : entry_(entry), argument_(argument) {
  void* memory = mmap(nullptr, kGuardBytes + kStackBytes, PROT_READ | PROT_WRITE,
                      MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
  if (memory == MAP_FAILED || mprotect(memory, kGuardBytes, PROT_NONE) != 0) {
    std::abort();
  }
  stack_ = static_cast<char*>(memory) + kGuardBytes;
  context_ = context::make_fcontext(stack_ + kStackBytes, kStackBytes, &Switch::Start);
#if defined(__SANITIZE_THREAD__)
  detector_fiber_ = __tsan_create_fiber(0);
#endif
}

Fiber::~Fiber() {
#if defined(__SANITIZE_ADDRESS__)
  ASAN_UNPOISON_MEMORY_REGION(stack_, kStackBytes);
#endif
#if defined(__SANITIZE_THREAD__)
  __tsan_destroy_fiber(detector_fiber_);
#endif
  munmap(stack_ - kGuardBytes, kGuardBytes + kStackBytes);
}

SIMT_NOT_WATCHED void Fiber::Resume() {
#if defined(__SANITIZE_ADDRESS__)
  __sanitizer_start_switch_fiber(&resumer_fake_stack_, stack_, kStackBytes);
#endif
#if defined(__SANITIZE_THREAD__)
  resumer_detector_fiber_ = __tsan_get_current_fiber();
  __tsan_switch_to_fiber(detector_fiber_, __tsan_switch_to_fiber_no_sync);
#endif
  context_ = context::jump_fcontext(context_, this).fctx;
#if defined(__SANITIZE_ADDRESS__)
  __sanitizer_finish_switch_fiber(resumer_fake_stack_, nullptr, nullptr);
#endif
}

SIMT_NOT_WATCHED void Fiber::Suspend() {
#if defined(__SANITIZE_ADDRESS__)
  __sanitizer_start_switch_fiber(&fake_stack_, resumer_stack_, resumer_stack_bytes_);
#endif
#if defined(__SANITIZE_THREAD__)
  __tsan_switch_to_fiber(resumer_detector_fiber_, __tsan_switch_to_fiber_no_sync);
#endif
  resumer_ = context::jump_fcontext(resumer_, this).fctx;
#if defined(__SANITIZE_ADDRESS__)
  __sanitizer_finish_switch_fiber(fake_stack_, &resumer_stack_, &resumer_stack_bytes_);
#endif
}

void Fiber::OrderBeforeCaller() {
#if defined(__SANITIZE_THREAD__)
  constexpr unsigned kOrdered = 0;
  void* const caller = __tsan_get_current_fiber();
  __tsan_switch_to_fiber(detector_fiber_, kOrdered);
  __tsan_switch_to_fiber(caller, kOrdered);
#endif
}

}  // namespace simt
