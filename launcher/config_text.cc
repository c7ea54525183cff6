#include "launcher/config_text.h"

#include <span>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"

#include "launcher/field_text.h"

namespace panthera {
namespace {

constexpr size_t kColumns = 100;

// Sees every field as its value's text and a text of what values it may have.
class TextVisitor : public SectionVisitor {
 public:
  void Int(const FieldInfo& info, int64_t& value, IntRange range) override {
    const bool is_missing = value < range.min || value > range.max;
    Field(info, absl::StrCat(value),
          absl::StrCat(RangeText(range), is_missing ? "; must be set" : ""));
  }
  void Real(const FieldInfo& info, double& value, RealRange range) override {
    Field(info, RealText(value), RangeText(range));
  }
  void Text(const FieldInfo& info, std::string& value) override {
    Field(info, QuotedText(value), "");
  }
  void Choice(const FieldInfo& info, std::span<const char* const> names, size_t& index) override {
    Field(info, QuotedText(names[index]), ChoicesText(names));
  }

 protected:
  virtual void Field(const FieldInfo& info, const std::string& value,
                     const std::string& domain) = 0;
};

class ListVisitor final : public TextVisitor {
 public:
  std::vector<ConfigField> TakeFields() { return std::move(fields_); }

  void BeginSection(const FieldInfo& info) override { prefix_ = absl::StrCat(info.name, "."); }
  void EndSection() override {}
  size_t BeginRecords(const FieldInfo& info, size_t count) override {
    section_prefix_ = prefix_;
    list_ = absl::StrCat(prefix_, info.name);
    return count;
  }
  void BeginRecord(size_t index) override { prefix_ = absl::StrCat(list_, "[", index, "]."); }
  void EndRecord() override {}
  void EndRecords() override { prefix_ = section_prefix_; }

 private:
  void Field(const FieldInfo& info, const std::string& value, const std::string&) override {
    fields_.push_back({absl::StrCat(prefix_, info.name), value, info.help});
  }

  std::string prefix_;
  std::string section_prefix_;
  std::string list_;
  std::vector<ConfigField> fields_;
};

// `text` as comment lines.
std::string Comment(const std::string& text) {
  std::string comment;
  std::string line(1, '#');
  for (const auto word : absl::StrSplit(text, ' ')) {
    if (line.size() + 1 + word.size() > kColumns) {
      absl::StrAppend(&comment, line, "\n");
      line.assign(1, '#');
    }
    absl::StrAppend(&line, " ", word);
  }
  return absl::StrCat(comment, line, "\n");
}

class PrintVisitor final : public TextVisitor {
 public:
  std::string TakeText() { return std::move(text_); }

  void BeginSection(const FieldInfo& info) override {
    section_ = info.name;
    absl::StrAppend(&text_, text_.empty() ? "" : "\n", Comment(info.help), "[", section_, "]\n");
  }
  void EndSection() override {
    absl::StrAppend(&text_, records_);
    records_.clear();
  }
  size_t BeginRecords(const FieldInfo& info, size_t count) override {
    list_ = info.name;
    in_records_ = true;
    if (count == 0) {
      absl::StrAppend(&text_, Comment(info.help), list_, " = []\n");
    } else {
      absl::StrAppend(&records_, "\n", Comment(info.help));
    }
    return count;
  }
  void BeginRecord(size_t index) override {
    first_record_ = index == 0;
    absl::StrAppend(&records_, "[[", section_, ".", list_, "]]\n");
  }
  void EndRecord() override {}
  void EndRecords() override { in_records_ = false; }

 private:
  void Field(const FieldInfo& info, const std::string& value, const std::string& domain) override {
    std::string& text = in_records_ ? records_ : text_;
    if (!in_records_ || first_record_) {
      absl::StrAppend(
          &text, Comment(domain.empty() ? info.help : absl::StrCat(info.help, " [", domain, "]")));
    }
    absl::StrAppend(&text, info.name, " = ", value, "\n");
  }

  std::string text_;
  std::string section_;
  std::string list_;
  // In TOML the tables of a section's lists must follow all of its plain keys.
  std::string records_;
  bool in_records_ = false;
  bool first_record_ = false;
};

}  // namespace

std::vector<ConfigField> ListFields(const RunOptions& options) {
  RunOptions copy = options;  // visitors see mutable fields
  ListVisitor visitor;
  copy.VisitSections(visitor);
  return visitor.TakeFields();
}

std::string PrintConfig(const RunOptions& options) {
  RunOptions copy = options;  // visitors see mutable fields
  PrintVisitor visitor;
  copy.VisitSections(visitor);
  return visitor.TakeText();
}

std::string PrintModelConfig(const ModelOptions& model, const std::string& start_from) {
  ModelOptions copy = model;  // visitors see mutable fields
  PrintVisitor visitor;
  visitor.Section({"model", "shape of the transformer"}, copy);
  return absl::StrCat(visitor.TakeText(), "\n[train]\nstart_from = ", QuotedText(start_from), "\n");
}

std::string PrintConfigReference() {
  RunOptions options;
  options.optim.schedule.points.resize(1);
  options.data.train.resize(1);
  options.data.validation.resize(1);
  return PrintConfig(options);
}

}  // namespace panthera
