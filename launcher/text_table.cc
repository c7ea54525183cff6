#include "launcher/text_table.h"

#include <algorithm>
#include <utility>

#include "runtime/base/check.h"

namespace panthera {

void TextTable::AddRow(std::vector<std::string> cells) {
  CHECK_EQ(cells.size(), alignment_.size());
  rows_.push_back(std::move(cells));
}

std::string TextTable::ToString(const std::string& indent) const {
  std::vector<size_t> widths(alignment_.size(), 0);
  for (const std::vector<std::string>& row : rows_) {
    for (size_t column = 0; column < row.size(); ++column) {
      widths[column] = std::max(widths[column], row[column].size());
    }
  }
  std::string text;
  for (const std::vector<std::string>& row : rows_) {
    std::string line = indent;
    for (size_t column = 0; column < row.size(); ++column) {
      const std::string padding(widths[column] - row[column].size(), ' ');
      line += column == 0 ? "" : "  ";
      line += alignment_[column] == 'r' ? padding + row[column] : row[column] + padding;
    }
    line.erase(line.find_last_not_of(' ') + 1);
    text += line + "\n";
  }
  return text;
}

}  // namespace panthera
