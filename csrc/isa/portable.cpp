#define HR_ISA portable
#include "vec_portable.h"
//
#include "variant.h"
