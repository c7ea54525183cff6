#include "runtime/math/gemm.h"
