// The arithmetic of the update rules for one element, shared by CPU loops and CUDA kernels so that
// both give the same bits: fp32, every operation rounded once, nothing contracted. The rules
// themselves are written out in tiger.h, lion.h and adamw.h.
#ifndef PANTHERA_OPTIM_UPDATE_RULES_H_
#define PANTHERA_OPTIM_UPDATE_RULES_H_

#include <cmath>
#include <cstdint>

#include "runtime/base/host_device.h"
#include "runtime/params/parameter_store.h"

namespace panthera {

// State smaller than 2^-126 in magnitude is stored as 0 (see Optimizer).
PANTHERA_ALWAYS_INLINE float FlushTiny(float value) {
  return std::fabs(value) < 0x1p-126F ? 0.0F : value;
}

PANTHERA_ALWAYS_INLINE float Sign(float value) {
  return (value > 0 ? 1.0F : 0.0F) - (value < 0 ? 1.0F : 0.0F);
}

// momentum = keep * momentum + take * gradient.
PANTHERA_ALWAYS_INLINE float Blend(float keep, float momentum, float take, float gradient) {
  return keep * momentum + take * gradient;
}

// Blend's `take` for a gradient that is to be multiplied by `scale`.
PANTHERA_ALWAYS_INLINE float TakeOfScaled(double beta, float scale) {
  return static_cast<float>((1 - beta) * static_cast<double>(scale));
}

// theta - rate * (sign(direction) + decay * theta).
PANTHERA_ALWAYS_INLINE float SignStep(float rate, float decay, float direction, float theta) {
  return theta - rate * (Sign(direction) + decay * theta);
}

// centre + factor * (theta - centre).
PANTHERA_ALWAYS_INLINE float ShrinkTowards(float centre, float factor, float theta) {
  return factor * (theta - centre) + centre;
}

// ratio^n, as a product of few factors, which is the same on every machine; pow need not be.
PANTHERA_ALWAYS_INLINE float ShrinkFactor(double ratio, int32_t n) {
  double factor = 1;
  for (; n > 0; --n) {
    factor *= ratio;
  }
  return static_cast<float>(factor);
}

PANTHERA_ALWAYS_INLINE double RootMean(double sum_of_squares, int64_t elements) {
  return std::sqrt(sum_of_squares / static_cast<double>(elements));
}

// Tiger's rate of a logical tensor or, for an embedding, of a row: `squares` is the sum over its
// `elements` before the update.
PANTHERA_ALWAYS_INLINE float TigerRate(ParamKind kind, double learning_rate, double squares,
                                       int64_t elements) {
  const bool scales = kind == ParamKind::kMatrix || kind == ParamKind::kEmbedding;
  return static_cast<float>(scales ? learning_rate * RootMean(squares, elements)
                                   : 0.5 * learning_rate);
}

struct LionFactors {
  float keep_for_sign;
  float take_for_sign;
  float keep;
  float take;
  float rate;
};

// The direction of Lion's step; the momentum goes on.
PANTHERA_ALWAYS_INLINE float LionDirection(const LionFactors& f, float gradient, float& momentum) {
  const float blend = Blend(f.keep_for_sign, momentum, f.take_for_sign, gradient);
  momentum = Blend(f.keep, momentum, f.take, gradient);
  return blend;
}

PANTHERA_ALWAYS_INLINE void LionStep(const LionFactors& f, float decay, float gradient,
                                     float& momentum, float& theta) {
  theta = SignStep(f.rate, decay, LionDirection(f, gradient, momentum), theta);
}

struct AdamWFactors {
  float keep1;
  float take1;
  float keep2;
  float take2;
  float correction1;  // 1 / (1 - beta1^t)
  float correction2;  // 1 / (1 - beta2^t)
  float epsilon;
  float rate;
};

PANTHERA_ALWAYS_INLINE void AdamWStep(const AdamWFactors& f, float decay, float gradient,
                                      float& moment1, float& moment2, float& theta) {
  moment1 = f.keep1 * moment1 + f.take1 * gradient;
  moment2 = f.keep2 * moment2 + f.take2 * (gradient * gradient);
  const float scale = std::sqrt(moment2 * f.correction2) + f.epsilon;
  const float direction = moment1 * f.correction1 / scale;
  theta -= f.rate * (direction + decay * theta);
}

}  // namespace panthera

#endif  // PANTHERA_OPTIM_UPDATE_RULES_H_
