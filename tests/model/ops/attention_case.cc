#include "tests/model/ops/attention_case.h"

#include <cmath>

#include "runtime/math/context.h"

namespace panthera::testing {
namespace {

constexpr double kBase = 10000;

Shape QueryShape(const AttentionSpec& spec) {
  return {spec.batch, spec.queries, spec.heads, spec.width};
}
Shape KeyShape(const AttentionSpec& spec) {
  return {spec.batch, spec.keys, spec.kv_heads, spec.width};
}
Shape LseShape(const AttentionSpec& spec) { return {spec.batch, spec.heads, spec.queries}; }

std::vector<double> Positions(const std::optional<Clock>& clock, int64_t count) {
  std::vector<double> positions;
  for (int64_t t = 0; clock.has_value() && t < count; ++t) {
    positions.push_back(clock->first + clock->step * static_cast<double>(t));
  }
  return positions;
}

}  // namespace

AttentionCase::AttentionCase(Context& ctx, const AttentionSpec& the_spec, DType dtype)
    : spec(the_spec),
      q(RandomTensor(QueryShape(spec), dtype, 1)),
      k(RandomTensor(KeyShape(spec), dtype, 2)),
      v(RandomTensor(KeyShape(spec), dtype, 3)),
      out(QueryShape(spec), dtype),
      lse(LseShape(spec), DType::kF32),
      dout(RandomTensor(QueryShape(spec), dtype, 4)),
      dq(QueryShape(spec), dtype),
      dk(KeyShape(spec), dtype),
      dv(KeyShape(spec), dtype) {
  for (const BandSpec& band : spec.bands) {
    std::optional<RotaryTable> q_rotation;
    std::optional<RotaryTable> k_rotation;
    const Heads band_q = Turned(ctx, q, band.q_clock, &q_rotation);
    const Heads band_k = Turned(ctx, k, band.k_clock, &k_rotation);
    bands.push_back({band_q, band_k, band.begin, band.end, q_rotation, k_rotation});
  }
}

Heads AttentionCase::Turned(Context& ctx, const HostTensor& x, const std::optional<Clock>& clock,
                            std::optional<RotaryTable>* rotation) {
  if (!clock.has_value()) {
    return x.tensor();
  }
  const Shape shape{x.tensor().size(1), spec.width / 2};
  tables_.push_back(std::make_unique<Table>(
      Table{HostTensor(shape, DType::kF32), HostTensor(shape, DType::kF32)}));
  *rotation = RotaryTable{tables_.back()->cos, tables_.back()->sin};
  FillRotaryTable(clock->first, clock->step, kBase,
                  {OnHost((*rotation)->cos), OnHost((*rotation)->sin)});
  turned_.push_back(std::make_unique<HostTensor>(x.tensor().shape(), x.tensor().dtype()));
  Rotate(ctx, Rotation::kForward, x.tensor(), **rotation, turned_.back()->tensor());
  return turned_.back()->tensor();
}

void AttentionCase::Forward(Context& ctx) {
  AttentionForward(ctx, bands, v.tensor(), scale(), out.tensor(), lse);
}

void AttentionCase::Backward(Context& ctx) {
  AttentionBackward(ctx, dout.tensor(), bands, v.tensor(), out.tensor(), lse, scale(), dq.tensor(),
                    dk.tensor(), dv.tensor());
}

float AttentionCase::scale() const { return 1 / std::sqrt(static_cast<float>(spec.width)); }

reference::AttentionProblem AttentionCase::Problem() const {
  reference::AttentionProblem problem{.q = {spec.batch, spec.queries, spec.heads, spec.width},
                                      .kv = {spec.batch, spec.keys, spec.kv_heads, spec.width},
                                      .bands = {},
                                      .v = ToDoubles(v),
                                      .scale = static_cast<double>(scale()),
                                      .base = kBase};
  for (size_t i = 0; i < bands.size(); ++i) {
    problem.bands.push_back({ToDoubles(bands[i].q.matrix), ToDoubles(bands[i].k.matrix),
                             bands[i].begin, bands[i].end,
                             Positions(spec.bands[i].q_clock, spec.queries),
                             Positions(spec.bands[i].k_clock, spec.keys)});
  }
  return problem;
}

int64_t PlannedBytes(const AttentionSpec& spec, DType dtype, Device target) {
  MemoryLedger ledger;
  const auto plan = Context::Plan(target, ledger);
  const Tensor q = MetaTensor(QueryShape(spec), dtype);
  const Tensor k = MetaTensor(KeyShape(spec), dtype);
  const Tensor lse = MetaTensor(LseShape(spec), DType::kF32);
  std::vector<AttentionBand> bands;
  for (const BandSpec& band : spec.bands) {
    bands.push_back({q, k, band.begin, band.end, std::nullopt, std::nullopt});
  }
  AttentionForward(*plan, bands, k, 1, q, lse);
  AttentionBackward(*plan, q, bands, k, q, lse, 1, q, k, k);
  return plan->arena().peak_bytes();
}

}  // namespace panthera::testing
