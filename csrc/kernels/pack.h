// Weights to panels and back, and rows of x to words; the layouts are drawn in gemm.h.
namespace hr::HR_ISA {

// Where row n of a weight lies: column `column` of panel `panel`.
struct Place {
    int64_t panel;
    int column;
};

inline Place place_of(const hr_matrix& m, int64_t n) {
    if (!m.gated) return {n / panel_width, int(n % panel_width)};
    const int64_t half = m.n / 2;
    return n < half ? Place{n / W, int(n % W)} : Place{(n - half) / W, W + int((n - half) % W)};
}

inline char* column_of(const hr_matrix& m, Place place) {
    return static_cast<char*>(m.data) + place.panel * panel_bytes(m) + 4 * place.column;
}

// Consecutive rows of a weight that fill consecutive columns of one panel, W of them at most.
template <class From>
struct Rows {
    const From* first;
    int64_t stride;
    int count;
    const From* at(int row) const { return first + row * stride; }
};

constexpr int line_words = 16;  // of a row of weights that are read at a time: a cache line

// Words that lie in rows to words that lie in steps. Every line is read once and written once; a column at a time would
// write a word here and there all over the panel, sixteen times as often.
inline void scatter(const uint32_t (&lines)[W][line_words], int columns, int words, char* to) {
    if (columns == W && words == line_words) {
        for (int i = 0; i < line_words; ++i) {
            uint32_t step[W];
            for (int c = 0; c < W; ++c) step[c] = lines[c][i];
            std::memcpy(to + i * step_bytes, step, sizeof step);
        }
        return;
    }
    for (int i = 0; i < words; ++i) {
        for (int c = 0; c < columns; ++c) std::memcpy(to + i * step_bytes + 4 * c, &lines[c][i], 4);
    }
}

// What `fill` writes of each line, a panel's words from `k` words on.
template <class Fill>
void pack_lines(int columns, int64_t words, char* column, const Fill& fill) {
    alignas(64) uint32_t lines[W][line_words];
    for (int64_t word = 0; word < words; word += line_words) {
        const int n = words - word < line_words ? int(words - word) : line_words;
        for (int c = 0; c < columns; ++c) fill(c, word, lines[c]);
        scatter(lines, columns, n, column + word * step_bytes);
    }
}

template <class To, class From>
void pack_columns(Rows<From> rows, int64_t k, char* column) {
    constexpr int per_word = 4 / sizeof(To), line = line_words * per_word;
    pack_lines(rows.count, (k + per_word - 1) / per_word, column, [&](int c, int64_t word, uint32_t* out) {
        const From* w = rows.at(c) + word * per_word;
        const int64_t left = k - word * per_word;
        if (sizeof(From) == sizeof(To) && left >= line) {
            std::memcpy(out, w, 64);
            return;
        }
        To values[line] = {};
        for (int i = 0; i < line && i < left; ++i) narrow(widen(w[i]), values + i);
        std::memcpy(out, values, 64);
    });
}

template <class From>
void pack_int8_columns(Rows<From> rows, int64_t k, char* column, char* panel_tail, int first_column) {
    float scale[W], inverse[W];
    int32_t sum[W] = {};
    for (int c = 0; c < rows.count; ++c) {
        const From* w = rows.at(c);
        vf highest = vzero();
        for (int64_t i = 0; i < k; i += W) {
            highest = vmax(highest, vabs(i + W <= k ? vload(w + i) : vload_n(w + i, int(k - i))));
        }
        const float top = vhighest(highest);
        scale[c] = top / 127.0f;
        inverse[c] = top > 0.0f ? 127.0f / top : 0.0f;
    }
    pack_lines(rows.count, (k + 3) / 4, column, [&](int c, int64_t word, uint32_t* out) {
        const From* w = rows.at(c) + 4 * word;
        const int n = k - 4 * word < 64 ? int(k - 4 * word) : 64;
        float q[64] = {};
        for (int i = 0; i < n; i += W) {
            const vf v = n - i >= W ? vload(w + i) : vload_n(w + i, n - i);
            vstore(q + i, vround(vmul(v, vset(inverse[c]))));
        }
        int8_t bytes[64];
        for (int i = 0; i < 64; ++i) {
            bytes[i] = int8_t(int(q[i]));
            sum[c] += bytes[i];
        }
        std::memcpy(out, bytes, 64);
    });
    std::memcpy(reinterpret_cast<float*>(panel_tail) + first_column, scale, size_t(rows.count) * 4);
    for (int c = 0; c < rows.count; ++c) sum[c] *= activation_offset;
    std::memcpy(reinterpret_cast<int32_t*>(panel_tail) + panel_width + first_column, sum, size_t(rows.count) * 4);
}

template <class From>
void pack_rows_as(const hr_matrix& m, Rows<From> rows, int64_t n) {
    const Place place = place_of(m, n);
    char* column = column_of(m, place);
    if (m.dtype == HR_INT8) {
        char* tail = static_cast<char*>(m.data) + place.panel * panel_bytes(m) + panel_steps(m) * step_bytes;
        pack_int8_columns(rows, m.k, column, tail, place.column);
    } else if (m.dtype == HR_BF16) {
        pack_columns<bf16>(rows, m.k, column);
    } else {
        pack_columns<float>(rows, m.k, column);
    }
}

// Rows n, n + 1, … n + count - 1 of a weight.
template <class From>
void pack_runs(const hr_matrix& m, const From* w, int64_t ldw, int64_t n, int64_t count) {
    while (count > 0) {
        int64_t run = W - place_of(m, n).column % W;
        if (m.gated && n < m.n / 2 && m.n / 2 - n < run) run = m.n / 2 - n;
        if (count < run) run = count;
        pack_rows_as(m, Rows<From>{w, ldw, int(run)}, n);
        w += run * ldw;
        n += run;
        count -= run;
    }
}

inline void pack_rows(const hr_matrix& m, const void* w, int64_t ldw, int32_t w_dtype, int64_t n, int64_t count) {
    if (w_dtype == HR_BF16) {
        pack_runs(m, static_cast<const bf16*>(w), ldw, n, count);
    } else {
        pack_runs(m, static_cast<const float*>(w), ldw, n, count);
    }
}

constexpr int64_t unpack_ahead = 32;

inline void unpack_row(const hr_matrix& m, void* w, int64_t n) {
    const char* column = column_of(m, place_of(m, n));
    const int64_t bytes = m.k * (m.dtype == HR_BF16 ? 2 : 4);
    auto* out = static_cast<char*>(w);
    int64_t at = 0;
    for (; at + 4 <= bytes; at += 4, column += step_bytes) {
        __builtin_prefetch(column + unpack_ahead * step_bytes);  // a word on each cache line
        std::memcpy(out + at, column, 4);
    }
    if (at < bytes) std::memcpy(out + at, column, size_t(bytes - at));
}

// ------------------------------------------------------------------------------------------------ x

// The words of one row, block by block.
struct PackedRow {
    uint32_t* first;
    int64_t block_stride;
    uint32_t* at(int64_t word) const { return first + word / block_words * block_stride + word % block_words; }
};

template <class X>
void pack_floats(const X* x, int64_t k, int64_t words, PackedRow out) {
    int64_t i = 0;
    for (; i + W <= k; i += W) vstore(reinterpret_cast<float*>(out.at(i)), vload(x + i));
    for (; i < words; ++i) *reinterpret_cast<float*>(out.at(i)) = i < k ? widen(x[i]) : 0.0f;
}

// A bf16 row is its words already; a float one is rounded. The last word's second half may be beyond the row.
inline void pack_pairs(const bf16* x, int64_t k, int64_t words, PackedRow out) {
    for (int64_t word = 0; word < words; word += block_words) {
        const int64_t bytes = 4 * (words - word < block_words ? words - word : block_words);
        const int64_t have = 2 * k - 4 * word;
        char* to = reinterpret_cast<char*>(out.at(word));
        std::memcpy(to, x + 2 * word, size_t(bytes < have ? bytes : have));
        if (bytes > have) std::memset(to + have, 0, size_t(bytes - have));
    }
}

inline void pack_pairs(const float* x, int64_t k, int64_t words, PackedRow out) {
    int64_t i = 0;
    for (; i + W <= k; i += W) vstore(reinterpret_cast<bf16*>(out.at(i / 2)), vload(x + i));
    for (; i < 2 * words; i += 2) {
        bf16 pair[2] = {};
        if (i < k) narrow(x[i], pair);
        if (i + 1 < k) narrow(x[i + 1], pair + 1);
        std::memcpy(out.at(i / 2), pair, 4);
    }
}

// W values of x to as many bytes; not finite ones to anything.
inline void quantize(vf v, vf inverse, uint8_t* bytes) {
    const vf whole = vround(vmul(v, inverse));
    vstore_bytes(bytes, vmin(vmax(whole, vset(-127.0f)), vset(127.0f)), activation_offset);
}

// Symmetric, to 127; the scale is NaN where x is not finite, so that the row of y is too. A block's words are a
// multiple of W bytes and lie dense, so that the last vector may write beyond the row.
template <class X>
float pack_int8(const X* x, int64_t k, int64_t words, PackedRow out) {
    vf highest[2] = {vzero(), vzero()}, taint[2] = {vzero(), vzero()};
    int64_t i = 0;
    for (; i + 2 * W <= k; i += 2 * W) {
        for (int j = 0; j < 2; ++j) {
            const vf v = vload(x + i + j * W);
            highest[j] = vmax(highest[j], vabs(v));
            taint[j] = vfma(v, vzero(), taint[j]);
        }
    }
    for (; i < k; i += W) {
        const vf v = i + W <= k ? vload(x + i) : vload_n(x + i, int(k - i));
        highest[0] = vmax(highest[0], vabs(v));
        taint[0] = vfma(v, vzero(), taint[0]);
    }
    const float top = vhighest(vmax(highest[0], highest[1]));
    const vf inverse = vset(top > 0.0f ? 127.0f / top : 0.0f);
    for (i = 0; i < 4 * words; i += W) {
        const int64_t left = k - i;
        const vf v = left >= W ? vload(x + i) : left > 0 ? vload_n(x + i, int(left)) : vzero();
        quantize(v, inverse, reinterpret_cast<uint8_t*>(out.at(i / 4)) + i % 4);
    }
    return top / 127.0f + vsum(vadd(taint[0], taint[1]));
}

template <class X>
void pack_x_as(const Product& g, const X* x, uint32_t* packed, int64_t row, float* scale) {
    const PackedRow out{packed + row * block_words, g.m * block_words};
    if (g.matrix->dtype == HR_INT8) {
        *scale = pack_int8(x, g.matrix->k, g.words, out);
    } else if (g.matrix->dtype == HR_BF16 && bf16_word_k == 2) {
        pack_pairs(x, g.matrix->k, g.words, out);
    } else {
        pack_floats(x, g.matrix->k, g.words, out);
    }
}

inline void pack_x(const Product& g, const void* x, int32_t x_dtype, uint32_t* packed, int64_t row, float* scale) {
    if (x_dtype == HR_BF16) {
        pack_x_as(g, static_cast<const bf16*>(x), packed, row, scale);
    } else {
        pack_x_as(g, static_cast<const float*>(x), packed, row, scale);
    }
}

}  // namespace hr::HR_ISA
