// Four floats at a time, in the compilers' own vector types: SSE2 on any x86-64, NEON on any aarch64.
#include <cmath>

#include "../types.h"

namespace hr::HR_ISA {

constexpr int W = 4;
#if defined(__aarch64__)
constexpr int tile_rows = 8;  // 8 x 2 accumulators of 32 registers
#else
constexpr int tile_rows = 4;  // 4 x 2 of 16
#endif
typedef float vf __attribute__((vector_size(16)));
typedef int32_t vi __attribute__((vector_size(16)));
typedef uint32_t vu __attribute__((vector_size(16)));

inline vf vset(float x) { return vf{x, x, x, x}; }
inline vi viset(int32_t x) { return vi{x, x, x, x}; }
inline vf vzero() { return vf{}; }
inline vf vload(const float* p) {
    vf v;
    std::memcpy(&v, p, sizeof v);
    return v;
}
inline void vstore(float* p, vf v) { std::memcpy(p, &v, sizeof v); }
inline vf vadd(vf a, vf b) { return a + b; }
inline vf vsub(vf a, vf b) { return a - b; }
inline vf vmul(vf a, vf b) { return a * b; }
inline vf vdiv(vf a, vf b) { return a / b; }
inline vf vfma(vf a, vf b, vf c) { return a * b + c; }
inline vf vabs(vf a) { return vf(vi(a) & 0x7fffffff); }
inline vf vround(vf a) { return vf{rintf(a[0]), rintf(a[1]), rintf(a[2]), rintf(a[3])}; }
// The second one where either is NaN.
inline vf vmax(vf a, vf b) { return a > b ? a : b; }
inline vf vmin(vf a, vf b) { return a < b ? a : b; }
// a < b ? yes : no, in each lane; no where either is NaN
inline vf vbelow(vf a, vf b, vf yes, vf no) { return a < b ? yes : no; }
// a · 2ⁿ for whole n in [-252, 254], in two factors so that each has an exponent; where n is NaN, a is
inline vf vscale2(vf a, vf n) {
    const vi whole = __builtin_convertvector(n == n ? n : vzero(), vi);
    const vi half = whole >> 1;
    return a * vf((half + 127) << 23) * vf((whole - half + 127) << 23);
}
inline float vsum(vf a) { return (a[0] + a[2]) + (a[1] + a[3]); }
inline float vhighest(vf a) {
    const vf x = vmax(a, vf{a[2], a[3], a[0], a[1]});
    return x[0] > x[1] ? x[0] : x[1];
}

template <class T>
inline vf vload_n(const T* p, int n) {
    vf v{};
    for (int i = 0; i < n; ++i) v[i] = widen(p[i]);
    return v;
}
template <class T>
inline void vstore_n(T* p, vf v, int n) {
    for (int i = 0; i < n; ++i) narrow(v[i], p + i);
}
// Lane l holds `inside` where from ≤ first + l < to, else `outside`.
inline vf vwithin(int first, int from, int to, vf inside, vf outside) {
    const vi index = vi{0, 1, 2, 3} + first;
    return ((index >= from) & (index < to)) ? inside : outside;
}

inline vf vload(const bf16* p) {
    return vf(vu{uint32_t(p[0].bits), uint32_t(p[1].bits), uint32_t(p[2].bits), uint32_t(p[3].bits)} << 16);
}
inline void vstore(bf16* p, vf v) { vstore_n(p, v, W); }

// Of W pairs of bf16: the first of each pair, the second of each pair.
inline vu load_bits(const void* p) {
    vu v;
    std::memcpy(&v, p, sizeof v);
    return v;
}
inline vf vfirst(const void* pairs) { return vf(load_bits(pairs) << 16); }
inline vf vsecond(const void* pairs) { return vf(load_bits(pairs) & 0xffff0000u); }

inline vi vizero() { return vi{}; }
inline vi vwhole(vf a) { return __builtin_convertvector(a, vi); }  // towards 0
inline void vistore(int32_t* p, vi v) { std::memcpy(p, &v, sizeof v); }
// Bit l: a < b in lane l.
inline uint32_t vbelow_mask(vf a, vf b) {
    const vi below = a < b;
    return uint32_t((below[0] & 1) | (below[1] & 2) | (below[2] & 4) | (below[3] & 8));
}
// Whole numbers to W bytes, each plus `offset`.
inline void vstore_bytes(uint8_t* p, vf v, int offset) {
    for (int lane = 0; lane < W; ++lane) p[lane] = uint8_t((v[lane] == v[lane] ? int(v[lane]) : 0) + offset);
}
inline vf vi_to_float(vi a) { return __builtin_convertvector(a, vf); }
inline vi vi_load(const int32_t* p) {
    vi v;
    std::memcpy(&v, p, sizeof v);
    return v;
}
inline vi vi_sub(vi a, vi b) { return a - b; }

// acc + Σ over four k of activation · weight, in each lane
constexpr int activation_offset = 0;
inline vi vdot(vi acc, uint32_t four, const int8_t* weights) {
    int8_t x[4];
    std::memcpy(x, &four, 4);
    for (int lane = 0; lane < W; ++lane) {
        const int8_t* w = weights + 4 * lane;
        acc[lane] += x[0] * w[0] + x[1] * w[1] + x[2] * w[2] + x[3] * w[3];
    }
    return acc;
}

}  // namespace hr::HR_ISA
