#ifndef PANTHERA_TESTS_SUPPORT_REFERENCE_SWIGLU_H_
#define PANTHERA_TESTS_SUPPORT_REFERENCE_SWIGLU_H_

#include <cstddef>
#include <vector>

namespace panthera::testing::reference {

// model/ops/swiglu.h in double. gate_up [N, 2 width]; returns [N, width].
std::vector<double> SwiGlu(const std::vector<double>& gate_up, size_t width);
// dout [N, width]; returns dgate_up [N, 2 width].
std::vector<double> SwiGluBackward(const std::vector<double>& dout,
                                   const std::vector<double>& gate_up, size_t width);

}  // namespace panthera::testing::reference

#endif  // PANTHERA_TESTS_SUPPORT_REFERENCE_SWIGLU_H_
