#include "tests/runtime/data/token_bytes.h"

#include <fstream>
#include <iterator>

#include "runtime/base/check.h"

namespace panthera::testing {

void WriteBytes(const std::string& path, const std::string& bytes) {
  std::ofstream file(path, std::ios::binary);
  file << bytes;
  file.close();
  CHECK(file.good()) << path;
}

std::string ReadBytes(const std::string& path) {
  std::ifstream file(path, std::ios::binary);
  CHECK(file.good()) << path;
  return std::string((std::istreambuf_iterator<char>(file)), std::istreambuf_iterator<char>());
}

std::string LittleEndian(uint64_t value, int bytes) {
  std::string result;
  for (int i = 0; i < bytes; ++i) {
    result.push_back(static_cast<char>(value >> (8 * i) & 0xFF));
  }
  return result;
}

std::string Ids(const std::vector<int64_t>& ids, int bytes) {
  std::string result;
  for (const int64_t id : ids) {
    result += LittleEndian(static_cast<uint64_t>(id), bytes);
  }
  return result;
}

std::string MegatronIndex::Bytes() const {
  return magic + LittleEndian(version, 8) + LittleEndian(type, 1) +
         LittleEndian(lengths.size(), 8) + LittleEndian(boundaries.size(), 8) + Ids(lengths, 4) +
         Ids(offsets, 8) + Ids(boundaries, 8) + trailer;
}

std::string LlmCBytes(int32_t magic, int32_t version, int64_t count, const std::string& ids) {
  std::string header = LittleEndian(static_cast<uint64_t>(magic), 4) +
                       LittleEndian(static_cast<uint64_t>(version), 4) +
                       LittleEndian(static_cast<uint64_t>(count), 4);
  header.resize(1024, '\0');
  return header + ids;
}

void WritePair(const std::string& stem, const std::vector<int64_t>& ids) {
  MegatronIndex index;
  index.lengths = {static_cast<int64_t>(ids.size())};
  index.offsets = {0};
  index.boundaries = {0, 1};
  WriteBytes(stem + ".idx", index.Bytes());
  WriteBytes(stem + ".bin", Ids(ids, 2));
}

}  // namespace panthera::testing
