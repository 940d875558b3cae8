// The passes over a row of logits that choosing a token takes; sampling.cpp puts them together.
namespace hr::HR_ISA {

// The highest value, the lowest that is finite (or the highest, where none is), and the maxima of `sample_groups`
// groups, which are lanes of stretches of the row: -inf for groups of nothing.
template <class T>
float highest_as(const T* x, int64_t n, float* lowest, float* maxima) {
    constexpr int stretches = sample_groups / W;
    const int64_t length = (n / W + stretches - 1) / stretches * W, whole = n / W * W;
    const vf infinite = vset(-__builtin_inff());
    vf highest = infinite, low = vset(__builtin_inff());
    int64_t i = 0;
    for (int s = 0; s < stretches; ++s) {
        const int64_t end = i + length < whole ? i + length : whole;
        vf high = infinite;
        for (; i < end; i += W) {
            const vf v = vload(x + i);
            high = vmax(v, high);
            low = vmin(vbelow(infinite, v, v, low), low);
        }
        if (s == stretches - 1 && i < n) {
            const vf v = vwithin(0, 0, int(n - i), vload_n(x + i, int(n - i)), infinite);
            high = vmax(v, high);
            low = vmin(vbelow(infinite, v, v, low), low);
        }
        vstore(maxima + s * W, high);
        highest = vmax(high, highest);
    }
    const float top = vhighest(highest), bottom = -vhighest(vsub(vzero(), low));
    *lowest = bottom < top ? bottom : top;
    return top;
}

inline float highest(const void* x, int64_t n, int32_t dtype, float* lowest, float* maxima) {
    return dtype == HR_BF16 ? highest_as(static_cast<const bf16*>(x), n, lowest, maxima)
                            : highest_as(static_cast<const float*>(x), n, lowest, maxima);
}

inline vf weight_of(vf v, float peak, float sharpness) { return vexp(vmul(vsub(v, vset(peak)), vset(sharpness))); }

// Weights of n values; out has room for whole vectors.
inline void weigh(const float* values, int64_t n, float peak, float sharpness, float* out) {
    for (int64_t i = 0; i < n; i += W) vstore(out + i, weight_of(load_upto(values + i, n - i), peak, sharpness));
}

// The weight of a token that stays, 0 of one that falls to the cut.
inline vf kept_weight(const Cut& cut, vf v, int64_t id, bool ties) {
    vf w = weight_of(v, cut.peak, cut.sharpness);
    w = vbelow(w, vset(cut.min_weight), vzero(), w);
    if (ties) w = vbelow(vset(cut.floor), v, w, vwithin(int(id), 0, int(cut.last_equal) + 1, w, vzero()));
    return vbelow(v, vset(cut.floor), vzero(), w);
}

template <class T>
void column_sums_as(const T* x, int64_t n, const Cut& cut, float* sums) {
    const int64_t columns = (n + sample_lines - 1) / sample_lines;
    const bool ties = cut.last_equal < n - 1;
    for (int64_t c = 0; c < columns; c += W) {
        vf s[sample_lines / 2];
#pragma GCC unroll 32
        for (int line = 0; line < sample_lines; ++line) {
            const int64_t at = line * columns + c, in_line = columns - c, left = n - at;
            const int64_t there = in_line < left ? in_line : left;
            vf w = vzero();
            if (there >= W) {
                w = kept_weight(cut, vload(x + at), at, ties);
            } else if (there > 0) {
                const vf some = kept_weight(cut, vload_n(x + at, int(there)), at, ties);
                w = vwithin(0, 0, int(there), some, vzero());
            }
            const int half = line % (sample_lines / 2);
            s[half] = line == half ? w : vadd(s[half], w);
        }
#pragma GCC unroll 8
        for (int lines = sample_lines / 4; lines; lines /= 2) {
#pragma GCC unroll 16
            for (int line = 0; line < lines; ++line) s[line] = vadd(s[line], s[line + lines]);
        }
        vstore(sums + c, s[0]);
    }
}

inline void column_sums(const void* x, int64_t n, int32_t dtype, const Cut& cut, float* sums) {
    if (dtype == HR_BF16) {
        column_sums_as(static_cast<const bf16*>(x), n, cut, sums);
    } else {
        column_sums_as(static_cast<const float*>(x), n, cut, sums);
    }
}

template <class T>
int64_t collect_as(const T* x, int64_t from, int64_t n, float above, uint64_t* keys, int room, int* count) {
    const vf limit = vset(above);
    int found = 0;
    for (; from < n && found + W <= room; from += W) {
        const int there = n - from < W ? int(n - from) : W;
        const vf v = there == W ? vload(x + from) : vload_n(x + from, there);
        uint32_t mask = vbelow_mask(limit, v) & uint32_t((uint64_t(1) << there) - 1);
        for (; mask; mask &= mask - 1) {
            const int64_t id = from + __builtin_ctz(mask);
            keys[found++] = sample_key(widen(x[id]), id);
        }
    }
    *count = found;
    return from;
}

// Keys of the values from x[from] on that are higher than `above`; returns where it stopped, when the room ended.
inline int64_t collect(const void* x, int64_t from, int64_t n, int32_t dtype, float above, uint64_t* keys, int room,
                       int* count) {
    return dtype == HR_BF16 ? collect_as(static_cast<const bf16*>(x), from, n, above, keys, room, count)
                            : collect_as(static_cast<const float*>(x), from, n, above, keys, room, count);
}

template <class T>
void bucket_as(const T* x, int64_t n, float peak, float sharpness, float scale, float* weights, int32_t* buckets) {
    for (int64_t i = 0; i < n; i += W) {
        const vf v = load_upto(x + i, n - i), below = vmul(vsub(vset(peak), v), vset(scale));
        vstore(weights + i, weight_of(v, peak, sharpness));
        vistore(buckets + i, vwhole(vmin(below, vset(float(sample_buckets - 1)))));
    }
}

// Weights, and how far below the peak each value lies, in steps of 1 / scale; both have room for whole vectors.
inline void bucket(const void* x, int64_t n, int32_t dtype, float peak, float sharpness, float scale, float* weights,
                   int32_t* buckets) {
    if (dtype == HR_BF16) {
        bucket_as(static_cast<const bf16*>(x), n, peak, sharpness, scale, weights, buckets);
    } else {
        bucket_as(static_cast<const float*>(x), n, peak, sharpness, scale, weights, buckets);
    }
}

}  // namespace hr::HR_ISA
