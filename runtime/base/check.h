// CHECK macros for what only a bug of ours can break. What a user or the environment can cause is
// reported through absl::Status instead. The macro names are Abseil's (absl/log/check.h), which the
// distribution's Abseil does not have yet.
#ifndef PANTHERA_RUNTIME_BASE_CHECK_H_
#define PANTHERA_RUNTIME_BASE_CHECK_H_

#include <memory>
#include <sstream>
#include <string>

#include "absl/status/status.h"

namespace panthera::internal {

// Collects the message of a failed check and, when the full expression ends, prints it with the
// place of the check and aborts the process.
class CheckFailure {
 public:
  CheckFailure(const char* file, int line, const std::string& what);
  CheckFailure(const CheckFailure&) = delete;
  CheckFailure& operator=(const CheckFailure&) = delete;
  [[noreturn]] ~CheckFailure();

  std::ostream& stream() { return message_; }

 private:
  std::ostringstream message_;
};

template <typename A, typename B>
[[gnu::noinline]] std::unique_ptr<std::string> DescribeFailure(const A& a, const B& b,
                                                               const char* text) {
  std::ostringstream out;
  out << text << " (" << a << " vs. " << b << ")";
  return std::make_unique<std::string>(out.str());
}

#define PANTHERA_DEFINE_COMPARISON(name, op)                                             \
  template <typename A, typename B>                                                      \
  std::unique_ptr<std::string> Compare##name(const A& a, const B& b, const char* text) { \
    if (a op b) [[likely]] {                                                             \
      return nullptr;                                                                    \
    }                                                                                    \
    return DescribeFailure(a, b, text);                                                  \
  }
PANTHERA_DEFINE_COMPARISON(Eq, ==)
PANTHERA_DEFINE_COMPARISON(Ne, !=)
PANTHERA_DEFINE_COMPARISON(Lt, <)
PANTHERA_DEFINE_COMPARISON(Le, <=)
PANTHERA_DEFINE_COMPARISON(Gt, >)
PANTHERA_DEFINE_COMPARISON(Ge, >=)
#undef PANTHERA_DEFINE_COMPARISON

std::unique_ptr<std::string> CompareOk(const absl::Status& status, const char* text);

}  // namespace panthera::internal

#define CHECK(condition)                                                                           \
  while (!(condition))                                                                             \
  [[unlikely]] ::panthera::internal::CheckFailure(__FILE__, __LINE__, "CHECK failed: " #condition) \
      .stream()

#define PANTHERA_CHECK_RESULT(result)                                                             \
  while (auto panthera_check_text = (result)) /* NOLINT(bugprone-infinite-loop) */                \
  ::panthera::internal::CheckFailure(__FILE__, __LINE__, "CHECK failed: " + *panthera_check_text) \
      .stream()

#define CHECK_EQ(a, b) \
  PANTHERA_CHECK_RESULT(::panthera::internal::CompareEq((a), (b), #a " == " #b))
#define CHECK_NE(a, b) \
  PANTHERA_CHECK_RESULT(::panthera::internal::CompareNe((a), (b), #a " != " #b))
#define CHECK_LT(a, b) PANTHERA_CHECK_RESULT(::panthera::internal::CompareLt((a), (b), #a " < " #b))
#define CHECK_LE(a, b) \
  PANTHERA_CHECK_RESULT(::panthera::internal::CompareLe((a), (b), #a " <= " #b))
#define CHECK_GT(a, b) PANTHERA_CHECK_RESULT(::panthera::internal::CompareGt((a), (b), #a " > " #b))
#define CHECK_GE(a, b) \
  PANTHERA_CHECK_RESULT(::panthera::internal::CompareGe((a), (b), #a " >= " #b))
#define CHECK_OK(status) PANTHERA_CHECK_RESULT(::panthera::internal::CompareOk((status), #status))

#endif  // PANTHERA_RUNTIME_BASE_CHECK_H_
