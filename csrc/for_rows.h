// Rows handed out to the pool in pieces that are worth it.
#ifndef HEADRACE_FOR_ROWS_H
#define HEADRACE_FOR_ROWS_H

#include <algorithm>

#include "context.h"

namespace hr {

// Elements below which a piece of work is not worth handing to another thread.
constexpr int64_t piece_elements = 8192;

// row(r) for each of m rows of n elements.
template <class Row>
void for_rows(const hr_context& c, int64_t m, int64_t n, const Row& row) {
    const int64_t most = std::min<int64_t>(m, 4 * c.pool.num_threads());
    const int64_t pieces = std::max<int64_t>(1, std::min(most, m * n / piece_elements));
    c.pool.run(pieces, [&](int64_t i) {
        for (int64_t r = m * i / pieces, end = m * (i + 1) / pieces; r < end; ++r) row(r);
    });
}

}  // namespace hr
#endif
