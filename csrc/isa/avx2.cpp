#define HR_ISA avx2
#include "vec_avx2.h"
//
#include "variant.h"
