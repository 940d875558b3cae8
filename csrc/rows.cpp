// hr_norm, hr_activate, hr_argmax.
#include "for_rows.h"
#include "types.h"

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
