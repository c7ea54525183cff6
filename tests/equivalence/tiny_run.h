#ifndef PANTHERA_TESTS_EQUIVALENCE_TINY_RUN_H_
#define PANTHERA_TESTS_EQUIVALENCE_TINY_RUN_H_

#include <cstdint>
#include <map>
#include <memory>
#include <string>
#include <vector>

#include "launcher/trainer.h"
#include "launcher/world.h"
#include "runtime/data/loader.h"
#include "tests/support/rank_harness.h"
#include "tests/support/temp_dir.h"

namespace panthera::testing {

// A model of a few thousand parameters, text that it can learn, and options to train it for
// `steps`. The global batch is 12 sequences, one per micro-step and rank.
class TinyRun {
 public:
  explicit TinyRun(int64_t steps);

  // Replaces the training text by two short ones: 31 samples with 0.7 of the weight and 18 with
  // 0.3. Twelve samples a step end an epoch of the first after 44 samples, in the 4th step, and one
  // of the second after 60, at the end of the 5th.
  void UseShortTexts();

  RunOptions options;  // not finished
  const std::string& directory() const { return directory_.path(); }
  DataLoader OpenData() const;

 private:
  TempDir directory_;
};

// A world of thread ranks as the launcher has it, each computing on `device`, of which `tensor`
// neighbours at a time share each layer; the ranks of `ranks` must make the same calls.
World WorldOf(RankWorld& ranks, Device device = {}, int tensor = 1);

// A trainer with fresh parameters for this rank.
std::unique_ptr<Trainer> NewTrainer(RunOptions options, World& world, MemoryLedger& ledger);

// Logical tensors by "<name>" or "<name>|<state>".
using Tensors = std::map<std::string, std::vector<float>>;

// Adds what this rank's shards hold of weights and optimizer state to `tensors`, in fp32.
void CopyShards(Trainer& trainer, Tensors& tensors);

}  // namespace panthera::testing

#endif  // PANTHERA_TESTS_EQUIVALENCE_TINY_RUN_H_
