// The two products over one span of a paged context, block by block. attention.h says what they keep to.
namespace hr::HR_ISA {

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

}  // namespace hr::HR_ISA
