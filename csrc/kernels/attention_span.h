// The parts of attention over one span of a paged context: its two products, the softmax between, and the fold of
// spans. attention.h puts them together, and says what they keep to.
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

// The first lines of a block that is read next: by the time they are used up the processor has seen where it goes on.
template <class T>
void ask(const T* block) {
    for (int line = 0; line < 16; ++line) __builtin_prefetch(reinterpret_cast<const char*>(block) + 64 * line);
}

// What is read after the keys up to `t`: more of them, then the values of the same tokens.
template <class T>
const T* keys_ahead(const Pages<T>& pages, int t, int begin, int end) {
    if (t < end) return pages.keys(t);
    const int after = begin + (t - end);
    return pages.values(after < end ? after : begin);
}

// After the values up to `t`: more of them, then the keys of the next tokens.
template <class T>
const T* values_ahead(const Pages<T>& pages, int t, int end) {
    if (t < end) return pages.values(t);
    return t < pages.end ? pages.keys(t) : pages.values(end - 1);
}

template <class T, int MR>
void score_span(const Queries<T>& qs, const Pages<T>& pages, int begin, int end, float* span_scores, int span) {
    const int block_size = pages.cache.block_size, dim = pages.cache.key_dim;
    if (block_size >= 2 * W) {
        for (int t = begin / W * W; t < end;) {
            const bool two = t % (2 * W) == 0 && t + W < end;
            const int next = t + (two ? 2 * W : W);
            if (!reads_ahead(MR) && next < end) ask(pages.keys(next));
            const T* ahead = keys_ahead(pages, t + 4 * W, begin, end);
            float* scores = span_scores + t - span;
            if (two) {
                score<MR, 2>(qs.q, pages.keys(t), ahead, dim, block_size, scores);
            } else {
                score<MR, 1>(qs.q, pages.keys(t), ahead, dim, block_size, scores);
            }
            t = next;
        }
        return;
    }
    const int step = block_size < W ? block_size : W;
    for (int t = begin / step * step; t < end; t += step) {  // lanes beyond a block hold anything, and are overwritten
        const T* ahead = keys_ahead(pages, t + 4 * step, begin, end);
        score<MR, 1>(qs.q, pages.keys(t), ahead, dim, block_size, span_scores + t - span);
    }
}

// The runs of positions [begin, end), in order.
template <class T>
int whole_runs(const Pages<T>& pages, int begin, int end, Run<T>* runs) {
    const int block_size = pages.cache.block_size;
    int count = 0;
    for (int t = begin; t < end;) {
        const int block_end = (t / block_size + 1) * block_size, stop = block_end < end ? block_end : end;
        runs[count++] = {pages.values(t), nullptr, values_ahead(pages, t + 2 * block_size, end), stop - t};
        t = stop;
    }
    return count;
}

inline int runs_of(const Pages<float>& pages, int begin, int end, Run<float>* runs) {
    return whole_runs(pages, begin, end, runs);
}

#if defined(HR_DPBF16)
alignas(64) constexpr bf16 no_values[most_dim + 2 * W] = {};

// In pairs of positions (2i, 2i + 1): those of one block, or one pair that lies apart or is half outside.
inline int runs_of(const Pages<bf16>& pages, int begin, int end, Run<bf16>* runs) {
    const int block_size = pages.cache.block_size, whole = end / 2 * 2;
    int count = 0;
    for (int t = begin / 2 * 2; t < end;) {
        const bf16* first = t < begin ? no_values : pages.values(t);
        const bf16* ahead = values_ahead(pages, t + 2 * block_size, end);
        if (t < begin || t + 1 >= end || block_size == 1) {
            runs[count++] = {first, t + 1 < end ? pages.values(t + 1) : no_values, ahead, 1};
            t += 2;
            continue;
        }
        const int block_end = (t / block_size + 1) * block_size, stop = block_end < whole ? block_end : whole;
        runs[count++] = {first, first + pages.cache.value_dim, ahead, (stop - t) / 2};
        t = stop;
    }
    return count;
}
#else
inline int runs_of(const Pages<bf16>& pages, int begin, int end, Run<bf16>* runs) {
    return whole_runs(pages, begin, end, runs);
}
#endif

// sum = Σ p · values over positions [begin, end) of a span
template <class T, int MR>
void add_span(const typename Words<T>::word* p, const Pages<T>& pages, int begin, int end, int span, float* sum) {
    Run<T> runs[span_tokens + 2];
    const int count = runs_of(pages, begin, end, runs);
    p += (begin - span) / Words<T>::per_word;
    add_columns<MR, vectors_for(MR), T>(p, runs, count, 0, pages.cache.value_dim, sum);
}

template <class T>
struct TileCalls {
    void (*score_span)(const Queries<T>&, const Pages<T>&, int, int, float*, int);
    void (*add_span)(const typename Words<T>::word*, const Pages<T>&, int, int, int, float*);
};

template <class T, int MR = tile_rows>
TileCalls<T> tile_calls(int rows) {
    if constexpr (MR == 1) {
        return {score_span<T, 1>, add_span<T, 1>};
    } else {
        return rows == MR ? TileCalls<T>{score_span<T, MR>, add_span<T, MR>} : tile_calls<T, MR - 1>(rows);
    }
}

// Whether every value of positions [begin, end) may be multiplied by 0.
template <class T>
bool are_finite(const Pages<T>& pages, int begin, int end) {
    vf taint = vzero();
    for (int t = begin; t < end; ++t) {
        const T* values = pages.values(t);
        for (int e = 0; e < pages.cache.value_dim; e += W) taint = vfma(vload(values + e), vzero(), taint);
    }
    return vsum(taint) == 0.0f;
}

// ------------------------------------------------------------------------------------------------ softmax

// Positions within a span.
struct Range {
    int begin;
    int end;
    bool holds(int t, int n) const { return t >= begin && t + n <= end; }
};

inline void store_words(float* p, int t, vf low, vf high) {
    vstore(p + t, low);
    vstore(p + t + W, high);
}

#if defined(HR_DPBF16)
inline void store_words(uint32_t* p, int t, vf low, vf high) { vstore_pairs(p + t / 2, low, high); }
#endif

// The scaled scores of the positions that a query sees, and the highest. What comes back is still to be multiplied: by
// the scale, where it keeps the order and is all that happens to a score.
struct Scaled {
    float factor;
    float highest;
};

inline __attribute__((always_inline)) Scaled scale_scores(float* scores, Range seen, float scale, float softcap) {
    const vf nothing = vset(-__builtin_inff());
    const bool as_they_are = softcap <= 0 && scale > 0;
    vf highest = nothing;
    for (int t = seen.begin / W * W; t < seen.end; t += W) {
        vf s = vload(scores + t);
        if (softcap > 0) {
            s = vmul(vset(softcap), vtanh(vmul(s, vset(scale / softcap))));
        } else if (!as_they_are) {
            s = vmul(s, vset(scale));
        }
        if (!as_they_are) vstore(scores + t, s);
        if (!seen.holds(t, W)) s = vwithin(t, seen.begin, seen.end, s, nothing);
        highest = vmax(s, highest);
    }
    const float factor = as_they_are ? scale : 1.0f;
    return {factor, factor * vhighest(highest)};
}

// Scores to p for the positions that a query sees, and 0 for the others of its tile.
template <class Word>
inline __attribute__((always_inline)) Fold soften(float* scores, Word* p, Range seen, Range tile, float scale,
                                                  float softcap) {
    if (seen.begin >= seen.end) seen = {tile.end, tile.end};
    const Scaled scaled = scale_scores(scores, seen, scale, softcap);
    const vf factor = vset(scaled.factor), top = vset(-scaled.highest);
    const auto p_at = [&](int t) __attribute__((always_inline)) { return vexp(vfma(vload(scores + t), factor, top)); };
    vf total = vzero();
    for (int t = tile.begin / (2 * W) * (2 * W); t < tile.end; t += 2 * W) {
        vf low = p_at(t), high = p_at(t + W);
        if (!seen.holds(t, 2 * W)) {
            low = vwithin(t, seen.begin, seen.end, low, vzero());
            high = vwithin(t + W, seen.begin, seen.end, high, vzero());
        }
        total = vadd(vadd(total, low), high);
        store_words(p, t, low, high);
    }
    return {scaled.highest, vsum(total)};
}

inline float exp_of(float x) {
    float lanes[W];
    vstore(lanes, vexp(vset(x)));
    return lanes[0];
}

// (into, sum) := (into, sum) and then (next, next_sum)
inline void fold(Fold& into, float* sum, Fold next, const float* next_sum, int dim) {
    if (next.total == 0) return;
    if (into.total == 0) {
        for (int e = 0; e < dim; e += W) vstore(sum + e, vload(next_sum + e));
        into = next;
        return;
    }
    const bool rises = next.highest > into.highest;
    const float weight = exp_of(rises ? into.highest - next.highest : next.highest - into.highest);
    const vf keep = vset(rises ? weight : 1.0f), add = vset(rises ? 1.0f : weight);
    for (int e = 0; e < dim; e += W) {
        vstore(sum + e, vfma(vload(sum + e), keep, vmul(vload(next_sum + e), add)));
    }
    into = {rises ? next.highest : into.highest,
            rises ? into.total * weight + next.total : into.total + next.total * weight};
}

}  // namespace hr::HR_ISA
