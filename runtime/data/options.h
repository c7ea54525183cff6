#ifndef PANTHERA_RUNTIME_DATA_OPTIONS_H_
#define PANTHERA_RUNTIME_DATA_OPTIONS_H_

#include <cstdint>
#include <string>
#include <vector>

#include "runtime/base/fields.h"

namespace panthera {

// One set of token files and its share of the samples.
struct DataSource {
  std::string path;
  double weight = 1;

  void VisitFields(FieldVisitor& visit) {
    visit.Text(
        {"path", "Megatron .bin/.idx pair (named with or without ending) or llm.c .bin file"},
        path);
    visit.Real({"weight",
                "share of the samples, relative to the other sources; with one source "
                "every sample is used once per epoch"},
               weight, {1e-9, 1e9});
  }
};

struct DataOptions {
  std::vector<DataSource> train;
  std::vector<DataSource> validation;
  std::string tokenizer;
  int64_t seed = 0;

  void VisitFields(FieldVisitor& visit) {
    visit.Records({"train", "token files to learn from"}, train);
    visit.Records({"validation", "token files to measure on; may be empty"}, validation);
    visit.Text({"tokenizer", "SentencePiece model, or \"bytes\"; kept with the run for generation"},
               tokenizer);
    visit.Int({"seed", "of the order of samples"}, seed, {});
  }
};

}  // namespace panthera

#endif  // PANTHERA_RUNTIME_DATA_OPTIONS_H_
