// Eight floats at a time: AVX2 and FMA.
#include <immintrin.h>

#include "../types.h"

namespace hr::HR_ISA {

constexpr int W = 8;
constexpr int tile_rows = 6;  // 6 x 2 accumulators of the 16 registers
using vf = __m256;
using vi = __m256i;

inline vf vset(float x) { return _mm256_set1_ps(x); }
inline vf vzero() { return _mm256_setzero_ps(); }
inline vf vload(const float* p) { return _mm256_loadu_ps(p); }
inline void vstore(float* p, vf v) { _mm256_storeu_ps(p, v); }
inline vf vadd(vf a, vf b) { return _mm256_add_ps(a, b); }
inline vf vsub(vf a, vf b) { return _mm256_sub_ps(a, b); }
inline vf vmul(vf a, vf b) { return _mm256_mul_ps(a, b); }
inline vf vdiv(vf a, vf b) { return _mm256_div_ps(a, b); }
inline vf vfma(vf a, vf b, vf c) { return _mm256_fmadd_ps(a, b, c); }
inline vf vabs(vf a) { return _mm256_andnot_ps(_mm256_set1_ps(-0.0f), a); }
inline vf vround(vf a) { return _mm256_round_ps(a, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC); }
// The second one where either is NaN.
inline vf vmax(vf a, vf b) { return _mm256_max_ps(a, b); }
inline vf vmin(vf a, vf b) { return _mm256_min_ps(a, b); }
// a < b ? yes : no, in each lane; no where either is NaN
inline vf vbelow(vf a, vf b, vf yes, vf no) { return _mm256_blendv_ps(no, yes, _mm256_cmp_ps(a, b, _CMP_LT_OQ)); }
// a · 2ⁿ for whole n in [-252, 254], in two factors so that each has an exponent
inline vf vscale2(vf a, vf n) {
    const vi whole = _mm256_cvtps_epi32(n);
    const vi half = _mm256_srai_epi32(whole, 1);
    const vi bias = _mm256_set1_epi32(127);
    const vi first = _mm256_slli_epi32(_mm256_add_epi32(half, bias), 23);
    const vi second = _mm256_slli_epi32(_mm256_add_epi32(_mm256_sub_epi32(whole, half), bias), 23);
    return vmul(vmul(a, _mm256_castsi256_ps(first)), _mm256_castsi256_ps(second));
}
inline float vsum(vf a) {
    __m128 x = _mm_add_ps(_mm256_castps256_ps128(a), _mm256_extractf128_ps(a, 1));
    x = _mm_add_ps(x, _mm_movehl_ps(x, x));
    return _mm_cvtss_f32(_mm_add_ss(x, _mm_movehdup_ps(x)));
}
inline float vhighest(vf a) {
    __m128 x = _mm_max_ps(_mm256_castps256_ps128(a), _mm256_extractf128_ps(a, 1));
    x = _mm_max_ps(x, _mm_movehl_ps(x, x));
    return _mm_cvtss_f32(_mm_max_ss(x, _mm_movehdup_ps(x)));
}

inline vi lanes() { return _mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7); }
inline vi first_lanes(int n) { return _mm256_cmpgt_epi32(_mm256_set1_epi32(n), lanes()); }
inline vf vload_n(const float* p, int n) { return _mm256_maskload_ps(p, first_lanes(n)); }
inline void vstore_n(float* p, vf v, int n) { _mm256_maskstore_ps(p, first_lanes(n), v); }
// Lane l holds `inside` where from ≤ first + l < to, else `outside`.
inline vf vwithin(int first, int from, int to, vf inside, vf outside) {
    const vi index = _mm256_add_epi32(lanes(), _mm256_set1_epi32(first));
    const vi below = _mm256_cmpgt_epi32(_mm256_set1_epi32(from), index);
    const vi mask = _mm256_andnot_si256(below, _mm256_cmpgt_epi32(_mm256_set1_epi32(to), index));
    return _mm256_blendv_ps(outside, inside, _mm256_castsi256_ps(mask));
}

inline vf vload(const bf16* p) {
    const __m128i bits = _mm_loadu_si128(reinterpret_cast<const __m128i*>(p));
    return _mm256_castsi256_ps(_mm256_slli_epi32(_mm256_cvtepu16_epi32(bits), 16));
}
inline vf vload_n(const bf16* p, int n) {
    bf16 all[W] = {};
    std::memcpy(all, p, size_t(n) * sizeof(bf16));
    return vload(all);
}
// Round to nearest, ties to even; a NaN stays one.
inline void vstore(bf16* p, vf v) {
    const vi bits = _mm256_castps_si256(v);
    const vi odd = _mm256_and_si256(_mm256_srli_epi32(bits, 16), _mm256_set1_epi32(1));
    const vi rounded = _mm256_add_epi32(bits, _mm256_add_epi32(odd, _mm256_set1_epi32(0x7fff)));
    const vi is_nan = _mm256_castps_si256(_mm256_cmp_ps(v, v, _CMP_UNORD_Q));
    const vi high = _mm256_blendv_epi8(_mm256_srli_epi32(rounded, 16), _mm256_set1_epi32(0x7fc0), is_nan);
    const vi packed = _mm256_permute4x64_epi64(_mm256_packus_epi32(high, high), 0xd8);
    _mm_storeu_si128(reinterpret_cast<__m128i*>(p), _mm256_castsi256_si128(packed));
}
inline void vstore_n(bf16* p, vf v, int n) {
    bf16 all[W];
    vstore(all, v);
    std::memcpy(p, all, size_t(n) * sizeof(bf16));
}

// Of W pairs of bf16: the first of each pair, the second of each pair.
inline vf vfirst(const void* pairs) {
    return _mm256_castsi256_ps(_mm256_slli_epi32(_mm256_loadu_si256(static_cast<const vi*>(pairs)), 16));
}
inline vf vsecond(const void* pairs) {
    const vi mask = _mm256_set1_epi32(int(0xffff0000));
    return _mm256_castsi256_ps(_mm256_and_si256(_mm256_loadu_si256(static_cast<const vi*>(pairs)), mask));
}

inline vi vizero() { return _mm256_setzero_si256(); }
inline vi vwhole(vf a) { return _mm256_cvttps_epi32(a); }  // towards 0
inline void vistore(int32_t* p, vi v) { _mm256_storeu_si256(reinterpret_cast<vi*>(p), v); }
// Bit l: a < b in lane l.
inline uint32_t vbelow_mask(vf a, vf b) { return uint32_t(_mm256_movemask_ps(_mm256_cmp_ps(a, b, _CMP_LT_OQ))); }
// Whole numbers to W bytes, each plus `offset`.
inline void vstore_bytes(uint8_t* p, vf v, int offset) {
    const vi whole = _mm256_add_epi32(_mm256_cvtps_epi32(v), _mm256_set1_epi32(offset));
    const __m128i words = _mm_packs_epi32(_mm256_castsi256_si128(whole), _mm256_extracti128_si256(whole, 1));
    const __m128i even = _mm_set_epi64x(-1, 0x0e0c0a0806040200);  // the low byte of each word
    _mm_storel_epi64(reinterpret_cast<__m128i*>(p), _mm_shuffle_epi8(words, even));
}
inline vf vi_to_float(vi a) { return _mm256_cvtepi32_ps(a); }
inline vi vi_load(const int32_t* p) { return _mm256_loadu_si256(reinterpret_cast<const vi*>(p)); }
inline vi vi_sub(vi a, vi b) { return _mm256_sub_epi32(a, b); }

// acc + Σ over four k of activation · weight, in each lane
constexpr int activation_offset = 0;
inline vi vdot(vi acc, uint32_t four, const int8_t* weights) {
    const vi x = _mm256_set1_epi32(int(four));
    const vi w = _mm256_sign_epi8(_mm256_loadu_si256(reinterpret_cast<const vi*>(weights)), x);
    // |x|, |w| ≤ 127, so that no pair of products leaves 16 bits
    const vi pairs = _mm256_maddubs_epi16(_mm256_abs_epi8(x), w);
    return _mm256_add_epi32(acc, _mm256_madd_epi16(pairs, _mm256_set1_epi16(1)));
}

}  // namespace hr::HR_ISA
