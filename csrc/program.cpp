// hr_run: the operations of a program, one after the other.
#include <algorithm>
#include <cstring>

#include "for_rows.h"
#include "scratch.h"
#include "types.h"

namespace hr {
namespace {

constexpr int most_values = 16;
constexpr int64_t line_bytes = 64;

struct Run {
    hr_context& context;
    const hr_program& program;
    const hr_step& step;
    char* values[most_values];

    int64_t width(int value) const { return program.widths[value]; }
    int64_t row_bytes(int value) const { return width(value) * element_bytes(program.dtype); }
};

bool is_valid(const hr_program& p, const hr_operation& o) {
    const auto is_value = [&](int32_t value) { return value >= 0 && value < p.num_values; };
    if (!is_value(o.x) || !is_value(o.y) || !(o.residual == -1 || is_value(o.residual))) return false;
    return o.args || o.op == HR_OP_ADD || o.op == HR_OP_TAKE;
}

void lay_out(Run& run, void* const* outside) {
    const hr_program& p = run.program;
    const int64_t rows = std::max(run.step.num_tokens, run.step.num_kept);  // a row may be kept several times
    const auto bytes = [&](int value) { return ceil_div(run.row_bytes(value) * rows, line_bytes) * line_bytes; };
    int64_t total = 0;
    for (int value = p.num_outside; value < p.num_values; ++value) total += bytes(value);
    auto* memory = static_cast<char*>(total ? workspace(size_t(total)) : nullptr);
    for (int value = 0; value < p.num_values; ++value) {
        const bool is_outside = value < p.num_outside;
        run.values[value] = is_outside ? static_cast<char*>(outside[value]) : memory;
        if (!is_outside) memory += bytes(value);
    }
}

int32_t linear(const Run& run, const hr_operation& o, int64_t rows) {
    const auto& matrix = *static_cast<const hr_matrix*>(o.args);
    const int64_t width = matrix.gated ? matrix.n / 2 : matrix.n;
    const bool adds = o.residual >= 0;
    if (run.width(o.x) != matrix.k || run.width(o.y) != width || (adds && run.width(o.residual) != width)) {
        return HR_UNSUPPORTED;
    }
    const int32_t dtype = run.program.dtype;
    return hr_linear(&run.context, &matrix, run.values[o.x], matrix.k, dtype, run.values[o.y], width, dtype,
                     adds ? run.values[o.residual] : nullptr, width, rows, o.activation);
}

int32_t norm(const Run& run, const hr_operation& o, int64_t rows) {
    hr_norm_args a = *static_cast<const hr_norm_args*>(o.args);
    if (o.column < 0 || o.column + a.n > std::min(run.width(o.x), run.width(o.y))) return HR_UNSUPPORTED;
    const int64_t offset = o.column * element_bytes(run.program.dtype);
    a.x = run.values[o.x] + offset;
    a.x_stride = run.width(o.x);
    a.residual = nullptr;
    a.out = run.values[o.y] + offset;
    a.out_stride = run.width(o.y);
    a.m = rows;
    a.dtype = run.program.dtype;
    return hr_norm(&run.context, &a);
}

int32_t rotate(const Run& run, const hr_operation& o, int64_t rows) {
    hr_rope a = *static_cast<const hr_rope*>(o.args);
    const hr_cache& cache = *run.step.cache;
    const int64_t element = element_bytes(run.program.dtype), width = run.width(o.x);
    const int64_t query = int64_t(a.num_heads) * cache.key_dim, key = int64_t(cache.num_kv_heads) * cache.key_dim;
    if (cache.dtype != run.program.dtype || query + key + cache.num_kv_heads * cache.value_dim != width) {
        return HR_UNSUPPORTED;
    }
    char* x = run.values[o.x];
    a.cache = &cache;
    a.query = x;
    a.key = x + query * element;
    a.value = x + (query + key) * element;
    a.query_stride = a.key_stride = a.value_stride = width;
    a.cos = run.step.cos;
    a.sin = run.step.sin;
    a.angle_stride = run.step.angle_stride;
    a.slots = run.step.slots;
    a.num_tokens = rows;
    return hr_rope_and_write(&run.context, &a);
}

int32_t attend(const Run& run, const hr_operation& o) {
    hr_attention a = *static_cast<const hr_attention*>(o.args);
    const hr_cache& cache = *run.step.cache;
    if (cache.dtype != run.program.dtype || int64_t(a.num_heads) * cache.key_dim > run.width(o.x) ||
        int64_t(a.num_heads) * cache.value_dim != run.width(o.y)) {
        return HR_UNSUPPORTED;
    }
    a.cache = &cache;
    a.query = run.values[o.x];
    a.query_token_stride = run.width(o.x);
    a.query_head_stride = cache.key_dim;
    a.out = run.values[o.y];
    a.out_token_stride = run.width(o.y);
    a.out_head_stride = cache.value_dim;
    a.query_start = run.step.query_start;
    a.context_len = run.step.context_len;
    a.block_table = run.step.block_table;
    a.block_table_stride = run.step.block_table_stride;
    a.num_rows = run.step.num_rows;
    return hr_attend(&run.context, &a);
}

int32_t add(const Run& run, const hr_operation& o, int64_t rows) {
    const int64_t n = run.width(o.y), bytes = run.row_bytes(o.y);
    if (o.residual < 0 || run.width(o.x) != n || run.width(o.residual) != n) return HR_UNSUPPORTED;
    const float weights[] = {1.0f, o.scale};
    for_rows(run.context, rows, n, [&](int64_t row) {
        const void* terms[] = {run.values[o.residual] + row * bytes, run.values[o.x] + row * bytes};
        run.context.kernels->weighted_sum(terms, weights, 2, n, run.program.dtype, run.values[o.y] + row * bytes);
    });
    return HR_OK;
}

int32_t take(const Run& run, const hr_operation& o) {
    const int64_t bytes = run.row_bytes(o.x), *kept = run.step.kept;
    const auto missing = [&](int64_t row) { return row < 0 || row >= run.step.num_tokens; };
    if (o.x == o.y || run.width(o.x) != run.width(o.y) || std::any_of(kept, kept + run.step.num_kept, missing)) {
        return HR_UNSUPPORTED;
    }
    for (int64_t i = 0; i < run.step.num_kept; ++i) {
        std::memcpy(run.values[o.y] + i * bytes, run.values[o.x] + kept[i] * bytes, size_t(bytes));
    }
    return HR_OK;
}

int32_t run_one(const Run& run, const hr_operation& o) {
    if (!is_valid(run.program, o)) return HR_UNSUPPORTED;
    const int64_t rows = o.is_taken ? run.step.num_kept : run.step.num_tokens;
    switch (o.op) {
        case HR_OP_LINEAR: return linear(run, o, rows);
        case HR_OP_NORM: return norm(run, o, rows);
        case HR_OP_ROTATE: return rotate(run, o, rows);
        case HR_OP_ATTEND: return attend(run, o);
        case HR_OP_ADD: return add(run, o, rows);
        case HR_OP_TAKE: return take(run, o);
        default: return HR_UNSUPPORTED;
    }
}

}  // namespace
}  // namespace hr

using namespace hr;

extern "C" {

int32_t hr_run(hr_context* c, const hr_program* program, const hr_step* step, void* const* outside, int32_t first,
               int32_t end) {
    return status_of([&] {
        const hr_program& p = *program;
        const bool is_whole = p.num_outside >= 0 && p.num_outside <= p.num_values && p.num_values <= most_values;
        if (!is_float(p.dtype) || !is_whole || first < 0 || end > p.num_operations) return HR_UNSUPPORTED;
        Run run{*c, p, *step, {}};
        lay_out(run, outside);
        int32_t status = HR_OK;
        for (int32_t i = first; i < end && status == HR_OK; ++i) {
            status = run_one(run, p.operations[i]);
        }
        return hr_status(status);
    });
}

}  // extern "C"
