// How option structs are written down: once.
//
// A component's options are a plain struct with defaults and one member function
//
//   void VisitFields(FieldVisitor& visit) {
//     visit.Int({"layers", "number of transformer blocks"}, layers, {1, 1024});
//     visit.Enum({"tie", "what the output matrix shares with the embedding"}, tie);
//   }
//
// Reading from a file, overriding, printing, comparing and documenting are visitors.
#ifndef PANTHERA_RUNTIME_BASE_FIELDS_H_
#define PANTHERA_RUNTIME_BASE_FIELDS_H_

#include <cstddef>
#include <cstdint>
#include <limits>
#include <span>
#include <string>
#include <vector>

#include "runtime/base/check.h"

namespace panthera {

struct FieldInfo {
  const char* name;
  // One line for a user: meaning, unit, and what a special value (0, "") does.
  const char* help;
};

// Values outside [min, max] are errors.
struct IntRange {
  int64_t min = 0;
  int64_t max = std::numeric_limits<int64_t>::max();
};
struct RealRange {
  double min = 0;
  double max = std::numeric_limits<double>::max();
};

// The text form of an enum's values, in the order of the values 0, 1, 2, ... Specialise
//   template <> struct EnumNames<Tie> {
//     static constexpr const char* kNames[] = {"none", "tied", "swap_halves"};
//   };
template <typename E>
struct EnumNames;

template <typename E>
const char* EnumName(E value) {
  const auto index = static_cast<size_t>(value);
  CHECK_LT(index, std::size(EnumNames<E>::kNames));
  return EnumNames<E>::kNames[index];
}

class FieldVisitor {
 public:
  virtual ~FieldVisitor() = default;

  virtual void Int(const FieldInfo& info, int64_t& value, IntRange range) = 0;
  virtual void Real(const FieldInfo& info, double& value, RealRange range) = 0;
  virtual void Text(const FieldInfo& info, std::string& value) = 0;
  // `index` counts in `names`.
  virtual void Choice(const FieldInfo& info, std::span<const char* const> names, size_t& index) = 0;
  // A list of `count` records, each with fields of its own (a TOML array of tables). Returns the
  // new count; the caller resizes and then visits record i between BeginRecord(i) and EndRecord().
  virtual size_t BeginRecords(const FieldInfo& info, size_t count) = 0;
  virtual void BeginRecord(size_t index) = 0;
  virtual void EndRecord() = 0;
  virtual void EndRecords() = 0;

  template <typename E>
  void Enum(const FieldInfo& info, E& value) {
    auto index = static_cast<size_t>(value);
    Choice(info, EnumNames<E>::kNames, index);
    value = static_cast<E>(index);
  }

  template <typename Record>
  void Records(const FieldInfo& info, std::vector<Record>& records) {
    records.resize(BeginRecords(info, records.size()));
    for (size_t i = 0; i < records.size(); ++i) {
      BeginRecord(i);
      records[i].VisitFields(*this);
      EndRecord();
    }
    EndRecords();
  }
};

}  // namespace panthera

#endif  // PANTHERA_RUNTIME_BASE_FIELDS_H_
