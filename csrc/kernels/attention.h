// Attention of one tile (up to tile_rows queries that share a kv head of one row of the batch) over a paged context.
//
//   context   0        256       512       768      position
//             ├── span ──┼── span ──┼── span ──┼─ …
//   per span: scores = q · kᵀ, highest, p = e^(score - highest), total = Σ p, sum = p · v
//   and fold: (highest, total, sum) of the spans, in ascending order (online softmax, Milakov and Gimelshein 2018)
//
// The spans lie at fixed positions and are folded in order, and within one every sum runs in order of d or of position:
// so a query's bits depend on nothing but its context. A token that a query does not see is left out, not multiplied
// by zero: what stands there may be NaN.
namespace hr::HR_ISA {

template <class T>
void load_queries(const hr_attention& a, const QueryTile& tile, Queries& qs) {
    const int group = a.num_heads / a.cache->num_kv_heads, dim = a.cache->key_dim;
    const int first_token = a.query_start[tile.row];
    const int start = a.context_len[tile.row] - (a.query_start[tile.row + 1] - first_token);
    qs.count = tile.count;
    for (int i = 0; i < tile.count; ++i) {
        const int token = (tile.first + i) / group, head = tile.kv_head * group + (tile.first + i) % group;
        const T* q =
            static_cast<const T*>(a.query) + (first_token + token) * a.query_token_stride + head * a.query_head_stride;
        for (int d = 0; d < dim; d += W) {
            const vf v = dim - d >= W ? vload(q + d) : vload_n(q + d, dim - d);
            vstore(qs.q + i * row_stride + d, vmul(v, vset(a.scale)));
        }
        qs.from[i] = first_seen(a, start + token);
        qs.to[i] = start + token + 1;
    }
}

// The sums of one span; folds[i] says what row i saw.
template <class T>
void attend_span(const hr_attention& a, const Pages<T>& pages, Queries& qs, int span, Fold* folds) {
    const auto clip = [span](int t) { return t < span ? span : t > span + span_tokens ? span + span_tokens : t; };
    int begin = span + span_tokens, end = span, common = span, common_end = span + span_tokens;
    for (int i = 0; i < qs.count; ++i) {
        const int from = clip(qs.from[i]), to = clip(qs.to[i]);
        begin = from < begin ? from : begin, end = to > end ? to : end;
        common = from > common ? from : common, common_end = to < common_end ? to : common_end;
    }
    const TileCalls<T> calls = tile_calls<T>(qs.count);
    if (begin < end) calls.score_span(qs, pages, begin, end, span, qs.scores);
    if (common > common_end) common = common_end = span;  // no token that all see: every row goes alone
    for (int i = 0; i < qs.count; ++i) {
        const int from = clip(qs.from[i]), to = clip(qs.to[i]);
        float* p = qs.scores + i * row_stride;
        float* sum = qs.sum + i * row_stride;
        folds[i] = from < to ? soften(p, from - span, to - span, a.softcap) : Fold{0, 0};
        for (int e = 0; e < a.cache->value_dim; e += W) vstore(sum + e, vzero());
        if (common == common_end) {
            add_span<T, 1>(p, pages, from, to, span, sum);
        } else {
            add_span<T, 1>(p, pages, from, common, span, sum);
        }
    }
    if (common == common_end) return;
    calls.add_span(qs.scores, pages, common, common_end, span, qs.sum);
    for (int i = 0; i < qs.count; ++i) {
        add_span<T, 1>(qs.scores + i * row_stride, pages, common_end, clip(qs.to[i]), span, qs.sum + i * row_stride);
    }
}

template <class T>
void store_result(const hr_attention& a, int row, int tile_row, int kv_head, Fold fold, const float* sum) {
    const int group = a.num_heads / a.cache->num_kv_heads;
    const int token = a.query_start[row] + tile_row / group, head = kv_head * group + tile_row % group;
    T* out = static_cast<T*>(a.out) + token * a.out_token_stride + head * a.out_head_stride;
    const vf scale = vset(1.0f / fold.total);
    for (int e = 0; e < a.cache->value_dim; e += W) {
        store_sum<T>(out + e, nullptr, vmul(vload(sum + e), scale), a.cache->value_dim - e);
    }
}

// What a fold starts with: nothing, or the head's sink.
inline Fold start_fold(const hr_attention& a, int tile_row, int kv_head, float* sum) {
    for (int e = 0; e < a.cache->value_dim; e += W) vstore(sum + e, vzero());
    const int group = a.num_heads / a.cache->num_kv_heads;
    return a.sinks ? Fold{a.sinks[kv_head * group + tile_row % group], 1.0f} : Fold{0, 0};
}

template <class T>
void attend_as(const hr_attention& a, const QueryTile& tile) {
    Queries qs;
    Fold folds[tile_rows], all[tile_rows];
    alignas(64) float sums[tile_rows * row_stride];
    load_queries<T>(a, tile, qs);
    const int32_t* table = a.block_table + tile.row * a.block_table_stride;
    const Pages<T> pages{*a.cache, table, tile.kv_head, a.context_len[tile.row]};
    for (int i = 0; i < tile.count; ++i) all[i] = start_fold(a, tile.first + i, tile.kv_head, sums + i * row_stride);
    for (int span = tile.first_span; span < tile.end_span; ++span) {
        attend_span(a, pages, qs, span * span_tokens, folds);
        for (int i = 0; i < tile.count; ++i) {
            const float* sum = qs.sum + i * row_stride;
            if (!tile.partial) {
                fold(all[i], sums + i * row_stride, folds[i], sum, a.cache->value_dim);
                continue;
            }
            float* kept = tile.partial + (int64_t(i) * tile.num_partials + span - tile.first_partial) * partial_floats;
            std::memcpy(kept, &folds[i], sizeof(Fold));
            std::memcpy(kept + 16, sum, size_t(a.cache->value_dim) * 4);
        }
    }
    if (tile.partial) return;
    for (int i = 0; i < tile.count; ++i) {
        store_result<T>(a, tile.row, tile.first + i, tile.kv_head, all[i], sums + i * row_stride);
    }
}

// Folds the kept spans of row i of a tile that was split.
template <class T>
void join_as(const hr_attention& a, const QueryTile& tile, int i) {
    alignas(64) float sum[row_stride];
    Fold all = start_fold(a, tile.first + i, tile.kv_head, sum);
    for (int s = 0; s < tile.num_partials; ++s) {
        const float* kept = tile.partial + (int64_t(i) * tile.num_partials + s) * partial_floats;
        Fold next;
        std::memcpy(&next, kept, sizeof(Fold));
        fold(all, sum, next, kept + 16, a.cache->value_dim);
    }
    store_result<T>(a, tile.row, tile.first + i, tile.kv_head, all, sum);
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
