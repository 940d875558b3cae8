// What attention computes with: a tile of queries, a span of the paged cache, and the two products in registers.
namespace hr::HR_ISA {

constexpr int span_tokens = 256;
constexpr int task_tiles = 4;  // tiles of queries that go over a span together
constexpr int task_rows = task_tiles * tile_rows;
constexpr int most_dim = 256;
constexpr int row_stride = 256 + 16;  // of the buffers below; the tail takes what a vector writes beyond the end

// How the values of one query over one span, or over all spans so far, are kept.
struct Fold {
    float highest;
    float total;  // 0: saw nothing
};

// What the products multiply: words of queries and of p, as many cache elements each as per_word says. Where there are
// dot products of bf16 pairs, a word is a pair: of d in queries, of positions (2i, 2i + 1) in p.
template <class T>
struct Words {
    using word = float;
    static constexpr int per_word = 1;
};
#if defined(HR_DPBF16)
template <>
struct Words<bf16> {
    using word = uint32_t;
    static constexpr int per_word = 2;
};
#endif

template <class T>
struct Queries {
    int count;
    int from[tile_rows];  // sees positions [from, to)
    int to[tile_rows];
    alignas(64) typename Words<T>::word q[tile_rows * row_stride];
};

// What is computed of a tile of queries over one span.
template <class T>
struct Scratch {
    alignas(64) float scores[tile_rows * row_stride];
    alignas(64) typename Words<T>::word p[tile_rows * row_stride];
    alignas(64) float sum[tile_rows * row_stride];
    Fold folds[tile_rows];
};

template <class T>
struct Pages {
    const hr_cache& cache;
    const int32_t* table;
    int64_t head;
    int end;  // of the context

    // From here the keys of W tokens from position t lie dense, for d (a pair of d) after d at stride S.
    const T* keys(int t) const {
        constexpr int per_step = 4 / sizeof(T);
        const int64_t s = cache.block_size;
        const T* block =
            static_cast<const T*>(cache.keys) + (table[t / s] * int64_t(cache.num_kv_heads) + head) * cache.key_dim * s;
        return block + t % s * per_step;
    }
    const T* values(int t) const {
        const int64_t s = cache.block_size;
        return static_cast<const T*>(cache.values) +
               ((table[t / s] * int64_t(cache.num_kv_heads) + head) * s + t % s) * cache.value_dim;
    }
};

// ------------------------------------------------------------------------------------------------ the two products

// c[i][v] += x[i] · w[v]; x[i] lies row_stride after x[i - 1]
template <int MR, int NV>
inline __attribute__((always_inline)) void add_products(const float* x, const vf (&w)[NV], vf (&c)[MR][NV]) {
#pragma GCC unroll 16
    for (int i = 0; i < MR; ++i) {
        const vf a = vset(x[i * row_stride]);
#pragma GCC unroll 8
        for (int v = 0; v < NV; ++v) c[i][v] = vfma(a, w[v], c[i][v]);
    }
}

#if defined(HR_DPBF16)
template <int MR, int NV>
inline __attribute__((always_inline)) void add_pair_products(const uint32_t* x, const vi (&w)[NV], vf (&c)[MR][NV]) {
#pragma GCC unroll 16
    for (int i = 0; i < MR; ++i) {
        const vi a = vi_set(x[i * row_stride]);
#pragma GCC unroll 8
        for (int v = 0; v < NV; ++v) c[i][v] = vdot_bf16(c[i][v], a, w[v]);
    }
}
#endif

template <int MR, int NV>
inline __attribute__((always_inline)) void store_tile(const vf (&c)[MR][NV], float* out) {
#pragma GCC unroll 16
    for (int i = 0; i < MR; ++i) {
#pragma GCC unroll 8
        for (int v = 0; v < NV; ++v) vstore(out + i * row_stride + v * W, c[i][v]);
    }
}

// Few queries read the cache faster than memory delivers it, unless it is asked for two blocks ahead: a line for every
// line that is read. With many queries the first lines of the next block are enough.
constexpr bool reads_ahead(int rows) { return rows <= 4; }

// Asks for the lines that lie where the `bytes` bytes at `p` do, from `ahead` on.
template <int MR, int bytes>
inline __attribute__((always_inline)) void ask_line(const void* ahead, int64_t offset) {
    if constexpr (reads_ahead(MR)) {
#pragma GCC unroll 8
        for (int at = 0; at < bytes; at += 64) __builtin_prefetch(static_cast<const char*>(ahead) + offset + at);
    }
}

// scores[i][0 … NV·W) = q[i] · keys
template <int MR, int NV>
void score(const float* q, const float* keys, const float* ahead, int dim, int64_t block_size, float* scores) {
    vf c[MR][NV] = {};
#pragma GCC unroll 4
    for (int d = 0; d < dim; ++d) {
        ask_line<MR, NV * W * 4>(ahead, d * block_size * 4);
        vf w[NV];
#pragma GCC unroll 8
        for (int v = 0; v < NV; ++v) w[v] = vload(keys + d * block_size + v * W);
        add_products(q + d, w, c);
    }
    store_tile(c, scores);
}

template <int MR, int NV>
void score(const float* q, const bf16* keys, const bf16* ahead, int dim, int64_t block_size, float* scores) {
    vf c[MR][NV] = {};
#pragma GCC unroll 2
    for (int d = 0; d < dim; d += 2) {
        ask_line<MR, NV * W * 4>(ahead, d * block_size * 2);
        vf first[NV], second[NV];
#pragma GCC unroll 8
        for (int v = 0; v < NV; ++v) first[v] = vfirst(keys + d * block_size + 2 * v * W);
        add_products(q + d, first, c);
#pragma GCC unroll 8
        for (int v = 0; v < NV; ++v) second[v] = vsecond(keys + d * block_size + 2 * v * W);
        add_products(q + d + 1, second, c);
    }
    store_tile(c, scores);
}

#if defined(HR_DPBF16)
template <int MR, int NV>
void score(const uint32_t* q, const bf16* keys, const bf16* ahead, int dim, int64_t block_size, float* scores) {
    vf c[MR][NV] = {};
#pragma GCC unroll 4
    for (int d = 0; d < dim / 2; ++d) {
        ask_line<MR, NV * W * 4>(ahead, d * block_size * 4);
        vi w[NV];
#pragma GCC unroll 8
        for (int v = 0; v < NV; ++v) w[v] = vi_load(keys + (d * block_size + v * W) * 2);
        add_pair_products(q + d, w, c);
    }
    store_tile(c, scores);
}
#endif

// Values that lie one after the other, for n words of p; where a word is a pair of positions, `second` has those of the
// second of each pair. `ahead` is what memory is asked for meanwhile.
template <class T>
struct Run {
    const T* first;
    const T* second;
    const T* ahead;
    int n;
};

template <class T>
inline __attribute__((always_inline)) void ask_run(const Run<T>& run, int64_t step) {
    for (int64_t row = 0; row < 8; ++row) __builtin_prefetch(run.first + row * step);
}

// sum[i][0 … NV·W) = Σ p[i] · values from column e on, over all runs
template <int MR, int NV, class T>
void add_values(const float* p, const Run<T>* runs, int count, int64_t e, int64_t dim, float* sum) {
    vf c[MR][NV] = {};
    for (int r = 0; r < count; ++r) {
        const T* values = runs[r].first + e;
        if (!reads_ahead(MR) && r + 1 < count) ask_run(runs[r + 1], dim);
#pragma GCC unroll 4
        for (int64_t t = 0; t < runs[r].n; ++t) {
            ask_line<MR, NV * W * int(sizeof(T))>(runs[r].ahead, (t * dim + e) * int64_t(sizeof(T)));
            vf w[NV];
#pragma GCC unroll 8
            for (int v = 0; v < NV; ++v) w[v] = vload(values + t * dim + v * W);
            add_products(p + t, w, c);
        }
        p += runs[r].n;
    }
    store_tile(c, sum);
}

#if defined(HR_DPBF16)
template <int MR, int NV>
void add_values(const uint32_t* p, const Run<bf16>* runs, int count, int64_t e, int64_t dim, float* sum) {
    vf c[MR][NV] = {};
    for (int r = 0; r < count; ++r) {
        const bf16 *first = runs[r].first + e, *second = runs[r].second + e;
        if (!reads_ahead(MR) && r + 1 < count) ask_run(runs[r + 1], dim);
#pragma GCC unroll 2
        for (int64_t t = 0; t < runs[r].n; ++t) {
            ask_line<MR, NV * W * 2>(runs[r].ahead, (2 * t * dim + e) * 2);
            ask_line<MR, NV * W * 2>(runs[r].ahead, (2 * t * dim + dim + e) * 2);
            const bf16 *a = first + 2 * t * dim, *b = second + 2 * t * dim;
            vi w[NV];
            if constexpr (NV == 1) {
                w[0] = vpairs(a, b);
            } else {
#pragma GCC unroll 4
                for (int v = 0; v < NV; v += 2) vpairs(a + v * W, b + v * W, w[v], w[v + 1]);
            }
            add_pair_products(p + t, w, c);
        }
        p += runs[r].n;
    }
    store_tile(c, sum);
}
#endif

// All columns from e on: as many at a time as the registers hold, and what is left in halves.
template <int MR, int NV, class T>
void add_columns(const typename Words<T>::word* p, const Run<T>* runs, int count, int64_t e, int64_t dim, float* sum) {
    for (; e + NV * W <= dim; e += NV * W) add_values<MR, NV>(p, runs, count, e, dim, sum + e);
    if (e == dim) return;
    if constexpr (NV > 1) {
        add_columns<MR, NV / 2>(p, runs, count, e, dim, sum);
    } else {
        add_values<MR, 1>(p, runs, count, e, dim, sum + e);
    }
}

// Vectors of a row that go through together: as many as the registers hold, at most 8.
constexpr int vectors_for(int rows) { return rows * 8 <= 2 * tile_rows ? 8 : rows * 4 <= 2 * tile_rows ? 4 : 2; }

}  // namespace hr::HR_ISA
