#ifndef PANTHERA_LAUNCHER_TEXT_TABLE_H_
#define PANTHERA_LAUNCHER_TEXT_TABLE_H_

#include <string>
#include <vector>

namespace panthera {

// Rows of cells in columns as wide as their widest cell, two spaces apart.
class TextTable {
 public:
  // One letter per column: 'l' aligns to the left, 'r' to the right.
  explicit TextTable(std::string alignment) : alignment_(std::move(alignment)) {}

  // As many cells as columns.
  void AddRow(std::vector<std::string> cells);
  bool empty() const { return rows_.empty(); }
  // Every line begins with `indent` and ends without spaces.
  std::string ToString(const std::string& indent) const;

 private:
  std::string alignment_;
  std::vector<std::vector<std::string>> rows_;
};

}  // namespace panthera

#endif  // PANTHERA_LAUNCHER_TEXT_TABLE_H_
