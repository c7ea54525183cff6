#ifndef PANTHERA_RUNTIME_DEVICE_MEMORY_LEDGER_H_
#define PANTHERA_RUNTIME_DEVICE_MEMORY_LEDGER_H_

#include <array>
#include <cstdint>
#include <string>
#include <vector>

namespace panthera {

enum class MemoryCategory : uint8_t {
  kWeights,         // parameters in the form that the layers read
  kOptimizerState,  // momentum, second moments, master weights, low bits
  kGradients,       // parameter gradients, full or scratch
  kCommunication,   // staging of what travels between ranks
  kActivations,     // the arena: activations, their gradients, scratch of ops and libraries
  kData,            // batches and lookup tables
  kCheckpoint,      // the copy that a checkpoint is written from, where that is not kPinned
  kPinned,          // host memory that a GPU copies from and to
};
inline constexpr int kNumMemoryCategories = 8;
const char* Name(MemoryCategory category);

// Keeps account of every byte that one rank requests through Buffer, by category and name.
// Not thread-safe: a rank has one.
class MemoryLedger {
 public:
  struct Entry {
    MemoryCategory category;
    std::string name;
    int64_t bytes;
  };

  void Add(MemoryCategory category, const std::string& name, int64_t bytes);
  void Remove(MemoryCategory category, const std::string& name, int64_t bytes);

  int64_t bytes(MemoryCategory category) const;
  // Of the device that computes: of all categories but kPinned.
  int64_t total_bytes() const;
  // What is held now, one entry per category and name, in the order of first use.
  const std::vector<Entry>& entries() const { return entries_; }

 private:
  std::vector<Entry> entries_;
};

// "3.2 GiB", "17 B": at most four significant characters and a unit of 1024.
std::string FormatBytes(int64_t bytes);

}  // namespace panthera

#endif  // PANTHERA_RUNTIME_DEVICE_MEMORY_LEDGER_H_
