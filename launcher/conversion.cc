#include "launcher/conversion.h"

#include <algorithm>
#include <filesystem>
#include <memory>
#include <system_error>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"

#include "launcher/config_text.h"
#include "launcher/run_directory.h"
#include "launcher/weight_source.h"
#include "model/hugging_face.h"
#include "model/hugging_face_config.h"
#include "runtime/base/one_line.h"
#include "runtime/base/status_macros.h"
#include "runtime/checkpoint/float_elements.h"
#include "runtime/comm/self_communicator.h"

namespace panthera {
namespace {

constexpr int64_t kBlockElements = int64_t{1} << 20;
constexpr int64_t kCopyBytes = int64_t{1} << 22;
constexpr char kModelTomlName[] = "model.toml";

// What of a model's directory belongs to its tokenizer and to generating text.
constexpr const char* kKeptFiles[] = {"added_tokens.json",
                                      "chat_template.jinja",
                                      "chat_template.json",
                                      "generation_config.json",
                                      "merges.txt",
                                      "special_tokens_map.json",
                                      "tokenizer.json",
                                      "tokenizer.model",
                                      "tokenizer_config.json",
                                      "vocab.json"};

// Writes one new model into a directory that is there and empty.
class ModelWriter {
 public:
  ModelWriter(FileSystem& files, const WeightSource& source, const ConversionOptions& options,
              std::string directory)
      : files_(files),
        source_(source),
        options_(options),
        directory_(std::move(directory)),
        reader_(files, source.weights) {}

  absl::StatusOr<Conversion> Write() {
    const std::vector<TensorDescription> tensors = Tensors();
    const std::vector<SafetensorsFile> plan =
        SpreadOverFiles("model", tensors, options_.max_file_bytes);
    Conversion report{.source = source_.weights.directory()};
    for (const SafetensorsFile& file : plan) {
      RETURN_IF_ERROR(WriteTensors(file));
    }
    for (const TensorDescription& tensor : tensors) {
      report.parameters += tensor.shape.elements();
      report.weight_bytes += tensor.bytes();
    }
    report.tensors = static_cast<int64_t>(tensors.size());
    report.weight_files = static_cast<int64_t>(plan.size());
    if (plan.size() > 1) {
      RETURN_IF_ERROR(WriteText(kWeightIndexName, SafetensorsIndexJson(plan)));
    }
    RETURN_IF_ERROR(
        WriteText(kModelConfigName, options_.dtype.has_value()
                                        ? WithWeightType(source_.config, *options_.dtype)
                                        : source_.config));
    RETURN_IF_ERROR(WriteText(kModelTomlName, ModelToml()));
    for (const char* name : kKeptFiles) {
      RETURN_IF_ERROR(CopyFile(name));
    }
    RETURN_IF_ERROR(files_.SyncDirectory(directory_));
    return report;
  }

 private:
  // In the order in which our checkpoints have them: wide types first, so that every tensor is
  // aligned to its elements, then by name.
  std::vector<TensorDescription> Tensors() const {
    std::vector<TensorDescription> tensors;
    for (const StoredTensor& stored : source_.weights.tensors()) {
      if (!IsNeedless(stored.tensor.name)) {
        tensors.push_back(stored.tensor);
        tensors.back().dtype = options_.dtype.value_or(stored.tensor.dtype);
      }
    }
    std::stable_sort(tensors.begin(), tensors.end(),
                     [](const TensorDescription& a, const TensorDescription& b) {
                       return SizeOf(a.dtype) > SizeOf(b.dtype);
                     });
    return tensors;
  }

  absl::Status WriteTensors(const SafetensorsFile& plan) {
    const std::string path = absl::StrCat(directory_, "/", plan.name);
    ASSIGN_OR_RETURN(std::unique_ptr<File> file, files_.Open(path, OpenMode::kCreate));
    RETURN_IF_ERROR(file->Allocate(plan.header.file_bytes));
    RETURN_IF_ERROR(file->WriteAt(0, std::as_bytes(std::span(plan.header.bytes))));
    for (const SafetensorsEntry& entry : plan.header.entries) {
      RETURN_IF_ERROR(WriteTensor(*file, entry));
    }
    RETURN_IF_ERROR(file->Sync());
    return file->Close();
  }

  absl::Status WriteTensor(File& file, const SafetensorsEntry& entry) {
    const StoredTensor& stored = *source_.weights.Find(entry.tensor.name);
    const int64_t elements = stored.tensor.shape.elements();
    RETURN_IF_ERROR(reader_.Verify(stored, 0, elements));
    const DType from = stored.tensor.dtype;
    const DType to = entry.tensor.dtype;
    for (int64_t done = 0; done < elements; done += kBlockElements) {
      const int64_t count = std::min(kBlockElements, elements - done);
      read_.resize(static_cast<size_t>(count * SizeOf(from)));
      RETURN_IF_ERROR(reader_.Read(stored, done, read_));
      RETURN_IF_ERROR(ConvertBlock(stored, done, count, to));
      RETURN_IF_ERROR(file.WriteAt(entry.begin + done * SizeOf(to), from == to ? read_ : written_));
    }
    return absl::OkStatus();
  }

  // Fills written_ from read_ if the type changes.
  absl::Status ConvertBlock(const StoredTensor& stored, int64_t begin, int64_t count, DType to) {
    if (to == stored.tensor.dtype) {
      return absl::OkStatus();
    }
    values_.resize(static_cast<size_t>(count));
    written_.resize(static_cast<size_t>(count * SizeOf(to)));
    DecodeFloats(read_, stored.tensor.dtype, values_);
    const std::optional<int64_t> overflow = EncodeFloats(values_, to, written_);
    if (overflow.has_value()) {
      return absl::OutOfRangeError(absl::StrCat(
          source_.weights.PathOf(stored), ": element ", begin + *overflow, " of tensor ",
          stored.tensor.name, " is ", values_[static_cast<size_t>(*overflow)], ", more than ",
          Name(to), " can hold; use --dtype ", to == DType::kF16 ? "bf16 or f32" : "f32"));
    }
    return absl::OkStatus();
  }

  absl::Status WriteText(const std::string& name, const std::string& contents) {
    return WriteFile(files_, absl::StrCat(directory_, "/", name), contents);
  }

  // A checkpoint knows that its output matrix is the embedding with its halves exchanged; nobody
  // else does.
  std::string ModelToml() const {
    ModelOptions model = source_.model;
    if (source_.weights.IsDerived(kHeadName)) {
      model.tie = Tie::kSwapHalves;
    }
    return absl::StrCat("# The model in ", OneLine(options_.output),
                        ": the beginning of a configuration for `panthera train`.\n\n",
                        PrintModelConfig(model, options_.output));
  }

  // One that the source does not have is left out.
  absl::Status CopyFile(const std::string& name) {
    const std::string from_path = absl::StrCat(source_.weights.directory(), "/", name);
    absl::StatusOr<std::unique_ptr<File>> from = files_.Open(from_path, OpenMode::kRead);
    if (absl::IsNotFound(from.status())) {
      return absl::OkStatus();
    }
    RETURN_IF_ERROR(from.status());
    ASSIGN_OR_RETURN(const int64_t bytes, (*from)->Bytes());
    ASSIGN_OR_RETURN(std::unique_ptr<File> to,
                     files_.Open(absl::StrCat(directory_, "/", name), OpenMode::kCreate));
    for (int64_t done = 0; done < bytes; done += kCopyBytes) {
      read_.resize(static_cast<size_t>(std::min(kCopyBytes, bytes - done)));
      RETURN_IF_ERROR((*from)->ReadAt(done, read_));
      RETURN_IF_ERROR(to->WriteAt(done, read_));
    }
    RETURN_IF_ERROR(to->Sync());
    return to->Close();
  }

  FileSystem& files_;
  const WeightSource& source_;
  const ConversionOptions& options_;
  std::string directory_;
  WeightReader reader_;
  std::vector<std::byte> read_;
  std::vector<float> values_;
  std::vector<std::byte> written_;
};

absl::Status CheckAbsent(const std::string& path, const std::string& remedy) {
  std::error_code error;
  return std::filesystem::exists(std::filesystem::symlink_status(path, error))
             ? absl::AlreadyExistsError(absl::StrCat(path, " exists; ", remedy))
             : absl::OkStatus();
}

}  // namespace

absl::StatusOr<Conversion> Convert(FileSystem& files, const ConversionOptions& given) {
  ConversionOptions options = given;
  while (options.output.size() > 1 && options.output.back() == '/') {
    options.output.pop_back();
  }
  RETURN_IF_ERROR(CheckAbsent(options.output, "name a directory that is not there yet"));
  SelfHostGroup self;
  ASSIGN_OR_RETURN(const WeightSource source, OpenWeightSource(files, self, options.source));
  const std::string temporary = options.output + ".tmp";
  RETURN_IF_ERROR(CheckAbsent(
      temporary, "if a conversion that was cut short has left it, remove it, else rename it"));
  RETURN_IF_ERROR(files.MakeDirectory(temporary));
  absl::StatusOr<Conversion> report = ModelWriter(files, source, options, temporary).Write();
  absl::Status published = report.ok() ? files.Rename(temporary, options.output) : report.status();
  if (!published.ok()) {
    // The first error is what counts.
    (void)RemoveTree(files, temporary);
    return source.weights.checkpoint().has_value() ? AdviseOnDamage(published) : published;
  }
  const std::string parent = std::filesystem::path(options.output).parent_path().string();
  RETURN_IF_ERROR(files.SyncDirectory(parent.empty() ? "." : parent));
  return report;
}

}  // namespace panthera
