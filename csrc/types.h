// The element types that travel between files of one instruction set and files of another.
#ifndef HEADRACE_TYPES_H
#define HEADRACE_TYPES_H

#include <cstdint>
#include <cstring>

#include "headrace.h"

namespace hr {

struct bf16 {
    uint16_t bits;
};

inline float widen(float x) { return x; }

inline float widen(bf16 x) {
    const uint32_t bits = uint32_t(x.bits) << 16;
    float f;
    std::memcpy(&f, &bits, 4);
    return f;
}

inline void narrow(float x, float* out) { *out = x; }

// Rounds to nearest, ties to even; a NaN stays one.
inline void narrow(float x, bf16* out) {
    uint32_t bits;
    std::memcpy(&bits, &x, 4);
    const bool is_nan = (bits & 0x7fffffffu) > 0x7f800000u;
    out->bits = is_nan ? 0x7fc0 : uint16_t((bits + 0x7fff + ((bits >> 16) & 1)) >> 16);
}

inline bool is_float(int32_t dtype) { return dtype == HR_F32 || dtype == HR_BF16; }

inline int64_t element_bytes(int32_t dtype) { return dtype == HR_BF16 ? 2 : 4; }

inline int64_t ceil_div(int64_t a, int64_t b) { return (a + b - 1) / b; }

}  // namespace hr
#endif
