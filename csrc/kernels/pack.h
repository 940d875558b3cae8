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

template <class From, class To>
void pack_column(const From* w, int64_t k, char* column) {
    constexpr int per_word = 4 / sizeof(To);
    for (int64_t i = 0; i < k; i += per_word, column += step_bytes) {
        To word[per_word] = {};
        for (int j = 0; j < per_word && i + j < k; ++j) narrow(widen(w[i + j]), word + j);
        std::memcpy(column, word, 4);
    }
}

template <class From>
void pack_int8_column(const From* w, int64_t k, char* column, char* panel_tail, int column_index) {
    float highest = 0.0f;
    for (int64_t i = 0; i < k; ++i) {
        const float a = widen(w[i]) < 0 ? -widen(w[i]) : widen(w[i]);
        highest = a > highest ? a : highest;
    }
    const float inverse = highest > 0.0f ? 127.0f / highest : 0.0f;
    int32_t sum = 0;
    for (int64_t i = 0; i < k; i += 4, column += step_bytes) {
        int8_t word[4] = {};
        for (int j = 0; j < 4 && i + j < k; ++j) {
            word[j] = int8_t(__builtin_rintf(widen(w[i + j]) * inverse));
            sum += word[j];
        }
        std::memcpy(column, word, 4);
    }
    reinterpret_cast<float*>(panel_tail)[column_index] = highest / 127.0f;
    reinterpret_cast<int32_t*>(panel_tail)[panel_width + column_index] = activation_offset * sum;
}

template <class From>
void pack_row_as(const hr_matrix& m, const From* w, int64_t n) {
    const Place place = place_of(m, n);
    char* column = column_of(m, place);
    if (m.dtype == HR_INT8) {
        char* tail = static_cast<char*>(m.data) + place.panel * panel_bytes(m) + panel_steps(m) * step_bytes;
        pack_int8_column(w, m.k, column, tail, place.column);
    } else if (m.dtype == HR_BF16) {
        pack_column<From, bf16>(w, m.k, column);
    } else {
        pack_column<From, float>(w, m.k, column);
    }
}

inline void pack_row(const hr_matrix& m, const void* w, int32_t w_dtype, int64_t n) {
    if (w_dtype == HR_BF16) {
        pack_row_as(m, static_cast<const bf16*>(w), n);
    } else {
        pack_row_as(m, static_cast<const float*>(w), n);
    }
}

inline void unpack_row(const hr_matrix& m, void* w, int64_t n) {
    const char* column = column_of(m, place_of(m, n));
    const int64_t bytes = m.k * (m.dtype == HR_BF16 ? 2 : 4);
    for (int64_t at = 0; at < bytes; at += 4, column += step_bytes) {
        std::memcpy(static_cast<char*>(w) + at, column, size_t(bytes - at < 4 ? bytes - at : 4));
    }
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

template <class X>
void pack_pairs(const X* x, int64_t k, int64_t words, PackedRow out) {
    for (int64_t i = 0; i < words; ++i) {
        bf16 pair[2] = {};
        narrow(widen(x[2 * i]), pair);
        if (2 * i + 1 < k) narrow(widen(x[2 * i + 1]), pair + 1);
        std::memcpy(out.at(i), pair, 4);
    }
}

// Up to 64 values of x to as many bytes; not finite ones to anything.
template <class X>
void quantize(const X* x, int n, vf inverse, uint8_t (&bytes)[64]) {
    float q[64] = {};
    for (int i = 0; i < n; i += W) {
        const vf v = n - i >= W ? vload(x + i) : vload_n(x + i, n - i);
        const vf bounded = vmin(vmax(vround(vmul(v, inverse)), vset(-127.0f)), vset(127.0f));
        vstore(q + i, bounded);
    }
    for (int i = 0; i < 64; ++i) bytes[i] = uint8_t(int(q[i]) + activation_offset);
}

// Symmetric, to 127; the scale is NaN where x is not finite, so that the row of y is too.
template <class X>
float pack_int8(const X* x, int64_t k, int64_t words, PackedRow out) {
    vf highest = vzero(), taint = vzero();
    for (int64_t i = 0; i < k; i += W) {
        const vf v = i + W <= k ? vload(x + i) : vload_n(x + i, int(k - i));
        highest = vmax(highest, vabs(v));
        taint = vfma(v, vzero(), taint);
    }
    const float top = vhighest(highest);
    const vf inverse = vset(top > 0.0f ? 127.0f / top : 0.0f);
    uint8_t bytes[64];
    for (int64_t word = 0; word < words; word += 16) {  // block_words is a multiple of 16
        quantize(x + 4 * word, int(k - 4 * word < 64 ? k - 4 * word : 64), inverse, bytes);
        std::memcpy(out.at(word), bytes, size_t(words - word < 16 ? words - word : 16) * 4);
    }
    return top / 127.0f + vsum(taint);
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
