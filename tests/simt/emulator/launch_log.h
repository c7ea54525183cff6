#ifndef PANTHERA_TESTS_SIMT_EMULATOR_LAUNCH_LOG_H_
#define PANTHERA_TESTS_SIMT_EMULATOR_LAUNCH_LOG_H_

namespace simt {

// Where environment variable PANTHERA_SIMT_LAUNCH_LOG names a file, appends a line at the first
// launch of each kernel by this process: its address in the program's file, in hexadecimal, as nm
// shows it. So a test can be held to the kernels that it claims to run (tests/simt/check_launches).
void LogLaunch(const void* kernel);

}  // namespace simt

#endif  // PANTHERA_TESTS_SIMT_EMULATOR_LAUNCH_LOG_H_
