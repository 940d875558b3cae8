// hr_lookup: rows of a packed matrix, for an embedding that shares its weight with the last product.
#include <algorithm>

#include "context.h"
#include "types.h"

using namespace hr;

extern "C" {

int32_t hr_lookup(hr_context* c, const hr_matrix* matrix, const int64_t* rows, int64_t count, void* out,
                  int64_t out_stride) {
    return status_of([&] {
        const auto missing = [&](int64_t row) { return row < 0 || row >= matrix->n; };
        if (!matrix->data || !is_float(matrix->dtype) || std::any_of(rows, rows + count, missing)) {
            return HR_UNSUPPORTED;
        }
        const int64_t row_bytes = out_stride * element_bytes(matrix->dtype);
        c->pool.run(count, [&](int64_t i) {
            c->kernels->unpack_row(*matrix, static_cast<char*>(out) + i * row_bytes, rows[i]);
        });
        return HR_OK;
    });
}

}  // extern "C"
