// A Hugging Face directory that was written without any code of the product.
#ifndef PANTHERA_TESTS_SUPPORT_PLAIN_MODEL_H_
#define PANTHERA_TESTS_SUPPORT_PLAIN_MODEL_H_

#include <cstdint>
#include <map>
#include <string>
#include <vector>

namespace panthera::testing {

struct PlainTensor {
  std::vector<int64_t> shape;
  std::vector<float> values;  // of 8 bits and small, so that every type of floats has them exactly
};
using PlainTensors = std::map<std::string, PlainTensor>;

// Element types by their names in files: "F32", "BF16", "F16".
std::string PlainElements(const std::vector<float>& values, const std::string& type);

// A safetensors file.
std::string PlainSafetensors(const PlainTensors& tensors, const std::string& type);

// A Llama of the shape of TinyRun's: a vocabulary of 23, width 16, 2 layers, 2 heads, 1 key/value
// head, feed-forward 24. Each tensor has values of its own, the gains among them about one.
class PlainModel {
 public:
  PlainModel();

  // config.json, by whose keys and JSON values it can be changed.
  std::map<std::string, std::string> config;
  PlainTensors tensors;

  // Writes config.json and the weights into `directory`, which is there: in one file, or dealt out
  // to several with an index.
  void Write(const std::string& directory, const std::string& type, int num_files) const;
};

void WriteText(const std::string& path, const std::string& text);
std::string ReadText(const std::string& path);

}  // namespace panthera::testing

#endif  // PANTHERA_TESTS_SUPPORT_PLAIN_MODEL_H_
