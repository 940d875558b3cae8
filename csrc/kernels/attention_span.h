// The parts of attention over one span of a paged context: its two products, the softmax between, and the fold of
// spans. attention.h puts them together, and says what they keep to.
namespace hr::HR_ISA {

constexpr int span_tokens = 256;
constexpr int most_dim = 256;
constexpr int row_stride = 256 + 16;  // of the buffers below; the tail takes what a vector writes beyond the end

// How the values of one query over one span, or over all spans so far, are kept.
struct Fold {
    float highest;
    float total;  // 0: saw nothing
};

struct Queries {
    int count;
    int from[tile_rows];  // sees positions [from, to)
    int to[tile_rows];
    alignas(64) float q[tile_rows * row_stride];
    alignas(64) float scores[tile_rows * row_stride];  // then p
    alignas(64) float sum[tile_rows * row_stride];
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

// sum[i][0 … NV·W) += p[i] · values, over n tokens
template <class T, int MR, int NV>
void add_values(const float* p, const T* values, const T* ahead, int64_t dim, int n, float* sum) {
    vf c[MR][NV];
#pragma GCC unroll 16
    for (int i = 0; i < MR; ++i) {
#pragma GCC unroll 8
        for (int v = 0; v < NV; ++v) c[i][v] = vload(sum + i * row_stride + v * W);
    }
#pragma GCC unroll 4
    for (int t = 0; t < n; ++t) {
        ask_line<MR, NV * W * int(sizeof(T))>(ahead, t * dim * int64_t(sizeof(T)));
        vf w[NV];
#pragma GCC unroll 8
        for (int v = 0; v < NV; ++v) w[v] = vload(values + t * dim + v * W);
        add_products(p + t, w, c);
    }
    store_tile(c, sum);
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
void score_span(const Queries& qs, const Pages<T>& pages, int begin, int end, int span, float* scores) {
    const int block_size = pages.cache.block_size;
    if (block_size >= 2 * W) {
        for (int t = begin / (2 * W) * (2 * W); t < end; t += 2 * W) {
            if (!reads_ahead(MR) && t + 2 * W < end) ask(pages.keys(t + 2 * W));
            const T* ahead = keys_ahead(pages, t + 4 * W, begin, end);
            score<MR, 2>(qs.q, pages.keys(t), ahead, pages.cache.key_dim, block_size, scores + t - span);
        }
        return;
    }
    const int step = block_size < W ? block_size : W;
    for (int t = begin / step * step; t < end; t += step) {  // lanes beyond a block hold anything, and are overwritten
        const T* ahead = keys_ahead(pages, t + 4 * step, begin, end);
        score<MR, 1>(qs.q, pages.keys(t), ahead, pages.cache.key_dim, block_size, scores + t - span);
    }
}

template <class T, int MR>
void add_span(const float* p, const Pages<T>& pages, int begin, int end, int span, float* sum) {
    constexpr int NV = vectors_for(MR);
    const int dim = pages.cache.value_dim, block_size = pages.cache.block_size;
    for (int t = begin; t < end;) {
        const int block_end = (t / block_size + 1) * block_size, stop = block_end < end ? block_end : end;
        const T* values = pages.values(t);
        if (!reads_ahead(MR) && stop < end) ask(pages.values(stop));
        const T* ahead = values_ahead(pages, t + 2 * block_size, end);
        const float* x = p + t - span;
        int e = 0;
        for (; e + NV * W <= dim; e += NV * W) add_values<T, MR, NV>(x, values + e, ahead + e, dim, stop - t, sum + e);
        for (; e < dim; e += W) add_values<T, MR, 1>(x, values + e, ahead + e, dim, stop - t, sum + e);
        t = stop;
    }
}

template <class T>
struct TileCalls {
    void (*score_span)(const Queries&, const Pages<T>&, int, int, int, float*);
    void (*add_span)(const float*, const Pages<T>&, int, int, int, float*);
};

template <class T, int MR = tile_rows>
TileCalls<T> tile_calls(int rows) {
    if constexpr (MR == 1) {
        return {score_span<T, 1>, add_span<T, 1>};
    } else {
        return rows == MR ? TileCalls<T>{score_span<T, MR>, add_span<T, MR>} : tile_calls<T, MR - 1>(rows);
    }
}

// ------------------------------------------------------------------------------------------------ softmax

// Scores of positions [begin, end) of a span to p, in place.
inline Fold soften(float* scores, int begin, int end, float softcap) {
    const vf nothing = vset(-__builtin_inff());
    vf highest = nothing;
    for (int t = begin / W * W; t < end; t += W) {
        vf s = vload(scores + t);
        if (softcap > 0) s = vmul(vset(softcap), vtanh(vmul(s, vset(1.0f / softcap))));
        s = vwithin(t, begin, end, s, nothing);
        vstore(scores + t, s);
        highest = vmax(s, highest);
    }
    const float top = vhighest(highest);
    vf total = vzero();
    for (int t = begin / W * W; t < end; t += W) {
        const vf p = vwithin(t, begin, end, vexp(vsub(vload(scores + t), vset(top))), vzero());
        vstore(scores + t, p);
        total = vadd(total, p);
    }
    return {top, vsum(total)};
}

inline float exp_of(float x) {
    float lanes[W];
    vstore(lanes, vexp(vset(x)));
    return lanes[0];
}

// (into, sum) := (into, sum) and then (next, next_sum)
inline void fold(Fold& into, float* sum, Fold next, const float* next_sum, int dim) {
    if (next.total == 0) return;
    const bool first = into.total == 0;
    const float highest = !first && into.highest > next.highest ? into.highest : next.highest;
    const float keep = first ? 0.0f : exp_of(into.highest - highest), add = exp_of(next.highest - highest);
    for (int e = 0; e < dim; e += W) {
        const vf added = vmul(vload(next_sum + e), vset(add));
        vstore(sum + e, first ? added : vfma(vload(sum + e), vset(keep), added));
    }
    into = {highest, first ? next.total * add : into.total * keep + next.total * add};
}

}  // namespace hr::HR_ISA
