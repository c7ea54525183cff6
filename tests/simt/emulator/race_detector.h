// What the emulator tells ThreadSanitizer; nothing in other builds.
//
// Every CUDA thread is a fiber of its own to the race detector, and only barriers and warp
// collectives order their accesses, so a missing one is a data race that it reports with both
// lines. The emulator's own bookkeeping runs on those fibers too and is hidden from it.
#ifndef PANTHERA_TESTS_SIMT_EMULATOR_RACE_DETECTOR_H_
#define PANTHERA_TESTS_SIMT_EMULATOR_RACE_DETECTOR_H_

#include <cstddef>

#if defined(__SANITIZE_THREAD__)
#include <sanitizer/tsan_interface.h>

extern "C" {
void __tsan_read_range(void* place, unsigned long bytes);
void __tsan_write_range(void* place, unsigned long bytes);
void AnnotateIgnoreReadsBegin(const char* file, int line);
void AnnotateIgnoreReadsEnd(const char* file, int line);
void AnnotateIgnoreWritesBegin(const char* file, int line);
void AnnotateIgnoreWritesEnd(const char* file, int line);
}
#endif

namespace simt {

#if defined(__SANITIZE_THREAD__)
inline constexpr bool kRaceDetector = true;
// What happened before a release of `place` happened before a later acquire of it.
inline void Release(void* place) { __tsan_release(place); }
inline void Acquire(void* place) { __tsan_acquire(place); }
// Accesses that the caller makes through functions of the C library, which are not watched.
inline void NoteRead(const void* place, size_t bytes) {
  __tsan_read_range(const_cast<void*>(place), bytes);
}
inline void NoteWrite(void* place, size_t bytes) { __tsan_write_range(place, bytes); }
inline void BeginBookkeeping() {
  AnnotateIgnoreReadsBegin(__FILE__, __LINE__);
  AnnotateIgnoreWritesBegin(__FILE__, __LINE__);
}
inline void EndBookkeeping() {
  AnnotateIgnoreReadsEnd(__FILE__, __LINE__);
  AnnotateIgnoreWritesEnd(__FILE__, __LINE__);
}
#else
inline constexpr bool kRaceDetector = false;
inline void Release(void* /*place*/) {}
inline void Acquire(void* /*place*/) {}
inline void NoteRead(const void* /*place*/, size_t /*bytes*/) {}
inline void NoteWrite(void* /*place*/, size_t /*bytes*/) {}
inline void BeginBookkeeping() {}
inline void EndBookkeeping() {}
#endif

}  // namespace simt

#endif  // PANTHERA_TESTS_SIMT_EMULATOR_RACE_DETECTOR_H_
