#ifndef PANTHERA_TESTS_BENCH_MESH_TRAFFIC_H_
#define PANTHERA_TESTS_BENCH_MESH_TRAFFIC_H_

#include "absl/status/statusor.h"

#include "launcher/run_options.h"
#include "launcher/trainer.h"
#include "runtime/comm/mesh.h"

namespace panthera::bench {

// What a rank of `mesh` sends in one step, by formulas that know the model's sizes and nothing of
// the program; the source derives them. For Tiger that folds gradients into its momentum and
// publishes weights, and sizes that the tensor axis divides evenly; else an error says what does
// not suit. `options` must be finished.
absl::StatusOr<AxisBytes> TrafficByFormula(const RunOptions& options, const Mesh& mesh);

}  // namespace panthera::bench

#endif  // PANTHERA_TESTS_BENCH_MESH_TRAFFIC_H_
