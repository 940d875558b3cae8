// The packed product: y = x · wᵀ.
//
// A weight [N, K] lies in panels of 2·W columns (W lanes of a vector), one panel after the other:
//
//   panel p          step 0                  step 1            …
//                ┌───────────────────────┬───────────────────────┬──
//                │ word of column 0 … 2W-1 │ word of column 0 … 2W-1 │
//                └───────────────────────┴───────────────────────┴──
//   a word is 4 bytes: one k of HR_F32, a pair of HR_BF16, four of HR_INT8 (a panel ends in 2W scales, 2W offsets)
//   plain: columns 2W·p …;  gated: W gates, rows W·p …, and the W rows that they gate, N/2 + W·p …
//
// The rows of x are words too, [k block][row][block_words].
//
// One accumulator holds one output and adds its k in ascending order, whatever the height of the tile, the cut of the
// work or the number of threads: that fixes the bits of a row. Between k blocks it rests in memory as it is.
#include "../kernels.h"

namespace hr::HR_ISA {

constexpr int panel_width = 2 * W;
constexpr int block_words = 256;  // 12 rows of words are 12 KiB: they stay in the first-level cache beside the panel
constexpr int prefetch_bytes = 8192;  // a memory access takes as long as about this many bytes take to multiply
constexpr int slab_blocks = 16;  // row blocks whose accumulators rest on the stack: 24 KiB

// ------------------------------------------------------------------------------------------------ element formats
// step<MR>: adds one step of the panel's words to MR rows. step_words: words of x that it takes.

struct F32 {
    using acc = vf;
    static constexpr int step_words = 1;
    static acc zero() { return vzero(); }
    template <int MR>
    static inline __attribute__((always_inline)) void step(const uint32_t* x, const char* w, acc (&c)[MR][2]) {
        add<MR>(reinterpret_cast<const float*>(x), vload(reinterpret_cast<const float*>(w)),
                vload(reinterpret_cast<const float*>(w) + W), c);
    }
    template <int MR>
    static inline __attribute__((always_inline)) void add(const float* x, vf w0, vf w1, acc (&c)[MR][2]) {
#pragma GCC unroll 16
        for (int i = 0; i < MR; ++i) {
            const vf a = vset(x[i * block_words]);
            c[i][0] = vfma(a, w0, c[i][0]);
            c[i][1] = vfma(a, w1, c[i][1]);
        }
    }
};

// bf16 weights, widened in registers; x in float.
struct WidenedBf16 {
    using acc = vf;
    static constexpr int step_words = 2;
    static acc zero() { return vzero(); }
    template <int MR>
    static inline __attribute__((always_inline)) void step(const uint32_t* x, const char* w, acc (&c)[MR][2]) {
        const float* values = reinterpret_cast<const float*>(x);
        F32::add<MR>(values, vfirst(w), vfirst(w + 4 * W), c);
        F32::add<MR>(values + 1, vsecond(w), vsecond(w + 4 * W), c);
    }
};

#if defined(HR_DPBF16)
struct DotBf16 {
    using acc = vf;
    static constexpr int step_words = 1;
    static acc zero() { return vzero(); }
    template <int MR>
    static inline __attribute__((always_inline)) void step(const uint32_t* x, const char* w, acc (&c)[MR][2]) {
#pragma GCC unroll 16
        for (int i = 0; i < MR; ++i) {
            c[i][0] = vdot_bf16(c[i][0], x[i * block_words], w);
            c[i][1] = vdot_bf16(c[i][1], x[i * block_words], w + 4 * W);
        }
    }
};
using Bf16 = DotBf16;
constexpr int bf16_word_k = 2;
#else
using Bf16 = WidenedBf16;
constexpr int bf16_word_k = 1;
#endif

struct Int8 {
    using acc = vi;
    static constexpr int step_words = 1;
    static acc zero() { return vizero(); }
    template <int MR>
    static inline __attribute__((always_inline)) void step(const uint32_t* x, const char* w, acc (&c)[MR][2]) {
        const int8_t* weights = reinterpret_cast<const int8_t*>(w);
#pragma GCC unroll 16
        for (int i = 0; i < MR; ++i) {
            c[i][0] = vdot(c[i][0], x[i * block_words], weights);
            c[i][1] = vdot(c[i][1], x[i * block_words], weights + 4 * W);
        }
    }
};

constexpr int step_bytes = 4 * panel_width;

inline PanelLayout panel_layout(int32_t dtype) {
    const int word_k = dtype == HR_INT8 ? 4 : dtype == HR_BF16 ? bf16_word_k : 1;
    return {panel_width, tile_rows, word_k, block_words};
}

// ------------------------------------------------------------------------------------------------ tiles

// What a tile asks of memory for the first-level cache while it computes: nothing, one cache line of `from` a step, or
// a whole step. The loops are three because even a branch in them shows.
struct Ahead {
    enum { nothing, one_line, whole_step } what;
    const char* from;
};

template <class F, int MR>
void tile(const uint32_t* x, const char* w, int64_t words, typename F::acc* resting, bool first, Ahead ahead) {
    typename F::acc c[MR][2];
#pragma GCC unroll 16
    for (int i = 0; i < MR; ++i) {
        c[i][0] = first ? F::zero() : resting[2 * i];
        c[i][1] = first ? F::zero() : resting[2 * i + 1];
    }
    const int64_t steps = words / F::step_words;
    const auto step = [&](int64_t k) __attribute__((always_inline)) {
        F::template step<MR>(x + k * F::step_words, w + k * step_bytes, c);
    };
    // Unrolled, because the front end takes four operations a cycle and a step alone has nearly as many.
    if (ahead.what == Ahead::nothing) {
#pragma GCC unroll 4
        for (int64_t k = 0; k < steps; ++k) step(k);
    } else if (ahead.what == Ahead::one_line) {
#pragma GCC unroll 4
        for (int64_t k = 0; k < steps; ++k) {
            __builtin_prefetch(ahead.from + k * 64, 0, 3);
            step(k);
        }
    } else {
#pragma GCC unroll 4
        for (int64_t k = 0; k < steps; ++k) {
            for (int line = 0; line < step_bytes; line += 64) {
                __builtin_prefetch(ahead.from + k * step_bytes + line, 0, 3);
            }
            step(k);
        }
    }
#pragma GCC unroll 16
    for (int i = 0; i < MR; ++i) {
        resting[2 * i] = c[i][0];
        resting[2 * i + 1] = c[i][1];
    }
}

template <class F>
using Tile = void (*)(const uint32_t*, const char*, int64_t, typename F::acc*, bool, Ahead);

// The tile of `rows` rows, of heights 1 … MR.
template <class F, int MR = tile_rows>
Tile<F> tile_of(int64_t rows) {
    if constexpr (MR == 1) {
        return tile<F, 1>;
    } else {
        return rows == MR ? tile<F, MR> : tile_of<F, MR - 1>(rows);
    }
}

// ------------------------------------------------------------------------------------------------ after a product

// The columns of y that a panel ends in, and of the matrix that it comes from.
struct Columns {
    int64_t first;
    int count;
};

inline Columns panel_columns(const hr_matrix& matrix, int64_t panel) {
    const int width = matrix.gated ? W : panel_width;
    const int64_t outputs = matrix.gated ? matrix.n / 2 : matrix.n;
    const int64_t first = panel * width;
    return {first, int(outputs - first < width ? outputs - first : width)};
}

inline vf load_some(const float* p, int n) { return n >= W ? vload(p) : n > 0 ? vload_n(p, n) : vzero(); }

template <class Y>
void store_sum(Y* y, const Y* residual, vf v, int n) {
    if (n >= W) {
        vstore(y, residual ? vadd(v, vload(residual)) : v);
    } else if (n > 0) {
        vstore_n(y, residual ? vadd(v, vload_n(residual, n)) : v, n);
    }
}

template <class Y>
void finish_row(const Product& g, int64_t row, Columns columns, vf v0, vf v1) {
    Y* y = static_cast<Y*>(g.y) + row * g.ldy + columns.first;
    const Y* residual = g.residual ? static_cast<const Y*>(g.residual) + row * g.ldr + columns.first : nullptr;
    const float* bias = g.matrix->bias;
    if (g.matrix->gated) {
        if (bias) {
            v0 = vadd(v0, load_some(bias + columns.first, columns.count));
            v1 = vadd(v1, load_some(bias + g.matrix->n / 2 + columns.first, columns.count));
        }
        store_sum(y, residual, vmul(vactivate(v0, g.activation), v1), columns.count);
        return;
    }
    if (bias) {
        v0 = vadd(v0, load_some(bias + columns.first, columns.count));
        v1 = vadd(v1, load_some(bias + columns.first + W, columns.count - W));
    }
    store_sum(y, residual, vactivate(v0, g.activation), columns.count);
    store_sum(y + W, residual ? residual + W : nullptr, vactivate(v1, g.activation), columns.count - W);
}

inline vf to_float(const Product&, const char*, int64_t, vf acc, int) { return acc; }

inline vf to_float(const Product& g, const char* panel_end, int64_t row, vi acc, int half) {
    const float* scales = reinterpret_cast<const float*>(panel_end) + half * W;
    const int32_t* offsets = reinterpret_cast<const int32_t*>(panel_end) + panel_width + half * W;
    return vmul(vi_to_float(vi_sub(acc, vi_load(offsets))), vmul(vload(scales), vset(g.x_scale[row])));
}

// ------------------------------------------------------------------------------------------------ the product

// A weight's steps and a panel's bytes.
inline int64_t panel_steps(const hr_matrix& m) {
    return m.dtype == HR_INT8 ? (m.k + 3) / 4 : m.dtype == HR_BF16 ? (m.k + 1) / 2 : m.k;
}
inline int64_t panel_bytes(const hr_matrix& m) {
    return panel_steps(m) * step_bytes + (m.dtype == HR_INT8 ? 8 * panel_width : 0);
}

// One row block: what comes next of this panel, a little ahead. Several: the first of them fetch the next k block, one
// line a step, which is about what memory delivers to a core meanwhile.
inline Ahead ahead_of(const char* w, int64_t steps, int64_t block, int64_t blocks) {
    if (blocks == 1) return {Ahead::whole_step, w + prefetch_bytes};
    const int64_t from = block * steps * 64;
    if (from >= steps * step_bytes) return {Ahead::nothing, nullptr};
    return {Ahead::one_line, w + steps * step_bytes + from};
}

template <class F>
void multiply_slab(const Product& g, const char* panel, int64_t block, int64_t block_end, typename F::acc* resting) {
    for (int64_t k0 = 0; k0 < g.words; k0 += block_words) {
        const int64_t words = g.words - k0 < block_words ? g.words - k0 : block_words;
        const char* w = panel + k0 / F::step_words * step_bytes;
        for (int64_t b = block; b < block_end; ++b) {
            const int64_t first_row = block_row(g.m, g.row_blocks, b);
            const int64_t rows = block_row(g.m, g.row_blocks, b + 1) - first_row;
            const uint32_t* x = g.x + k0 * g.m + first_row * block_words;
            const Ahead ahead = ahead_of(w, words / F::step_words, b - block, block_end - block);
            tile_of<F>(rows)(x, w, words, resting + (b - block) * 2 * tile_rows, k0 == 0, ahead);
        }
    }
}

template <class F>
void finish_slab(const Product& g, int64_t p, const char* panel_end, int64_t block, int64_t block_end,
                 const typename F::acc* resting) {
    const Columns columns = panel_columns(*g.matrix, p);
    for (int64_t b = block; b < block_end; ++b) {
        const int64_t end_row = block_row(g.m, g.row_blocks, b + 1);
        const typename F::acc* c = resting + (b - block) * 2 * tile_rows;
        for (int64_t row = block_row(g.m, g.row_blocks, b); row < end_row; ++row, c += 2) {
            const vf v0 = to_float(g, panel_end, row, c[0], 0);
            const vf v1 = to_float(g, panel_end, row, c[1], 1);
            if (g.y_dtype == HR_BF16) {
                finish_row<bf16>(g, row, columns, v0, v1);
            } else {
                finish_row<float>(g, row, columns, v0, v1);
            }
        }
    }
}

template <class F>
void multiply_as(const Product& g, int64_t panel, int64_t panel_end, int64_t block, int64_t block_end) {
    typename F::acc resting[slab_blocks * 2 * tile_rows];
    for (int64_t p = panel; p < panel_end; ++p) {
        const char* data = static_cast<const char*>(g.matrix->data) + p * panel_bytes(*g.matrix);
        const char* data_end = data + panel_steps(*g.matrix) * step_bytes;
        for (int64_t b = block; b < block_end; b += slab_blocks) {
            const int64_t end = b + slab_blocks < block_end ? b + slab_blocks : block_end;
            multiply_slab<F>(g, data, b, end, resting);
            finish_slab<F>(g, p, data_end, b, end, resting);
        }
    }
}

inline void multiply(const Product& g, int64_t panel, int64_t panel_end, int64_t block, int64_t block_end) {
    switch (g.matrix->dtype) {
        case HR_INT8: return multiply_as<Int8>(g, panel, panel_end, block, block_end);
        case HR_BF16: return multiply_as<Bf16>(g, panel, panel_end, block, block_end);
        default: return multiply_as<F32>(g, panel, panel_end, block, block_end);
    }
}

}  // namespace hr::HR_ISA
