// Token files laid out byte by byte, independently of the code under test.
#ifndef PANTHERA_TESTS_RUNTIME_DATA_TOKEN_BYTES_H_
#define PANTHERA_TESTS_RUNTIME_DATA_TOKEN_BYTES_H_

#include <cstdint>
#include <string>
#include <vector>

namespace panthera::testing {

void WriteBytes(const std::string& path, const std::string& bytes);
std::string ReadBytes(const std::string& path);

// The low `bytes` bytes of value, least significant first.
std::string LittleEndian(uint64_t value, int bytes);
// Every id in `bytes` bytes.
std::string Ids(const std::vector<int64_t>& ids, int bytes);

struct MegatronIndex {
  std::string magic = std::string("MMIDIDX\0\0", 9);
  uint64_t version = 1;
  uint8_t type = 8;
  std::vector<int64_t> lengths;
  std::vector<int64_t> offsets;
  std::vector<int64_t> boundaries;
  std::string trailer;

  std::string Bytes() const;
};

// An llm.c file with 1024 bytes of header.
std::string LlmCBytes(int32_t magic, int32_t version, int64_t count, const std::string& ids);

// A Megatron pair of uint16 ids that form one document.
void WritePair(const std::string& stem, const std::vector<int64_t>& ids);

}  // namespace panthera::testing

#endif  // PANTHERA_TESTS_RUNTIME_DATA_TOKEN_BYTES_H_
