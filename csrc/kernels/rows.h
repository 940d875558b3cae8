// Operations on one row of [M, n]: norms, activation · gate, argmax.
namespace hr::HR_ISA {

template <class T>
vf load_upto(const T* p, int64_t n) {
    return n >= W ? vload(p) : vload_n(p, int(n));
}

template <class T>
void store_upto(T* p, vf v, int64_t n) {
    if (n >= W) {
        vstore(p, v);
    } else {
        vstore_n(p, v, int(n));
    }
}

template <class T>
void norm_as(const hr_norm_args& a, int64_t row) {
    const T* x = static_cast<const T*>(a.x) + row * a.x_stride;
    T* out = static_cast<T*>(a.out) + row * a.out_stride;
    const T* weight = static_cast<const T*>(a.weight);
    const T* bias = static_cast<const T*>(a.bias);
    if (a.residual) {  // rounded as it is stored, so that what is normalized is what the next layer adds to
        T* residual = static_cast<T*>(a.residual) + row * a.residual_stride;
        for (int64_t i = 0; i < a.n; i += W) {
            store_upto(residual + i, vadd(load_upto(residual + i, a.n - i), load_upto(x + i, a.n - i)), a.n - i);
        }
        x = residual;
    }
    float mean = 0.0f;
    if (a.centered) {
        vf sum = vzero();
        for (int64_t i = 0; i < a.n; i += W) sum = vadd(sum, load_upto(x + i, a.n - i));
        mean = vsum(sum) / float(a.n);
    }
    vf squares = vzero();
    int64_t i = 0;
    for (; i + W <= a.n; i += W) {
        const vf v = vsub(vload(x + i), vset(mean));
        squares = vfma(v, v, squares);
    }
    float rest = 0.0f;
    for (; i < a.n; ++i) rest += (widen(x[i]) - mean) * (widen(x[i]) - mean);
    const float scale = 1.0f / __builtin_sqrtf((vsum(squares) + rest) / float(a.n) + a.eps);
    for (i = 0; i < a.n; i += W) {
        vf v = vmul(vsub(load_upto(x + i, a.n - i), vset(mean)), vset(scale));
        if (weight) v = vmul(v, vadd(load_upto(weight + i, a.n - i), vset(a.offset)));
        if (bias) v = vadd(v, load_upto(bias + i, a.n - i));
        store_upto(out + i, v, a.n - i);
    }
}

inline void norm(const hr_norm_args& a, int64_t row) {
    if (a.dtype == HR_BF16) {
        norm_as<bf16>(a, row);
    } else {
        norm_as<float>(a, row);
    }
}

template <class T>
void activate_as(const T* gate, const T* up, T* out, int64_t n, int32_t activation) {
    for (int64_t i = 0; i < n; i += W) {
        const vf v = vactivate(load_upto(gate + i, n - i), activation);
        store_upto(out + i, up ? vmul(v, load_upto(up + i, n - i)) : v, n - i);
    }
}

inline void activate(const void* gate, const void* up, void* out, int64_t n, int32_t dtype, int32_t activation) {
    if (dtype == HR_BF16) {
        activate_as(static_cast<const bf16*>(gate), static_cast<const bf16*>(up), static_cast<bf16*>(out), n,
                    activation);
    } else {
        activate_as(static_cast<const float*>(gate), static_cast<const float*>(up), static_cast<float*>(out), n,
                    activation);
    }
}

// out = Σ weights[j] · rows[j], in this order.
template <class T>
void weighted_sum_as(const void* const* rows, const float* weights, int k, int64_t n, T* out) {
    for (int64_t i = 0; i < n; i += W) {
        vf sum = vzero();
        for (int j = 0; j < k; ++j) {
            sum = vfma(vset(weights[j]), load_upto(static_cast<const T*>(rows[j]) + i, n - i), sum);
        }
        store_upto(out + i, sum, n - i);
    }
}

inline void weighted_sum(const void* const* rows, const float* weights, int k, int64_t n, int32_t dtype, void* out) {
    if (dtype == HR_BF16) {
        weighted_sum_as(rows, weights, k, n, static_cast<bf16*>(out));
    } else {
        weighted_sum_as(rows, weights, k, n, static_cast<float*>(out));
    }
}

// Once for the highest value, and once for where it stands: the second pass ends early and reads what is still cached.
template <class T>
int64_t argmax_as(const T* x, int64_t n) {
    vf highest[2] = {vset(-__builtin_inff()), vset(-__builtin_inff())}, taint[2] = {vzero(), vzero()};
    int64_t i = 0;
    for (; i + 2 * W <= n; i += 2 * W) {
        for (int j = 0; j < 2; ++j) {
            const vf v = vload(x + i + j * W);
            highest[j] = vmax(v, highest[j]);
            taint[j] = vfma(v, vzero(), taint[j]);  // NaN as soon as one value is not finite
        }
    }
    float top = vhighest(vmax(highest[0], highest[1])), tainted = vsum(vadd(taint[0], taint[1]));
    for (int64_t j = i; j < n; ++j) {
        const float v = widen(x[j]);
        top = v > top ? v : top;
        tainted += v * 0.0f;
    }
    if (!(tainted == 0.0f)) return -1;
    int64_t found = 0;
    for (; found + W <= n; found += W) {
        const uint32_t below = vbelow_mask(vload(x + found), vset(top)), all = uint32_t((uint64_t(1) << W) - 1);
        if (below != all) return found + __builtin_ctz(~below);
    }
    while (widen(x[found]) != top) ++found;
    return found;
}

inline int64_t argmax(const void* x, int64_t n, int32_t dtype) {
    return dtype == HR_BF16 ? argmax_as(static_cast<const bf16*>(x), n) : argmax_as(static_cast<const float*>(x), n);
}

}  // namespace hr::HR_ISA
