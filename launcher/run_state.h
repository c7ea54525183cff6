// state.json of a checkpoint: where the run stands, for people and tools, and what it learned from,
// so that a resume notices data that changed under the same name.
//
// {"step": 500, "sequences": 16000, "tokens": 8192000, "data_seed": 1,
//  "data_ranks": 2, "tensor_ranks": 1,
//  "data": [{"key": "data.train[0]", "path": "data/train.bin", "tokens": 1000000,
//            "fingerprint": "0f12..."}],
//  "tokenizer": "..."}
#ifndef PANTHERA_LAUNCHER_RUN_STATE_H_
#define PANTHERA_LAUNCHER_RUN_STATE_H_

#include <cstdint>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"

#include "launcher/run_options.h"
#include "runtime/comm/mesh.h"
#include "runtime/data/loader.h"
#include "runtime/data/tokenizer.h"

namespace panthera {

// One token file of the training data.
struct DataFileRecord {
  std::string key;  // of its source: "data.train[0]"
  std::string path;
  int64_t tokens = 0;
  uint64_t fingerprint = 0;  // TokenFile::Fingerprint
};

// What a run learns from.
struct DataRecord {
  std::vector<DataFileRecord> files;  // in the order of the sources and of their files
  std::string tokenizer;              // its fingerprint; empty if there is none
};

struct RunState {
  int64_t step = 0;
  int64_t sequences = 0;  // learned from; the next sample's number in the order of samples
  int64_t tokens = 0;
  int64_t data_seed = 0;
  // The mesh that saved it; 0 if it is not known.
  int64_t data_ranks = 0;
  int64_t tensor_ranks = 0;
  DataRecord data;
};

// Reads some blocks of every file (TokenFile::Fingerprint). `tokenizer` may be null.
DataRecord DescribeData(const DataLoader& data, const Tokenizer* tokenizer);

// The state after `step` optimizer steps on a mesh.
RunState StateAfter(const RunOptions& options, const Mesh& mesh, const DataRecord& data,
                    int64_t step);

std::string RunStateJson(const RunState& state);
absl::StatusOr<RunState> ParseRunState(const std::string& text);

// kFailedPrecondition that names the first file with other contents, or the tokenizer. A file that
// only moved is the same. A state without data, which is how it was saved before there were
// records, is equal to any.
absl::Status CheckSameData(const DataRecord& before, const DataRecord& now);

}  // namespace panthera

#endif  // PANTHERA_LAUNCHER_RUN_STATE_H_
