#define HR_ISA avx512bf16
#define HR_VNNI
#define HR_DPBF16
#include "vec_avx512.h"
//
#include "variant.h"
