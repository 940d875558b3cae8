#define HR_ISA avx512vnni
#define HR_VNNI
#include "vec_avx512.h"
//
#include "variant.h"
