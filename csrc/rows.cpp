// hr_norm, hr_activate, hr_argmax: rows handed out to the pool in pieces that are worth it.
#include <algorithm>

#include "context.h"
#include "types.h"

namespace hr {
namespace {

// Elements below which a piece of work is not worth handing to another thread.
constexpr int64_t piece_elements = 8192;

template <class Row>
void for_rows(const hr_context& c, int64_t m, int64_t n, const Row& row) {
    const int64_t most = std::min<int64_t>(m, 4 * c.pool.num_threads());
    const int64_t pieces = std::max<int64_t>(1, std::min(most, m * n / piece_elements));
    c.pool.run(pieces, [&](int64_t i) {
        for (int64_t r = m * i / pieces, end = m * (i + 1) / pieces; r < end; ++r) row(r);
    });
}

}  // namespace
}  // namespace hr

using namespace hr;

extern "C" {

int32_t hr_norm(hr_context* c, const hr_norm_args* args) {
    return status_of([&] {
        if (!is_float(args->dtype) || args->n <= 0) return HR_UNSUPPORTED;
        for_rows(*c, args->m, args->n, [&](int64_t r) { c->kernels->norm(*args, r); });
        return HR_OK;
    });
}

int32_t hr_activate(hr_context* c, const void* gate, int64_t gate_stride, const void* up, int64_t up_stride, void* out,
                    int64_t out_stride, int64_t m, int64_t n, int32_t dtype, int32_t activation) {
    return status_of([&] {
        if (!is_float(dtype)) return HR_UNSUPPORTED;
        const int64_t bytes = element_bytes(dtype);
        for_rows(*c, m, n, [&](int64_t r) {
            const void* up_row = up ? static_cast<const char*>(up) + r * up_stride * bytes : nullptr;
            c->kernels->activate(static_cast<const char*>(gate) + r * gate_stride * bytes, up_row,
                                 static_cast<char*>(out) + r * out_stride * bytes, n, dtype, activation);
        });
        return HR_OK;
    });
}

int32_t hr_argmax(hr_context* c, const void* x, int64_t x_stride, int64_t m, int64_t n, int32_t dtype, int64_t* out) {
    return status_of([&] {
        if (!is_float(dtype) || n <= 0) return HR_UNSUPPORTED;
        const int64_t bytes = x_stride * element_bytes(dtype);
        for_rows(*c, m, n,
                 [&](int64_t r) { out[r] = c->kernels->argmax(static_cast<const char*>(x) + r * bytes, n, dtype); });
        return HR_OK;
    });
}

}  // extern "C"
