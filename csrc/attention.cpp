// hr_attend, hr_cache_write, hr_rope_and_write: the work cut in tasks for the pool.
#include <algorithm>
#include <vector>

#include "context.h"
#include "scratch.h"
#include "types.h"

namespace hr {
namespace {

constexpr int64_t tasks_per_thread = 6;
// What a tile costs beside its tokens, in tokens.
constexpr int64_t tile_overhead = 16;
// Below, tokens are written on the calling thread.
constexpr int64_t write_alone_tokens = 4;
constexpr int64_t written_together = 16;

bool is_valid(const hr_cache& c) {
    const auto is_dim = [](int d) { return d > 0 && d <= 256 && d % 2 == 0; };
    return c.keys && c.values && (c.dtype == HR_F32 || c.dtype == HR_BF16) && c.num_kv_heads > 0 && is_dim(c.key_dim) &&
           is_dim(c.value_dim) && c.block_size > 0 && (c.block_size & (c.block_size - 1)) == 0;
}

// Every tile whole, over all the spans that its queries see.
void whole_tiles(const Kernels& kernels, const hr_attention& a, std::vector<QueryTile>& tiles) {
    const int group = a.num_heads / a.cache->num_kv_heads;
    for (int row = 0; row < a.num_rows; ++row) {
        const int tokens = a.query_start[row + 1] - a.query_start[row], start = a.context_len[row] - tokens;
        for (int head = 0; head < a.cache->num_kv_heads; ++head) {
            for (int first = 0; first < tokens * group; first += kernels.query_tile_rows) {
                const int count = std::min(kernels.query_tile_rows, tokens * group - first);
                const int last = start + (first + count - 1) / group;
                const int span = first_seen(a, start + first / group) / kernels.span_tokens;  // a later query's is later
                tiles.push_back({row, head, first, count, span, last / kernels.span_tokens + 1, nullptr, span, 0});
            }
        }
    }
}

int64_t cost(const Kernels& kernels, const QueryTile& tile) {
    return int64_t(tile.end_span - tile.first_span) * kernels.span_tokens + tile_overhead;
}

// A tile that is longer than a thread's fair share of tasks is cut in runs of spans.
struct Plan {
    std::vector<QueryTile> tasks;
    std::vector<QueryTile> split;  // to be joined
};

Plan plan_of(const hr_context& c, const hr_attention& a) {
    Plan plan;
    std::vector<QueryTile> tiles;
    whole_tiles(*c.kernels, a, tiles);
    int64_t total = 0, kept = 0;
    for (const QueryTile& tile : tiles) total += cost(*c.kernels, tile);
    const int threads = c.pool.num_threads();
    const int64_t share = threads > 1 ? total / (threads * tasks_per_thread) : total;
    const int64_t spans_at_once = std::max<int64_t>(1, share / c.kernels->span_tokens);
    for (QueryTile& tile : tiles) {
        const int spans = tile.end_span - tile.first_span;
        if (spans <= 2 * spans_at_once) continue;
        tile.num_partials = spans;
        kept += int64_t(tile.count) * spans * partial_floats;
    }
    auto* memory = static_cast<float*>(kept ? scratch(size_t(kept) * sizeof(float)) : nullptr);
    for (QueryTile& tile : tiles) {
        if (!tile.num_partials) {
            plan.tasks.push_back(tile);
            continue;
        }
        tile.partial = memory;
        memory += int64_t(tile.count) * tile.num_partials * partial_floats;
        plan.split.push_back(tile);
        for (int span = tile.first_span; span < tile.end_span; span += int(spans_at_once)) {
            QueryTile piece = tile;
            piece.first_span = span;
            piece.end_span = std::min(tile.end_span, int32_t(span + spans_at_once));
            plan.tasks.push_back(piece);
        }
    }
    return plan;
}

}  // namespace
}  // namespace hr

using namespace hr;

extern "C" {

int64_t hr_cache_padding(void) { return 64; }

int32_t hr_attend(hr_context* c, const hr_attention* a) {
    return status_of([&] {
        if (!is_valid(*a->cache) || a->num_heads <= 0 || a->num_heads % a->cache->num_kv_heads) return HR_UNSUPPORTED;
        const Plan plan = plan_of(*c, *a);
        const int64_t n = int64_t(plan.tasks.size());
        // From the end: prompts follow decodes, and what takes longest should start first.
        c->pool.run(n, [&](int64_t i) { c->kernels->attend(*a, plan.tasks[size_t(n - 1 - i)]); });
        c->pool.run(int64_t(plan.split.size()), [&](int64_t i) {
            const QueryTile& tile = plan.split[size_t(i)];
            for (int row = 0; row < tile.count; ++row) c->kernels->join(*a, tile, row);
        });
        return HR_OK;
    });
}

int32_t hr_cache_write(hr_context* c, const hr_cache* cache, const void* key, int64_t key_token_stride,
                       int64_t key_head_stride, const void* value, int64_t value_token_stride,
                       int64_t value_head_stride, const int64_t* slots, int64_t num_tokens) {
    return status_of([&] {
        if (!is_valid(*cache)) return HR_UNSUPPORTED;
        const CacheWrite write{
            cache, key, key_token_stride, key_head_stride, value, value_token_stride, value_head_stride, slots};
        const int64_t pieces = num_tokens <= write_alone_tokens ? 1 : std::min<int64_t>(num_tokens, 64);
        c->pool.run(pieces, [&](int64_t i) {
            const int64_t end = num_tokens * (i + 1) / pieces;
            for (int64_t t = num_tokens * i / pieces; t < end; ++t) c->kernels->cache_write(write, t);
        });
        return HR_OK;
    });
}

int32_t hr_rope_and_write(hr_context* c, const hr_rope* rope) {
    return status_of([&] {
        if (!is_valid(*rope->cache) || rope->rotary_dim % 2 || rope->rotary_dim > rope->cache->key_dim) {
            return HR_UNSUPPORTED;
        }
        // Neighbours of a prompt stay together: their keys lie in the same cache lines.
        const int64_t n = rope->num_tokens;
        const int64_t pieces = std::max(std::min<int64_t>(n, 4 * c->pool.num_threads()), n / written_together);
        c->pool.run(pieces, [&](int64_t i) {
            c->kernels->rope_and_write(*rope, n * i / pieces, n * (i + 1) / pieces);
        });
        return HR_OK;
    });
}

}  // extern "C"
