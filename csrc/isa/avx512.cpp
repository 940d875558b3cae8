#define HR_ISA avx512
#include "vec_avx512.h"
//
#include "variant.h"
