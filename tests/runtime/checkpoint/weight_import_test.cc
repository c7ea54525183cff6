#include "runtime/checkpoint/weight_import.h"

#include <cstdint>
#include <limits>
#include <string>
#include <utility>
#include <vector>

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "runtime/checkpoint/parameter_pieces.h"
#include "runtime/comm/plan_communicator.h"
#include "tests/support/counting_file_system.h"
#include "tests/support/plain_model.h"
#include "tests/support/slices.h"
#include "tests/support/temp_dir.h"

namespace panthera {
namespace {

using ::testing::AllOf;
using testing::CountingFileSystem;
using testing::Cut;
using ::testing::HasSubstr;
using testing::PlainTensor;
using testing::PlainTensors;
using testing::SlicePlace;
using testing::TempDir;

// Small, with rows that are long enough to be read one by one, and larger than a block that is read
// at a time.
const Shape kShapes[] = {{7, 10}, {5, 40000}, {1200, 1000}};

std::string NameOf(const Shape& shape) { return "matrix " + ToString(shape); }

PlainTensors Matrices() {
  PlainTensors tensors;
  for (const Shape& shape : kShapes) {
    PlainTensor tensor{.shape = {shape[0], shape[1]}, .values = {}};
    for (int64_t i = 0; i < shape.elements(); ++i) {
      tensor.values.push_back(static_cast<float>(i % 251 - 125) / 128);
    }
    tensors[NameOf(shape)] = std::move(tensor);
  }
  return tensors;
}

// One tensor-parallel rank's slices of the matrices, as one of `ranks` data-parallel ones has them.
struct Slices {
  Slices(const SlicePlace& place, int rank, int ranks) : communicator(rank, ranks) {
    const GroupId group = store.AddGroup("block", GroupKind::kSharded);
    for (const Shape& shape : kShapes) {
      store.Add(group, testing::SliceOf({NameOf(shape), shape}, place));
    }
    store.Allocate(Device{}, ledger, communicator, WeightStorage::kFp32);
  }

  MemoryLedger ledger;
  PlanCommunicator communicator;
  ParameterStore store;
};

class ImportShardsTest : public ::testing::Test {
 protected:
  void Write(const PlainTensors& tensors, const char* type) {
    testing::WriteText(dir_.File(kWeightFileName), testing::PlainSafetensors(tensors, type));
  }
  absl::Status Import(const std::string& directory, Slices& slices) {
    const absl::StatusOr<WeightFiles> weights = WeightFiles::Open(files_, directory);
    EXPECT_TRUE(weights.ok()) << weights.status();
    return ImportShards(files_, *weights, slices.store);
  }
  static void ExpectImported(const Slices& slices, const PlainTensors& tensors) {
    const float* values = slices.store.shard({0}).values.data<float>();
    for (const ShardSegment& segment : slices.store.segments({0})) {
      const ParamSpec& spec = slices.store.spec(segment.param);
      const PlainTensor& tensor = tensors.at(spec.name);
      for (int64_t i = 0; i < segment.elements; ++i) {
        const int64_t element = testing::LogicalElement(spec, segment.param_begin + i);
        ASSERT_EQ(values[segment.shard_begin + i], tensor.values[static_cast<size_t>(element)])
            << spec.name << " " << element;
      }
    }
  }

  TempDir dir_;
  PosixFileSystem files_;
};

TEST_F(ImportShardsTest, ShardsOfSlicesHoldTheirElementsOfTheFile) {
  const PlainTensors tensors = Matrices();
  for (const char* type : {"F32", "BF16"}) {
    Write(tensors, type);
    for (const Cut cut : {Cut::kRows, Cut::kColumns}) {
      for (const int parts : {1, 2, 3, 4}) {
        for (const int ranks : {1, 3}) {
          for (int part = 0; part < parts; ++part) {
            const SlicePlace place{cut, part, parts};
            SCOPED_TRACE(ToString(place) + " on " + std::to_string(ranks) + ", " + type);
            Slices slices(place, ranks - 1, ranks);
            ASSERT_EQ(Import(dir_.path(), slices), absl::OkStatus());
            ExpectImported(slices, tensors);
          }
        }
      }
    }
  }
}

TEST_F(ImportShardsTest, ANumberThatIsNotFiniteIsNamedByItsPlaceInTheFile) {
  PlainTensors tensors = Matrices();
  tensors[NameOf(kShapes[2])].values[1'150'700] = std::numeric_limits<float>::infinity();
  Write(tensors, "F32");
  Slices left({Cut::kColumns, 0, 2}, 0, 1);
  EXPECT_EQ(Import(dir_.path(), left), absl::OkStatus()) << "it lies in the other slice";
  Slices right({Cut::kColumns, 1, 2}, 0, 1);
  EXPECT_THAT(std::string(Import(dir_.path(), right).message()),
              AllOf(HasSubstr("element 1150700 of tensor matrix [1200, 1000]"),
                    HasSubstr("is not finite")));
}

// The checksums of a checkpoint that one rank saved are those of blocks of whole rows.
TEST_F(ImportShardsTest, DamageInASliceOfACheckpointIsFound) {
  const PlainTensors tensors = Matrices();
  Write(tensors, "F32");
  Slices whole({}, 0, 1);
  ASSERT_EQ(Import(dir_.path(), whole), absl::OkStatus());
  PlanHostGroup host(0, 1);
  CheckpointContents contents;
  contents.sets = WeightSets(whole.store, 0, PieceUse::kSave);
  const TempDir run;
  ASSERT_EQ(SaveCheckpoint(files_, host, run.path(), contents, {}), absl::OkStatus());
  const std::string directory = CheckpointDirectory(run.path(), 0);
  for (const int part : {0, 1, 2}) {
    Slices slices({Cut::kColumns, part, 3}, 1, 2);
    ASSERT_EQ(Import(directory, slices), absl::OkStatus());
    ExpectImported(slices, tensors);
  }

  // The last element of the largest matrix, which has two blocks.
  const std::string path = directory + "/" + kWeightFileName;
  std::string bytes = testing::ReadText(path);
  const WeightFiles weights = *WeightFiles::Open(files_, directory);
  const int64_t begin = weights.Find(NameOf(kShapes[2]))->begin;
  char& damaged = bytes.at(static_cast<size_t>(begin + 4 * 1'200'000 - 1));
  damaged = static_cast<char>(damaged ^ 1);
  testing::WriteText(path, bytes);
  Slices slices({Cut::kColumns, 2, 3}, 1, 2);
  EXPECT_TRUE(absl::IsDataLoss(Import(directory, slices)));
}

// Half of the largest matrix are two reads of its rows, of up to a million elements; half of each
// long row is a read.
TEST_F(ImportShardsTest, ShortPartsOfRowsAreReadTogetherUpToABlock) {
  Write(Matrices(), "F32");
  const absl::StatusOr<WeightFiles> weights = WeightFiles::Open(files_, dir_.path());
  ASSERT_TRUE(weights.ok()) << weights.status();
  Slices slices({Cut::kColumns, 1, 2}, 0, 1);
  CountingFileSystem counting;
  ASSERT_EQ(ImportShards(counting, *weights, slices.store), absl::OkStatus());
  EXPECT_EQ(counting.reads, 1 + 5 + 2);
  EXPECT_LE(counting.largest_read_bytes, 4 << 20);
  EXPECT_LE(counting.bytes_read, 4 * (70 + 5 * 20000 + 1'200'000));
}

}  // namespace
}  // namespace panthera
