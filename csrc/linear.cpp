// hr_pack, hr_unpack and hr_linear: the work cut in tasks for the pool.
#include <algorithm>

#include "context.h"
#include "scratch.h"
#include "types.h"

namespace hr {
namespace {

// Rows of x that are packed at a time: more would not fit the second-level cache.
constexpr int64_t rows_at_once = 512;
// Below, packing x on one thread takes less than handing it out.
constexpr int64_t pack_alone_elements = 16384;

int64_t panels_of(const Kernels& kernels, const hr_matrix& matrix) {
    const int width = kernels.panel_layout(matrix.dtype).width;
    return matrix.gated ? ceil_div(matrix.n / 2, width / 2) : ceil_div(matrix.n, width);
}

bool is_valid(const hr_matrix& m) {
    return m.data && m.n > 0 && m.k > 0 && m.dtype >= HR_F32 && m.dtype <= HR_INT8 && !(m.gated && m.n % 2);
}

// Lays scratch out for g and fills it with x.
void pack_activations(const hr_context& c, Product& g, const char* x, int64_t x_stride_bytes, int32_t x_dtype) {
    const PanelLayout layout = c.kernels->panel_layout(g.matrix->dtype);
    const int64_t padded = ceil_div(g.words, layout.block_words) * layout.block_words;
    auto* packed = static_cast<uint32_t*>(scratch(size_t(4 * (padded + 1) * g.m)));
    auto* scales = reinterpret_cast<float*>(packed + padded * g.m);
    g.x = packed;
    g.x_scale = scales;
    const auto pack = [&](int64_t row) {
        c.kernels->pack_x(g, x + row * x_stride_bytes, x_dtype, packed, row, scales + row);
    };
    if (g.m * g.matrix->k <= pack_alone_elements) {
        for (int64_t row = 0; row < g.m; ++row) pack(row);
    } else {
        c.pool.run(g.m, pack);
    }
}

// Some tasks per thread, so that one that starts late or loses its core finds the others done.
void multiply(const hr_context& c, const Product& g) {
    const int64_t panels = panels_of(*c.kernels, *g.matrix);
    const int64_t wanted = c.pool.num_threads() > 1 ? 8 * c.pool.num_threads() : 1;
    const int64_t panel_tasks = std::min(panels, wanted);
    const int64_t row_tasks = std::min(g.row_blocks, std::max<int64_t>(1, wanted / panel_tasks / 2));
    c.pool.run(panel_tasks * row_tasks, [&](int64_t i) {
        const int64_t p = i / row_tasks, r = i % row_tasks;
        c.kernels->multiply(g, panels * p / panel_tasks, panels * (p + 1) / panel_tasks, g.row_blocks * r / row_tasks,
                            g.row_blocks * (r + 1) / row_tasks);
    });
}

}  // namespace
}  // namespace hr

using namespace hr;

extern "C" {

int64_t hr_packed_bytes(const hr_context* c, const hr_matrix* matrix) {
    return panels_of(*c->kernels, *matrix) * c->kernels->panel_bytes(*matrix);
}

int32_t hr_pack(hr_context* c, const hr_matrix* matrix, const void* w, int64_t ldw, int32_t w_dtype, int64_t first_row,
                int64_t rows) {
    return status_of([&] {
        if (!is_valid(*matrix) || !is_float(w_dtype) || first_row < 0 || first_row + rows > matrix->n) {
            return HR_UNSUPPORTED;
        }
        // A panel's rows on one thread: their words share cache lines.
        const int64_t group = c->kernels->panel_layout(matrix->dtype).width / 2;
        const int64_t first_group = first_row / group, last_group = ceil_div(first_row + rows, group);
        c->pool.run(last_group - first_group, [&](int64_t i) {
            const int64_t begin = std::max(first_row, (first_group + i) * group);
            const int64_t end = std::min(first_row + rows, (first_group + i + 1) * group);
            const char* from = static_cast<const char*>(w) + (begin - first_row) * ldw * element_bytes(w_dtype);
            c->kernels->pack_rows(*matrix, from, ldw, w_dtype, begin, end - begin);
        });
        return HR_OK;
    });
}

int32_t hr_unpack(hr_context* c, const hr_matrix* matrix, void* w, int64_t ldw, int64_t first_row, int64_t rows) {
    return status_of([&] {
        if (!is_valid(*matrix) || !is_float(matrix->dtype) || first_row < 0 || first_row + rows > matrix->n) {
            return HR_UNSUPPORTED;
        }
        const int64_t row_bytes = ldw * element_bytes(matrix->dtype);
        c->pool.run(rows, [&](int64_t i) {
            c->kernels->unpack_row(*matrix, static_cast<char*>(w) + i * row_bytes, first_row + i);
        });
        return HR_OK;
    });
}

int32_t hr_linear(hr_context* c, const hr_matrix* matrix, const void* x, int64_t ldx, int32_t x_dtype, void* y,
                  int64_t ldy, int32_t y_dtype, const void* residual, int64_t ldr, int64_t m, int32_t activation) {
    return status_of([&] {
        if (!is_valid(*matrix) || !is_float(x_dtype) || !is_float(y_dtype)) return HR_UNSUPPORTED;
        const PanelLayout layout = c->kernels->panel_layout(matrix->dtype);
        // Of bf16 weights pairs are multiplied, also where x is widened
        const int64_t pair = matrix->dtype == HR_BF16 && layout.word_k == 1 ? 2 : 1;
        const int64_t words = ceil_div(ceil_div(matrix->k, layout.word_k), pair) * pair;
        const int64_t x_stride = ldx * element_bytes(x_dtype), y_bytes = element_bytes(y_dtype);
        for (int64_t first = 0; first < m; first += rows_at_once) {
            const int64_t rows = std::min(rows_at_once, m - first);
            char* y_rows = static_cast<char*>(y) + first * ldy * y_bytes;
            const char* r_rows = residual ? static_cast<const char*>(residual) + first * ldr * y_bytes : nullptr;
            Product g{matrix, nullptr, nullptr, rows,      ceil_div(rows, layout.tile_rows), words, y_rows, ldy,
                      r_rows, ldr,     y_dtype, activation};
            pack_activations(*c, g, static_cast<const char*>(x) + first * x_stride, x_stride, x_dtype);
            multiply(*c, g);
        }
        return HR_OK;
    });
}

}  // extern "C"
