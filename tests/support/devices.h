#ifndef PANTHERA_TESTS_SUPPORT_DEVICES_H_
#define PANTHERA_TESTS_SUPPORT_DEVICES_H_

#include <string>
#include <vector>

#include <gtest/gtest.h>

#include "runtime/device/device.h"

namespace panthera::testing {

// Those that this build and machine can compute on: the CPU, and one GPU, real or emulated, if
// there is one.
std::vector<Device> ComputeDevices();
// The GPU among them, if there is one.
std::vector<Device> Gpus();

// "cpu", "cuda": for INSTANTIATE_TEST_SUITE_P.
std::string DeviceName(const ::testing::TestParamInfo<Device>& info);

}  // namespace panthera::testing

#endif  // PANTHERA_TESTS_SUPPORT_DEVICES_H_
