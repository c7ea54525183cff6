#ifndef PANTHERA_RUNTIME_BASE_ONE_LINE_H_
#define PANTHERA_RUNTIME_BASE_ONE_LINE_H_

#include <string>

namespace panthera {

// `text` with every control character as "\x0A": what a file or an argument contains, as it can
// stand in a message, which is one line and must not steer the terminal.
std::string OneLine(const std::string& text);

}  // namespace panthera

#endif  // PANTHERA_RUNTIME_BASE_ONE_LINE_H_
