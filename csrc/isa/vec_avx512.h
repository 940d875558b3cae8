// Sixteen floats at a time: AVX512 F, BW, VL, DQ. With HR_VNNI and HR_DPBF16 also those extensions' dot products.
#include <immintrin.h>

#include "../types.h"

namespace hr::HR_ISA {

constexpr int W = 16;          // lanes
constexpr int tile_rows = 12;  // 12 x 2 accumulators, and registers left for two weights, a mask and a broadcast
using vf = __m512;
using vi = __m512i;

inline vf vset(float x) { return _mm512_set1_ps(x); }
inline vf vzero() { return _mm512_setzero_ps(); }
inline vf vload(const float* p) { return _mm512_loadu_ps(p); }
inline void vstore(float* p, vf v) { _mm512_storeu_ps(p, v); }
inline vf vadd(vf a, vf b) { return _mm512_add_ps(a, b); }
inline vf vsub(vf a, vf b) { return _mm512_sub_ps(a, b); }
inline vf vmul(vf a, vf b) { return _mm512_mul_ps(a, b); }
inline vf vdiv(vf a, vf b) { return _mm512_div_ps(a, b); }
inline vf vfma(vf a, vf b, vf c) { return _mm512_fmadd_ps(a, b, c); }
inline vf vabs(vf a) { return _mm512_abs_ps(a); }
inline vf vround(vf a) { return _mm512_roundscale_ps(a, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC); }
// The second one where either is NaN.
inline vf vmax(vf a, vf b) { return _mm512_max_ps(a, b); }
inline vf vmin(vf a, vf b) { return _mm512_min_ps(a, b); }
// a < b ? yes : no, in each lane; no where either is NaN
inline vf vbelow(vf a, vf b, vf yes, vf no) {
    return _mm512_mask_blend_ps(_mm512_cmp_ps_mask(a, b, _CMP_LT_OQ), no, yes);
}
inline vf vscale2(vf a, vf n) { return _mm512_scalef_ps(a, n); }  // a · 2ⁿ
inline float vsum(vf a) { return _mm512_reduce_add_ps(a); }
inline float vhighest(vf a) { return _mm512_reduce_max_ps(a); }

inline __mmask16 first_lanes(int n) { return __mmask16((1u << n) - 1); }
inline vf vload_n(const float* p, int n) { return _mm512_maskz_loadu_ps(first_lanes(n), p); }
inline void vstore_n(float* p, vf v, int n) { _mm512_mask_storeu_ps(p, first_lanes(n), v); }
// Lane l holds `inside` where from ≤ first + l < to, else `outside`.
inline vf vwithin(int first, int from, int to, vf inside, vf outside) {
    const vi lane = _mm512_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15);
    const vi index = _mm512_add_epi32(lane, _mm512_set1_epi32(first));
    const __mmask16 mask = _mm512_cmp_epi32_mask(index, _mm512_set1_epi32(from), _MM_CMPINT_NLT) &
                           _mm512_cmp_epi32_mask(index, _mm512_set1_epi32(to), _MM_CMPINT_LT);
    return _mm512_mask_blend_ps(mask, outside, inside);
}

inline vf from_bits(__m256i bits) { return _mm512_castsi512_ps(_mm512_slli_epi32(_mm512_cvtepu16_epi32(bits), 16)); }
inline vf vload(const bf16* p) { return from_bits(_mm256_loadu_si256(reinterpret_cast<const __m256i*>(p))); }
inline vf vload_n(const bf16* p, int n) { return from_bits(_mm256_maskz_loadu_epi16(first_lanes(n), p)); }
// Round to nearest, ties to even; a NaN stays one.
inline __m256i to_bits(vf v) {
#if defined(HR_DPBF16) && !defined(HR_EMULATE_DPBF16)
    return (__m256i)_mm512_cvtneps_pbh(v);
#else
    const vi bits = _mm512_castps_si512(v);
    const vi odd = _mm512_and_si512(_mm512_srli_epi32(bits, 16), _mm512_set1_epi32(1));
    const vi rounded = _mm512_add_epi32(bits, _mm512_add_epi32(odd, _mm512_set1_epi32(0x7fff)));
    const __mmask16 is_nan = _mm512_cmp_ps_mask(v, v, _CMP_UNORD_Q);
    return _mm512_cvtepi32_epi16(
        _mm512_mask_mov_epi32(_mm512_srli_epi32(rounded, 16), is_nan, _mm512_set1_epi32(0x7fc0)));
#endif
}
inline void vstore(bf16* p, vf v) { _mm256_storeu_si256(reinterpret_cast<__m256i*>(p), to_bits(v)); }
inline void vstore_n(bf16* p, vf v, int n) { _mm256_mask_storeu_epi16(p, first_lanes(n), to_bits(v)); }

// Of W pairs of bf16: the first of each pair, the second of each pair.
inline vf vfirst(const void* pairs) { return _mm512_castsi512_ps(_mm512_slli_epi32(_mm512_loadu_si512(pairs), 16)); }
inline vf vsecond(const void* pairs) {
    return _mm512_castsi512_ps(_mm512_and_si512(_mm512_loadu_si512(pairs), _mm512_set1_epi32(int(0xffff0000))));
}

inline vi vizero() { return _mm512_setzero_si512(); }
inline vi vwhole(vf a) { return _mm512_cvttps_epi32(a); }  // towards 0
inline void vistore(int32_t* p, vi v) { _mm512_storeu_si512(p, v); }
// Bit l: a < b in lane l.
inline uint32_t vbelow_mask(vf a, vf b) { return _mm512_cmp_ps_mask(a, b, _CMP_LT_OQ); }
// Whole numbers to W bytes, each plus `offset`.
inline void vstore_bytes(uint8_t* p, vf v, int offset) {
    const vi whole = _mm512_add_epi32(_mm512_cvtps_epi32(v), _mm512_set1_epi32(offset));
    _mm_storeu_si128(reinterpret_cast<__m128i*>(p), _mm512_cvtepi32_epi8(whole));
}
inline vf vi_to_float(vi a) { return _mm512_cvtepi32_ps(a); }
inline vi vi_load(const int32_t* p) { return _mm512_loadu_si512(p); }
inline vi vi_sub(vi a, vi b) { return _mm512_sub_epi32(a, b); }

// acc + Σ over four k of activation · weight, in each lane; `four` is one activation word as the ISA wants it.
#if defined(HR_VNNI)
constexpr int activation_offset = 128;  // unsigned activations: dpbusd multiplies unsigned by signed
inline vi vdot(vi acc, uint32_t four, const int8_t* weights) {
    return _mm512_dpbusd_epi32(acc, _mm512_set1_epi32(int(four)), _mm512_loadu_si512(weights));
}
#else
constexpr int activation_offset = 0;
inline vi vdot(vi acc, uint32_t four, const int8_t* weights) {
    const vi x = _mm512_set1_epi32(int(four));
    const vi w = _mm512_loadu_si512(weights);
    const __mmask64 negative = _mm512_movepi8_mask(x);
    const vi signed_w = _mm512_mask_sub_epi8(w, negative, _mm512_setzero_si512(), w);
    // |x|, |w| ≤ 127, so that no pair of products leaves 16 bits
    const vi pairs = _mm512_maddubs_epi16(_mm512_abs_epi8(x), signed_w);
    return _mm512_add_epi32(acc, _mm512_madd_epi16(pairs, _mm512_set1_epi16(1)));
}
#endif

#if defined(HR_DPBF16)
inline vi vi_set(uint32_t x) { return _mm512_set1_epi32(int(x)); }
inline vi vi_load(const void* p) { return _mm512_loadu_si512(p); }
// acc + Σ over a pair of bf16 of a · b, in each lane
inline vf vdot_bf16(vf acc, vi a, vi b) {
#if defined(HR_EMULATE_DPBF16)  // for tests on processors without it: the same layout, another rounding
    const vi mask = vi_set(0xffff0000u);
    const auto first = [](vi x) { return _mm512_castsi512_ps(_mm512_slli_epi32(x, 16)); };
    const auto second = [mask](vi x) { return _mm512_castsi512_ps(_mm512_and_si512(x, mask)); };
    return vfma(second(a), second(b), vfma(first(a), first(b), acc));
#else
    return _mm512_dpbf16_ps(acc, (__m512bh)a, (__m512bh)b);
#endif
}
inline vf vdot_bf16(vf acc, uint32_t pair, const void* pairs) { return vdot_bf16(acc, vi_set(pair), vi_load(pairs)); }
// (a[i], b[i]) for i < W
inline vi vpairs(const bf16* a, const bf16* b) {
    const vi first = _mm512_cvtepu16_epi32(_mm256_loadu_si256(reinterpret_cast<const __m256i*>(a)));
    const vi second = _mm512_cvtepu16_epi32(_mm256_loadu_si256(reinterpret_cast<const __m256i*>(b)));
    return _mm512_or_si512(first, _mm512_slli_epi32(second, 16));
}
// The same for i < 2W, in two vectors.
inline void vpairs(const bf16* a, const bf16* b, vi& low, vi& high) {
    const vi x = _mm512_loadu_si512(a), y = _mm512_loadu_si512(b);
    const vi lane = _mm512_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15);
    const vi order = _mm512_add_epi32(_mm512_mullo_epi32(lane, vi_set(0x00010001u)), vi_set(0x00200000u));
    low = _mm512_permutex2var_epi16(x, order, y);
    high = _mm512_permutex2var_epi16(x, _mm512_add_epi16(order, vi_set(0x00100010u)), y);
}
// 2W floats to bf16, in order.
inline void vstore_pairs(void* p, vf low, vf high) {
#if defined(HR_EMULATE_DPBF16)
    _mm512_storeu_si512(p, _mm512_inserti64x4(_mm512_castsi256_si512(to_bits(low)), to_bits(high), 1));
#else
    _mm512_storeu_si512(p, (__m512i)_mm512_cvtne2ps_pbh(high, low));
#endif
}
#endif

}  // namespace hr::HR_ISA
