#include "launcher/config_file.h"

#include <algorithm>
#include <cerrno>
#include <cstddef>
#include <cstdint>
#include <cstdio>
#include <cstring>
#include <memory>
#include <optional>
#include <set>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"

#include "launcher/closest_name.h"
#include "launcher/config_problems.h"
#include "launcher/config_text.h"
#include "launcher/field_text.h"
#include "launcher/override_key.h"
#include "runtime/base/status_macros.h"
#include "runtime/data/utf8.h"
#define TOML_EXCEPTIONS 0
// The distribution compiles its library with exceptions.
#define TOML_HEADER_ONLY 1
// The parser asserts what a mistake in the file breaks, such as "[)a]", and then reports it.
#define TOML_ASSERT(condition) static_assert(true)
#include "toml++/toml.h"

namespace panthera {
namespace {

void AddProblem(ConfigProblems& problems, const toml::source_region& where,
                const std::string& text) {
  problems.Add(where.path.get(), static_cast<int64_t>(where.begin.line), text);
}

// The kind of a node with its value if that is short: "the string \"many\"".
std::string Describe(const toml::node& node) {
  switch (node.type()) {
    case toml::node_type::string:
      return absl::StrCat("the string ", QuotedText(node.as_string()->get()));
    case toml::node_type::integer:
      return absl::StrCat("the integer ", node.as_integer()->get());
    case toml::node_type::floating_point:
      return absl::StrCat("the real number ", RealText(node.as_floating_point()->get()));
    case toml::node_type::boolean:
      return node.as_boolean()->get() ? "true" : "false";
    case toml::node_type::date:
    case toml::node_type::time:
    case toml::node_type::date_time:
      return "a date or time";
    case toml::node_type::array:
      return "a list";
    case toml::node_type::table:
      return "a table";
    case toml::node_type::none:
      return "nothing";
  }
  return "nothing";
}

// Gives every field the value that the parsed configuration has for it.
class TomlReader final : public SectionVisitor {
 public:
  TomlReader(const toml::table& root, ConfigProblems& problems) : problems_(problems) {
    frames_.push_back({.table = &root, .where = root.source()});
  }

  // To be called after the visit. A key or section that is missing because its name is misspelt is
  // one mistake.
  void ReportUnknownAndMissing() {
    CloseFrame();
    for (const Missing& missing : missing_) {
      const std::string section = missing.key.substr(0, missing.key.find('.'));
      if (misspelt_.count(missing.key) == 0 && misspelt_.count(section) == 0) {
        AddProblem(problems_, missing.where,
                   absl::StrCat("set `", missing.key, "`, which is missing: ", missing.help));
      }
    }
  }

  void BeginSection(const FieldInfo& info) override {
    const toml::node* node = Find(info);
    Frame frame{.name = absl::StrCat("[", info.name, "]"), .prefix = absl::StrCat(info.name, ".")};
    OpenFrame(std::move(frame), node);
  }
  void EndSection() override { CloseFrame(); }

  void Int(const FieldInfo& info, int64_t& value, IntRange range) override {
    const toml::node* node = Find(info);
    if (node == nullptr) {
      RequireDefault(info, value >= range.min && value <= range.max);
    } else if (const auto* integer = node->as_integer()) {
      if (integer->get() < range.min || integer->get() > range.max) {
        OutOfRange(info, *node, absl::StrCat(integer->get()), RangeText(range));
      } else {
        value = integer->get();
      }
    } else {
      WrongType(info, *node, "an integer");
    }
  }

  void Real(const FieldInfo& info, double& value, RealRange range) override {
    const toml::node* node = Find(info);
    if (node == nullptr) {
      RequireDefault(info, value >= range.min && value <= range.max);
    } else if (const std::optional<double> real = NumberOf(*node)) {
      if (*real >= range.min && *real <= range.max) {
        value = *real;
      } else {
        OutOfRange(info, *node, RealText(*real), RangeText(range));
      }
    } else {
      WrongType(info, *node, "a number");
    }
  }

  void Text(const FieldInfo& info, std::string& value) override {
    const toml::node* node = Find(info);
    if (node == nullptr) {
      return;
    }
    if (const auto* text = node->as_string()) {
      value = text->get();
    } else if (const std::optional<std::string> bare = BareOverride(info, *node)) {
      value = *bare;
    } else {
      WrongType(info, *node, "a string in quotes");
    }
  }

  void Choice(const FieldInfo& info, std::span<const char* const> names, size_t& index) override {
    const toml::node* node = Find(info);
    if (node == nullptr) {
      return;
    }
    const auto* text = node->as_string();
    if (text == nullptr) {
      WrongType(info, *node, absl::StrCat("one of ", ChoicesText(names)));
      return;
    }
    const auto name = std::find(names.begin(), names.end(), text->get());
    if (name != names.end()) {
      index = static_cast<size_t>(name - names.begin());
      return;
    }
    const auto closest = ClosestName(text->get(), {names.begin(), names.end()});
    AddProblem(
        problems_, node->source(),
        absl::StrCat("`", Key(info), "` = ", QuotedText(text->get()), " is not one of ",
                     ChoicesText(names),
                     closest ? absl::StrCat("; did you mean ", QuotedText(*closest), "?") : ""));
  }

  size_t BeginRecords(const FieldInfo& info, size_t count) override {
    const toml::node* node = Find(info);
    list_ = {.name = info.name, .prefix = Key(info), .array = nullptr};
    if (node == nullptr) {
      return count;
    }
    list_.array = node->as_array();
    if (list_.array == nullptr) {
      WrongType(info, *node, absl::StrCat("a list of tables: [[", Key(info), "]]"));
      return 0;
    }
    return list_.array->size();
  }
  void BeginRecord(size_t index) override {
    Frame frame{.name = absl::StrCat("[[", list_.prefix, "]]"),
                .prefix = absl::StrCat(list_.prefix, "[", index, "].")};
    OpenFrame(std::move(frame), list_.array == nullptr ? nullptr : list_.array->get(index));
  }
  void EndRecord() override { CloseFrame(); }
  void EndRecords() override {}

 private:
  // A table whose fields are being visited.
  struct Frame {
    std::string name = {};    // for messages: "[model]"
    std::string prefix = {};  // of its keys: "model."
    const toml::table* table = nullptr;
    toml::source_region where = {};
    bool is_malformed = false;
    std::vector<std::string> known = {};  // names of the fields seen so far
  };
  struct Missing {
    toml::source_region where;
    std::string key;
    std::string help;
  };
  struct List {
    std::string name;
    std::string prefix;
    const toml::array* array;
  };

  static std::optional<double> NumberOf(const toml::node& node) {
    if (const auto* real = node.as_floating_point()) {
      return real->get();
    }
    if (const auto* integer = node.as_integer()) {
      return static_cast<double>(integer->get());
    }
    return std::nullopt;
  }

  std::string Key(const FieldInfo& info) const {
    return absl::StrCat(frames_.back().prefix, info.name);
  }

  const toml::node* Find(const FieldInfo& info) {
    Frame& frame = frames_.back();
    frame.known.emplace_back(info.name);
    return frame.table == nullptr ? nullptr : frame.table->get(info.name);
  }

  void OpenFrame(Frame frame, const toml::node* node) {
    if (node != nullptr) {
      frame.where = node->source();
      frame.table = node->as_table();
      if (frame.table == nullptr) {
        frame.is_malformed = true;
        AddProblem(problems_, frame.where,
                   absl::StrCat("`", frame.prefix.substr(0, frame.prefix.size() - 1),
                                "` must be a table ", frame.name, "; found ", Describe(*node)));
      }
    }
    frames_.push_back(std::move(frame));
  }

  void CloseFrame() {
    const Frame frame = std::move(frames_.back());
    frames_.pop_back();
    if (frame.table == nullptr) {
      return;
    }
    for (auto&& [key, node] : *frame.table) {
      const std::string name(key.str());
      if (std::find(frame.known.begin(), frame.known.end(), name) == frame.known.end()) {
        const bool is_section = frames_.empty() && node.is_table();
        AddProblem(problems_, node.source(),
                   absl::StrCat("unknown ", is_section ? "section [" : "key `", frame.prefix, name,
                                is_section ? "]" : "`", Suggestion(frame, name)));
      }
    }
  }

  std::string Suggestion(const Frame& frame, const std::string& name) {
    if (const auto closest = ClosestName(name, frame.known)) {
      misspelt_.insert(frame.prefix + *closest);
      return absl::StrCat("; did you mean `", *closest, "`?");
    }
    const std::string ending = absl::StrCat(".", name);
    for (const ConfigField& field : ListFields(RunOptions())) {
      if (std::string_view(field.key).ends_with(ending)) {
        return absl::StrCat("; did you mean `", field.key, "`?");
      }
    }
    return absl::StrCat("; known ", frame.name.empty() ? "sections" : "keys", " are ",
                        absl::StrJoin(frame.known, ", "));
  }

  // A field without a value that everybody can start from has a default outside its range.
  void RequireDefault(const FieldInfo& info, bool is_default_valid) {
    if (!is_default_valid && !frames_.back().is_malformed) {
      missing_.push_back({frames_.back().where, Key(info), info.help});
    }
  }

  void OutOfRange(const FieldInfo& info, const toml::node& node, const std::string& value,
                  const std::string& range) {
    AddProblem(problems_, node.source(),
               absl::StrCat("`", Key(info), "` = ", value, " is out of range (", range, ")"));
  }

  void WrongType(const FieldInfo& info, const toml::node& node, const std::string& expected) {
    AddProblem(problems_, node.source(),
               absl::StrCat("`", Key(info), "` must be ", expected, "; found ", Describe(node)));
  }

  // The text of a string without quotes that happens to look like another TOML value.
  std::optional<std::string> BareOverride(const FieldInfo& info, const toml::node& node) const {
    const std::string start = SetFlag(absl::StrCat(Key(info), "="));
    const toml::source_path_ptr& path = node.source().path;
    if (path == nullptr || !std::string_view(*path).starts_with(start)) {
      return std::nullopt;
    }
    return path->substr(start.size());
  }

  ConfigProblems& problems_;
  std::vector<Frame> frames_;
  List list_ = {};
  std::vector<Missing> missing_;
  std::set<std::string> misspelt_;  // names that unknown ones were taken for
};

// Moves the nodes of `from` into `into`, tables into tables of the same name. Moved nodes keep
// their source, copies would not.
void MergeTable(toml::table& from, toml::table& into) {
  for (auto&& [key, node] : from) {
    toml::node* existing = into.get(key.str());
    if (existing != nullptr && existing->is_table() && node.is_table()) {
      MergeTable(*node.as_table(), *existing->as_table());
    } else {
      node.visit([&, &name = key](auto& value) { into.insert_or_assign(name, std::move(value)); });
    }
  }
}

// `key` = `value` as a table, the value being a TOML value or else a bare string.
toml::table ParseAssignment(const std::string& key, const std::string& value,
                            const std::string& source) {
  if (value.find('\n') == std::string::npos) {
    toml::parse_result parsed = toml::parse(absl::StrCat(key, " = ", value), source);
    if (parsed) {
      return std::move(parsed).table();
    }
  }
  toml::table table = toml::parse(absl::StrCat(key, " = ''"), source).table();
  toml::node* leaf = &table;
  while (leaf->is_table()) {
    leaf = &leaf->as_table()->begin()->second;
  }
  leaf->as_string()->get() = value;
  return table;
}

// The table that the rest of `parts`, from `first` on, is to be set in: that of the last part with
// an index, or the root. Advances `first`; null if a part is not there.
toml::table* FindTable(const std::vector<KeyPart>& parts, toml::table& root, size_t& first) {
  toml::table* table = &root;
  toml::table* inner = &root;
  for (size_t i = 0; i < parts.size(); ++i) {
    toml::node* node = inner == nullptr ? nullptr : inner->get(parts[i].name);
    if (parts[i].index) {
      toml::array* array = node == nullptr ? nullptr : node->as_array();
      node = array == nullptr ? nullptr : array->get(*parts[i].index);
      table = node == nullptr ? nullptr : node->as_table();
      if (table == nullptr) {
        return nullptr;
      }
      first = i + 1;
    }
    inner = node == nullptr ? nullptr : node->as_table();
  }
  return table;
}

// Sets what `text` says in `root`; returns what is wrong with it, or nothing.
std::string ApplyOverride(const std::string& text, toml::table& root) {
  const size_t equals = text.find('=');
  const auto parts = equals == std::string::npos
                         ? std::nullopt
                         : ParseOverrideKey(std::string_view(text).substr(0, equals));
  if (!parts) {
    return "expected SECTION.KEY=VALUE, such as train.steps=100";
  }
  // As in a file: what is not UTF-8 could be printed into a checkpoint but not read back.
  if (ValidUtf8Prefix(text) < text.size()) {
    return "the value is not UTF-8";
  }
  size_t first = 0;
  toml::table* table = FindTable(*parts, root, first);
  if (table == nullptr) {
    return "there is no such list entry; entries count from 0";
  }
  if (first == parts->size()) {
    return "set one key of the list entry, or the whole list";
  }
  const std::string key =
      absl::StrJoin(parts->begin() + static_cast<std::ptrdiff_t>(first), parts->end(), ".",
                    [](std::string* out, const KeyPart& part) { out->append(part.name); });
  toml::table assignment = ParseAssignment(key, text.substr(equals + 1), SetFlag(text));
  MergeTable(assignment, *table);
  return "";
}

absl::StatusOr<std::string> ReadTextFile(const std::string& path) {
  const auto close = [](std::FILE* file) { std::fclose(file); };
  const std::unique_ptr<std::FILE, decltype(close)> file(std::fopen(path.c_str(), "rb"), close);
  std::string text;
  char block[4096];
  size_t count = 0;
  while (file != nullptr && (count = std::fread(block, 1, sizeof(block), file.get())) > 0) {
    text.append(block, count);
  }
  if (file == nullptr || std::ferror(file.get()) != 0) {
    return absl::NotFoundError(
        absl::StrCat("cannot read the configuration ", path, ": ", std::strerror(errno),
                     "; name a TOML file, such as one of those in configs/"));
  }
  return text;
}

}  // namespace

absl::Status ParseConfig(const std::string& text, const std::string& name,
                         std::span<const std::string> overrides, RunOptions& options) {
  ConfigProblems problems(name, overrides);
  if (text.find_first_not_of(" \t\r\n") == std::string::npos) {
    return absl::InvalidArgumentError(absl::StrCat(
        name,
        " is empty; start from one of the files in configs/, or from what `panthera config` "
        "prints"));
  }
  if (const size_t valid = ValidUtf8Prefix(text); valid < text.size()) {
    const auto end = text.begin() + static_cast<std::ptrdiff_t>(valid);
    problems.Add(nullptr, 1 + std::count(text.begin(), end, '\n'),
                 "a character that is not UTF-8; save the file as UTF-8 (iconv converts it)");
    return problems.ToStatus();
  }
  toml::parse_result parsed = toml::parse(text, name);
  if (!parsed) {
    AddProblem(problems, parsed.error().source(),
               absl::StrCat("this is not TOML: ", std::string(parsed.error().description()),
                            "; write key = value below a [section], text in quotes, and each key "
                            "and section once"));
    return problems.ToStatus();
  }
  toml::table root = std::move(parsed).table();
  for (const std::string& setting : overrides) {
    const std::string problem = ApplyOverride(setting, root);
    if (!problem.empty()) {
      const std::string flag = SetFlag(setting);
      problems.Add(&flag, 0, problem);
    }
  }
  RunOptions result;
  TomlReader reader(root, problems);
  result.VisitSections(reader);
  reader.ReportUnknownAndMissing();
  RETURN_IF_ERROR(problems.ToStatus());
  options = std::move(result);
  return absl::OkStatus();
}

absl::Status LoadConfig(const std::string& path, std::span<const std::string> overrides,
                        RunOptions& options) {
  ASSIGN_OR_RETURN(const std::string text, ReadTextFile(path));
  return ParseConfig(text, path, overrides, options);
}

absl::Status LoadSharedConfig(HostGroup& host, const std::string& path,
                              std::span<const std::string> overrides, RunOptions& options) {
  absl::StatusOr<std::string> text = std::string();
  if (host.rank() == 0) {
    text = ReadTextFile(path);
  }
  RETURN_IF_ERROR(Agree(host, text.status()));
  return Agree(host, ParseConfig(host.Broadcast(*text, /*root=*/0), path, overrides, options));
}

}  // namespace panthera
