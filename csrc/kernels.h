// What one instruction set offers: functions for one thread over a range of the work, behind plain pointers. The files
// beside this one cut the work up; they are compiled for any processor and never see a vector.
#ifndef HEADRACE_KERNELS_H
#define HEADRACE_KERNELS_H

#include <cstddef>
#include <cstdint>

#include "headrace.h"

namespace hr {

// How weights and rows of x are packed; drawn in kernels/gemm.h.
struct PanelLayout {
    int width;        // columns of a panel
    int tile_rows;    // most rows of x that go through a panel together
    int word_k;       // how many k one 32-bit word of a packed x holds
    int block_words;  // words of a row that lie together
};

// One product under way: x packed, its rows cut in `row_blocks` blocks of nearly equal height.
struct Product {
    const hr_matrix* matrix;
    const uint32_t* x;
    const float* x_scale;  // [M], HR_INT8 alone
    int64_t m;
    int64_t row_blocks;
    int64_t words;  // of a row of x
    void* y;
    int64_t ldy;
    const void* residual;
    int64_t ldr;
    int32_t y_dtype;
    int32_t activation;
};

inline int64_t block_row(int64_t m, int64_t row_blocks, int64_t block) { return m * block / row_blocks; }

// ------------------------------------------------------------------------------------------------------- attention

// Queries that share a kv head of one row, and the spans of its context that they go over.
struct QueryTile {
    int32_t row;
    int32_t kv_head;
    int32_t first;  // counts token · group + head within the group
    int32_t count;
    int32_t first_span;
    int32_t end_span;
    // A tile that is split over threads keeps what it finds of each span: partial_floats each, [count][num_partials].
    float* partial;
    int32_t first_partial;  // the tile's first span
    int32_t num_partials;
};

constexpr int partial_floats = 16 + 256 + 16;

// The first position that the query at `position` sees.
inline int first_seen(const hr_attention& a, int position) {
    int first = 0;
    if (a.window > 0 && position - a.window + 1 > first) first = position - a.window + 1;
    if (a.chunk > 0 && position / a.chunk * a.chunk > first) first = position / a.chunk * a.chunk;
    return first;
}

struct CacheWrite {
    const hr_cache* cache;
    const void* key;
    int64_t key_token_stride;
    int64_t key_head_stride;
    const void* value;
    int64_t value_token_stride;
    int64_t value_head_stride;
    const int64_t* slots;
};

// -------------------------------------------------------------------------------------------------------- sampling

constexpr int sample_lines = 32;
constexpr int sample_buckets = 2048;
constexpr int sample_groups = 512;

// Which tokens of a row stay: values above `floor`, its equals up to id `last_equal`, weights not below `min_weight`.
struct Cut {
    float peak;
    float sharpness;
    float min_weight;
    float floor;
    int64_t last_equal;
};

// A value and its token's id in one integer: ordered by value, of equals the lower id first. 0 and -0 are equal.
inline __attribute__((always_inline)) uint64_t sample_key(float value, int64_t id) {
    const float x = value + 0.0f;
    uint32_t bits;
    __builtin_memcpy(&bits, &x, 4);
    bits = bits >> 31 ? ~bits : bits | 0x80000000u;
    return uint64_t(bits) << 32 | (0xffffffffu - uint32_t(id));
}

inline __attribute__((always_inline)) float sample_value(uint64_t key) {
    uint32_t bits = uint32_t(key >> 32);
    bits = bits >> 31 ? bits & 0x7fffffffu : ~bits;
    float x;
    __builtin_memcpy(&x, &bits, 4);
    return x;
}

inline __attribute__((always_inline)) int64_t sample_id(uint64_t key) { return int64_t(0xffffffffu - uint32_t(key)); }

constexpr int64_t most_choices = 64;  // of experts, by a token

struct Kernels {
    const char* name;
    PanelLayout (*panel_layout)(int32_t dtype);
    int64_t (*panel_bytes)(const hr_matrix&);
    void (*pack_rows)(const hr_matrix&, const void* w, int64_t ldw, int32_t w_dtype, int64_t n,
                      int64_t count);
    void (*unpack_row)(const hr_matrix&, void* w, int64_t n);
    void (*pack_x)(const Product&, const void* x, int32_t x_dtype, uint32_t* packed, int64_t row, float* scale);
    void (*multiply)(const Product&, int64_t panel, int64_t panel_end, int64_t block, int64_t block_end);
    double (*probe_multiply_adds)(int64_t rounds, float* sink);
    void (*probe_read)(const float* p, int64_t floats, float* sink);
    int query_tile_rows;
    int span_tokens;
    void (*attend)(const hr_attention&, const QueryTile&);
    void (*join)(const hr_attention&, const QueryTile&, int i);
    void (*cache_write)(const CacheWrite&, int64_t token);
    void (*rope_and_write)(const hr_rope&, int64_t token, int64_t end);
    void (*norm)(const hr_norm_args&, int64_t row);
    void (*activate)(const void* gate, const void* up, void* out, int64_t n, int32_t dtype, int32_t activation);
    int64_t (*argmax)(const void* x, int64_t n, int32_t dtype);
    void (*weighted_sum)(const void* const* rows, const float* weights, int k, int64_t n, int32_t dtype, void* out);
    float (*highest)(const void* x, int64_t n, int32_t dtype, float* lowest, float* maxima);
    void (*weigh)(const float* values, int64_t n, float peak, float sharpness, float* out);
    void (*column_sums)(const void* x, int64_t n, int32_t dtype, const Cut&, float* sums);
    int64_t (*collect)(const void* x, int64_t from, int64_t n, int32_t dtype, float above, uint64_t* keys, int room,
                       int* count);
    void (*bucket)(const void* x, int64_t n, int32_t dtype, float peak, float sharpness, float scale, float* weights,
                   int32_t* buckets);
};

extern const Kernels portable_kernels;
#if defined(__x86_64__)
extern const Kernels avx2_kernels;
extern const Kernels avx512_kernels;
extern const Kernels avx512vnni_kernels;
extern const Kernels avx512bf16_kernels;
#endif

}  // namespace hr
#endif
