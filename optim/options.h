#ifndef PANTHERA_OPTIM_OPTIONS_H_
#define PANTHERA_OPTIM_OPTIONS_H_

#include <cstdint>
#include <vector>

#include "absl/status/status.h"

#include "runtime/base/fields.h"
#include "runtime/params/weight_shard.h"

namespace panthera {

enum class Algorithm : uint8_t { kTiger, kLion, kAdamW };
template <>
struct EnumNames<Algorithm> {
  static constexpr const char* kNames[] = {"tiger", "lion", "adamw"};
};

// Where the gradients of the micro-steps of one optimizer step are summed.
enum class Accumulation : uint8_t {
  kMomentum,  // each is exchanged and folded into the momentum shard; no gradient buffer
  kGradient,  // each is added to a local fp32 buffer; one exchange per step
};
template <>
struct EnumNames<Accumulation> {
  static constexpr const char* kNames[] = {"momentum", "gradient"};
};

// What a loss or a gradient that is not finite does. In no case does a checkpoint get to see it.
enum class NonFinitePolicy : uint8_t {
  kAuto,   // kSkip or kTiger, as the accumulation allows
  kStop,   // ends the run
  kSkip,   // all ranks leave the whole step out: weights and state keep every bit (kGradient)
  kTiger,  // a tensor's micro-gradient is left out of its momentum and the tensor shrinks a little,
           // the others go on (kMomentum)
};
template <>
struct EnumNames<NonFinitePolicy> {
  static constexpr const char* kNames[] = {"auto", "stop", "skip", "tiger"};
};

// What rows of the input embedding whose token did not occur in an optimizer step, on any rank, do
// in that step. Rules that go by the momentum's sign push them on at full size long after their
// token was seen, up to 1 / weight_decay (Su Jianlin, https://kexue.fm/archives/9736); there these
// are the lazy optimizers of https://kexue.fm/archives/6869.
enum class LazyRows : uint8_t {
  kAuto,            // kChange where the rule goes by sign and the table has sparse gradients
  kOff,             // they are updated as all others
  kChange,          // they keep their bits, which do not decay either; their momentum goes on
  kChangeAndState,  // their momentum keeps its bits too (kGradient)
};
template <>
struct EnumNames<LazyRows> {
  static constexpr const char* kNames[] = {"auto", "off", "change", "change_and_state"};
};

// What updates the embedding table; in a tied model that is the shared one. AdamW's step fades
// where gradients stay zero, so that rows of rare tokens come to rest where the momentum's sign
// would push them on (Su Jianlin, https://kexue.fm/archives/9736, quoting the authors of Lion).
enum class TableOptimizer : uint8_t {
  kSame,   // OptimOptions::algorithm, as everything else
  kAdamW,  // AdamW, with two states and the hyper-parameters of TableOptions
};
template <>
struct EnumNames<TableOptimizer> {
  static constexpr const char* kNames[] = {"same", "adamw"};
};

// Over what Tiger takes the RMS that scales the step of an embedding table.
enum class TableRms : uint8_t {
  kRow,    // each row by its own, as in the reference code: rows grow exponentially under steady
           // signs
  kTable,  // the whole table by one, like any matrix: they grow linearly
};
template <>
struct EnumNames<TableRms> {
  static constexpr const char* kNames[] = {"row", "table"};
};

// How a rank learns what the others did to their shards of the weights. Either way gives the same
// bits.
enum class PublishMode : uint8_t {
  kWeights,    // the new values travel
  kDirection,  // of each weight one of -1, 0, 1 and "unchanged" travels, 2 bits, and every rank
               // repeats the update; needs all precision there is on every rank
};
template <>
struct EnumNames<PublishMode> {
  static constexpr const char* kNames[] = {"weights", "direction"};
};

enum class MomentumStorage : uint8_t { kFp32, kBf16 };
template <>
struct EnumNames<MomentumStorage> {
  static constexpr const char* kNames[] = {"fp32", "bf16"};
};

enum class ScheduleKind : uint8_t {
  kPiecewise,         // straight lines through `points`
  kCosine,            // warm-up, then half a cosine down to `final_factor`
  kWarmupStableDecay  // warm-up, constant, then a straight line down to `final_factor`
};
template <>
struct EnumNames<ScheduleKind> {
  static constexpr const char* kNames[] = {"piecewise", "cosine", "warmup_stable_decay"};
};

struct SchedulePoint {
  int64_t step = 0;
  double factor = 1;

  void VisitFields(FieldVisitor& visit) {
    visit.Int({"step", "optimizer step, counted from 0"}, step, {});
    visit.Real({"factor", "learning rate there, as a multiple of optim.learning_rate"}, factor, {});
  }
};

// The learning rate's course as a multiple of OptimOptions::learning_rate.
struct ScheduleOptions {
  ScheduleKind kind = ScheduleKind::kCosine;
  int64_t warmup_steps = 0;
  int64_t decay_steps = 0;
  double final_factor = 0.1;
  std::vector<SchedulePoint> points;

  void VisitFields(FieldVisitor& visit) {
    visit.Enum({"kind", "shape of the learning rate's course"}, kind);
    visit.Int({"warmup_steps",
               "optimizer steps of linear warm-up from 0 (cosine, "
               "warmup_stable_decay)"},
              warmup_steps, {});
    visit.Int({"decay_steps", "length of the final decay (warmup_stable_decay)"}, decay_steps, {});
    visit.Real({"final_factor", "factor at the last step (cosine, warmup_stable_decay)"},
               final_factor, {0, 1});
    visit.Records({"points",
                   "corners of the piecewise-linear course; before the first point the "
                   "line comes from (0, 0), after the last it stays constant"},
                  points);
  }
};

// What OptimOptions says of the embedding table alone. All but `optimizer` is for kAdamW.
struct TableOptions {
  TableOptimizer optimizer = TableOptimizer::kSame;
  double learning_rate = 1e-3;
  double weight_decay = 0.01;
  double beta1 = -1;
  double beta2 = -1;

  void VisitFields(FieldVisitor& visit) {
    visit.Enum({"table_optimizer",
                "what updates the embedding table (with model.tie, the shared one); same: "
                "algorithm, as everything else; adamw: AdamW, which keeps two states of it and "
                "lets rows of rare tokens come to rest"},
               optimizer);
    visit.Real({"table_learning_rate",
                "table_optimizer = \"adamw\": the table's peak rate, absolute; its course is "
                "[schedule]'s"},
               learning_rate, {0, 100});
    visit.Real({"table_weight_decay", "table_optimizer = \"adamw\": decoupled decay of the table"},
               weight_decay, {0, 100});
    visit.Real({"table_beta1",
                "table_optimizer = \"adamw\": decay of the first moment; -1: the default 0.9"},
               beta1, {-1, 1});
    visit.Real({"table_beta2",
                "table_optimizer = \"adamw\": decay of the second moment; -1: the default 0.95"},
               beta2, {-1, 1});
  }
};

struct OptimOptions {
  Algorithm algorithm = Algorithm::kTiger;
  double learning_rate = 1e-3;
  double weight_decay = 0.01;
  double beta1 = -1;
  double beta2 = -1;
  double epsilon = 1e-8;
  double clip_norm = 0;
  Accumulation accumulate = Accumulation::kMomentum;
  WeightStorage weights = WeightStorage::kFp32;
  MomentumStorage momentum = MomentumStorage::kFp32;
  NonFinitePolicy nonfinite = NonFinitePolicy::kAuto;
  int64_t skip_budget = 10;
  double shrink_ratio = 0.99;
  LazyRows lazy_rows = LazyRows::kAuto;
  TableOptions table;
  TableRms table_rms = TableRms::kRow;
  PublishMode publish = PublishMode::kWeights;
  ScheduleOptions schedule;

  void VisitFields(FieldVisitor& visit) {
    visit.Enum({"algorithm", "update rule"}, algorithm);
    visit.Real({"learning_rate", "peak rate; Tiger: relative to each tensor's RMS"}, learning_rate,
               {0, 100});
    visit.Real({"weight_decay", "decoupled decay of matrices and embeddings"}, weight_decay,
               {0, 100});
    visit.Real({"beta1",
                "Tiger: the momentum's only decay (default 0.965); Lion: of the "
                "interpolation (0.95); AdamW: of the first moment (0.9); -1: the default"},
               beta1, {-1, 1});
    visit.Real({"beta2",
                "Lion: of the momentum (0.98); AdamW: of the second moment (0.95); -1: "
                "the default; Tiger has none"},
               beta2, {-1, 1});
    visit.Real({"epsilon", "AdamW, of the table too: added to the root of the second moment"},
               epsilon, {0, 1});
    visit.Real({"clip_norm",
                "largest norm of the global gradient; 0: no clipping; needs accumulate "
                "= \"gradient\""},
               clip_norm, {});
    visit.Enum({"accumulate", "where the micro-steps of a step are summed"}, accumulate);
    visit.Enum({"weights", "how parameters are stored; fp32 computes in fp32, the others in bf16"},
               weights);
    visit.Enum({"momentum", "storage of the momentum"}, momentum);
    visit.Enum(
        {"nonfinite",
         "when a loss or gradient is not finite; skip: leaves the whole step out (accumulate "
         "= \"gradient\"); tiger: leaves the tensor's micro-gradient out and shrinks the "
         "tensor (\"momentum\"); stop: ends the run; auto: skip or tiger"},
        nonfinite);
    visit.Int({"skip_budget",
               "how many of the latest 100 steps may meet something that is not finite before the "
               "run stops with exit code 3; 0: it stops at the first"},
              skip_budget, {0, 100});
    visit.Real({"shrink_ratio",
                "nonfinite = \"tiger\": multiplies a tensor's distance from its centre (1 for "
                "gains, 0 for others) for each micro-gradient that is left out; 1: no shrinking"},
               shrink_ratio, {0, 1});
    visit.Enum({"lazy_rows",
                "embedding rows of tokens that do not occur in a step (tiger, lion); change: they "
                "stay as they are, and only their momentum decays; change_and_state: their "
                "momentum stays too (accumulate = \"gradient\"); off: they are updated like all "
                "others and can grow to 1 / weight_decay; auto: change, or off where model.tie or "
                "adamw makes it needless"},
               lazy_rows);
    table.VisitFields(visit);
    visit.Enum(
        {"table_rms",
         "Tiger: over what the RMS is taken that scales an embedding's step; row: each row by "
         "its own; table: all by that of the whole table, as matrices"},
        table_rms);
    visit.Enum({"publish",
                "how ranks learn of each other's updates, with the same bits; weights: the new "
                "values travel; direction: 2 bits of each weight travel and every rank repeats the "
                "update (tiger, lion), for which the low bits of \"bf16+8\" are whole on every "
                "rank: an eighth of that traffic or less, up to a byte more memory per parameter"},
               publish);
  }

  // Where the low bits of bf16+8 weights must be kept.
  LowBits low_bits() const {
    return publish == PublishMode::kDirection ? LowBits::kReplicated : LowBits::kSharded;
  }

  // Fills in what stands for a default (betas, nonfinite) and refuses combinations that cannot be
  // honoured, naming the change that helps. What lazy_rows = kAuto stands for depends on the model
  // and is left to who knows it; optimizers take it as kOff.
  absl::Status Finish();

  // The options of what updates the embedding table, of these finished ones: the same, or those of
  // an AdamW that differs in what TableOptions says.
  OptimOptions ForTable() const;
};

}  // namespace panthera

#endif  // PANTHERA_OPTIM_OPTIONS_H_
