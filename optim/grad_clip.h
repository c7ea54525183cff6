#ifndef PANTHERA_OPTIM_GRAD_CLIP_H_
#define PANTHERA_OPTIM_GRAD_CLIP_H_

namespace panthera {

// The factor min(1, max_norm / norm) that brings a gradient of Euclidean norm `norm` down to
// `max_norm` (Pascanu, Mikolov, Bengio, "On the difficulty of training recurrent neural networks",
// ICML 2013). Exactly 1 for norms up to max_norm, and for every norm when max_norm is 0, which
// means no clipping. A NaN norm gives NaN, an infinite one 0: whoever skips non-finite steps looks
// at the norm first.
float ClipScale(double norm, double max_norm);

}  // namespace panthera

#endif  // PANTHERA_OPTIM_GRAD_CLIP_H_
