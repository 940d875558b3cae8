// Attention of a task (tiles of tile_rows queries that share a kv head of one row of the batch) over a paged context.
//
//   context   0        256       512       768      position
//             ├── span ──┼── span ──┼── span ──┼─ …
//   per span: scores = q · kᵀ, highest, p = e^(score - highest), total = Σ p, sum = p · v
//   and fold: (highest, total, sum) of the spans, in ascending order (online softmax, Milakov and Gimelshein 2018)
//
// The spans lie at fixed positions and are folded in order, and within one every sum runs in order of d or of position:
// so a query's bits depend on nothing but its context. A token that some queries of a tile see and others do not gets
// p = 0 for these, which changes no sum, unless its value is not finite: then every query goes alone over what it sees.
namespace hr::HR_ISA {

template <class T>
void load_words(const T* q, int dim, float* words) {
    for (int d = 0; d < dim; d += W) vstore(words + d, dim - d >= W ? vload(q + d) : vload_n(q + d, dim - d));
}

#if defined(HR_DPBF16)
inline void load_words(const bf16* q, int dim, uint32_t* words) {
    int d = 0;
    for (; d + 2 * W <= dim; d += 2 * W) vistore(reinterpret_cast<int32_t*>(words + d / 2), vi_load(q + d));
    std::memcpy(words + d / 2, q + d, size_t(dim - d) * sizeof(bf16));
}
#endif

// Where a query of a tile stands: its place in the group, counted token · group + head.
struct QueryPlace {
    int token;
    int head;
    int group;
    QueryPlace(int place, int group) : token(place / group), head(place % group), group(group) {}
    void next() {
        if (++head == group) head = 0, ++token;
    }
};

inline int group_of(const hr_attention& a) { return a.num_heads / a.cache->num_kv_heads; }

template <class T>
void load_queries(const hr_attention& a, const QueryTile& tile, int first, Queries<T>& qs) {
    const int first_token = a.query_start[tile.row], dim = a.cache->key_dim;
    const int start = a.context_len[tile.row] - (a.query_start[tile.row + 1] - first_token);
    QueryPlace place(tile.first + first, group_of(a));
    qs.count = tile.count - first < tile_rows ? tile.count - first : tile_rows;
    for (int i = 0; i < qs.count; ++i, place.next()) {
        const int head = tile.kv_head * place.group + place.head;
        const T* q = static_cast<const T*>(a.query) + (first_token + place.token) * a.query_token_stride +
                     head * a.query_head_stride;
        load_words(q, dim, qs.q + i * row_stride);
        qs.from[i] = first_seen(a, start + place.token);
        qs.to[i] = start + place.token + 1;
    }
}

// The sums of one span; work.folds[i] says what query i saw.
template <class T>
void attend_span(const hr_attention& a, const Pages<T>& pages, const Queries<T>& qs, int span, Scratch<T>& work) {
    const auto clip = [span](int t) { return t < span ? span : t > span + span_tokens ? span + span_tokens : t; };
    int begin = span + span_tokens, end = span, common = span, common_end = span + span_tokens;
    for (int i = 0; i < qs.count; ++i) {
        const int from = clip(qs.from[i]), to = clip(qs.to[i]);
        begin = from < begin ? from : begin, end = to > end ? to : end;
        common = from > common ? from : common, common_end = to < common_end ? to : common_end;
    }
    if (begin >= end) common = common_end = begin = end;
    if (common > common_end) common = common_end = end;  // no token that all see
    const TileCalls<T> calls = tile_calls<T>(qs.count);
    if (begin < end) calls.score_span(qs, pages, begin, end, work.scores, span);
    const Range tile{begin - span, end - span};
    for (int i = 0; i < qs.count; ++i) {  // inlined, so that the polynomial's constants stay in registers
        const Range seen{clip(qs.from[i]) - span, clip(qs.to[i]) - span};
        const int64_t row = i * row_stride;
        work.folds[i] = soften(work.scores + row, work.p + row, seen, tile, a.scale, a.softcap);
    }
    if (are_finite(pages, begin, common) && are_finite(pages, common_end, end)) {
        calls.add_span(work.p, pages, begin, end, span, work.sum);
        return;
    }
    for (int i = 0; i < qs.count; ++i) {
        const int from = clip(qs.from[i]), to = clip(qs.to[i]);
        const int64_t row = i * row_stride;
        if (from < to) add_span<T, 1>(work.p + row, pages, from, to, span, work.sum + row);
    }
}

template <class T>
void store_result(const hr_attention& a, int row, int kv_head, QueryPlace place, Fold fold, const float* sum) {
    const int token = a.query_start[row] + place.token, head = kv_head * place.group + place.head;
    T* out = static_cast<T*>(a.out) + token * a.out_token_stride + head * a.out_head_stride;
    const vf scale = vset(1.0f / fold.total);
    int e = 0;
    for (; e + W <= a.cache->value_dim; e += W) vstore(out + e, vmul(vload(sum + e), scale));
    if (e < a.cache->value_dim) vstore_n(out + e, vmul(vload(sum + e), scale), a.cache->value_dim - e);
}

// What a fold starts with: nothing, or the head's sink.
inline Fold start_fold(const hr_attention& a, QueryPlace place, int kv_head, float* sum) {
    if (!a.sinks) return {0, 0};
    for (int e = 0; e < a.cache->value_dim; e += W) vstore(sum + e, vzero());
    return {a.sinks[kv_head * place.group + place.head], 1.0f};
}

// Nothing to fold.
inline bool is_direct(const hr_attention& a, const QueryTile& tile) {
    return !tile.partial && !a.sinks && tile.end_span - tile.first_span == 1;
}

// All that a task holds: the spans go by on the outside, so that a span is fetched once for all of its queries.
template <class T>
struct Task {
    Queries<T> queries[task_tiles];
    Scratch<T> work;
    Fold folds[task_tiles * tile_rows];
    alignas(64) float sums[task_tiles * tile_rows * row_stride];
};

// What the queries from `first` on saw of a span: folded, or kept for `join`; or the result, where that is all.
template <class T>
void take_span(const hr_attention& a, const QueryTile& tile, int span, int first, int count, Task<T>& task) {
    QueryPlace place(tile.first + first, group_of(a));
    for (int i = 0; i < count; ++i, place.next()) {
        const float* sum = task.work.sum + i * row_stride;
        const Fold& next = task.work.folds[i];
        if (is_direct(a, tile)) {
            store_result<T>(a, tile.row, tile.kv_head, place, next, sum);
            continue;
        }
        if (!tile.partial) {
            fold(task.folds[first + i], task.sums + (first + i) * row_stride, next, sum, a.cache->value_dim);
            continue;
        }
        float* kept =
            tile.partial + (int64_t(first + i) * tile.num_partials + span - tile.first_partial) * partial_floats;
        std::memcpy(kept, &next, sizeof(Fold));
        std::memcpy(kept + 16, sum, size_t(a.cache->value_dim) * 4);
    }
}

template <class T>
void attend_as(const hr_attention& a, const QueryTile& tile) {
    Task<T> task;
    const int32_t* table = a.block_table + tile.row * a.block_table_stride;
    const Pages<T> pages{*a.cache, table, tile.kv_head, a.context_len[tile.row]};
    for (int first = 0; first < tile.count; first += tile_rows) {
        load_queries<T>(a, tile, first, task.queries[first / tile_rows]);
    }
    QueryPlace place(tile.first, group_of(a));
    for (int i = 0; i < tile.count; ++i, place.next()) {
        task.folds[i] = start_fold(a, place, tile.kv_head, task.sums + i * row_stride);
    }
    for (int span = tile.first_span; span < tile.end_span; ++span) {
        for (int first = 0; first < tile.count; first += tile_rows) {
            const Queries<T>& qs = task.queries[first / tile_rows];
            attend_span(a, pages, qs, span * span_tokens, task.work);
            take_span(a, tile, span, first, qs.count, task);
        }
    }
    if (tile.partial || is_direct(a, tile)) return;
    place = QueryPlace(tile.first, group_of(a));
    for (int i = 0; i < tile.count; ++i, place.next()) {
        store_result<T>(a, tile.row, tile.kv_head, place, task.folds[i], task.sums + i * row_stride);
    }
}

// Folds the kept spans of row i of a tile that was split.
template <class T>
void join_as(const hr_attention& a, const QueryTile& tile, int i) {
    alignas(64) float sum[row_stride];
    const QueryPlace place(tile.first + i, group_of(a));
    Fold all = start_fold(a, place, tile.kv_head, sum);
    for (int s = 0; s < tile.num_partials; ++s) {
        const float* kept = tile.partial + (int64_t(i) * tile.num_partials + s) * partial_floats;
        Fold next;
        std::memcpy(&next, kept, sizeof(Fold));
        fold(all, sum, next, kept + 16, a.cache->value_dim);
    }
    store_result<T>(a, tile.row, tile.kv_head, place, all, sum);
}

inline void attend(const hr_attention& a, const QueryTile& tile) {
    if (a.cache->dtype == HR_BF16) {
        attend_as<bf16>(a, tile);
    } else {
        attend_as<float>(a, tile);
    }
}

inline void join(const hr_attention& a, const QueryTile& tile, int i) {
    if (a.cache->dtype == HR_BF16) {
        join_as<bf16>(a, tile, i);
    } else {
        join_as<float>(a, tile, i);
    }
}

}  // namespace hr::HR_ISA
