// Keys and values to their slots, and what comes before: norms of heads and rotation.
namespace hr::HR_ISA {

template <class T>
void write_key(const hr_cache& c, const float* key, int64_t slot, int head) {
    constexpr int per_step = 4 / sizeof(T);
    const int64_t s = c.block_size;
    T* block = static_cast<T*>(c.keys) + (slot / s * c.num_kv_heads + head) * c.key_dim * s;
    for (int d = 0; d < c.key_dim; ++d) narrow(key[d], block + (d / per_step * s + slot % s) * per_step + d % per_step);
}

template <class T>
void write_value(const hr_cache& c, const T* value, int64_t slot, int head) {
    const int64_t s = c.block_size;
    T* to = static_cast<T*>(c.values) + ((slot / s * c.num_kv_heads + head) * s + slot % s) * c.value_dim;
    std::memcpy(to, value, size_t(c.value_dim) * sizeof(T));
}

template <class T>
void load_head(const T* x, int dim, float* out) {
    int d = 0;
    for (; d + W <= dim; d += W) vstore(out + d, vload(x + d));
    for (; d < dim; ++d) out[d] = widen(x[d]);
}

inline void cache_write(const CacheWrite& w, int64_t token) {
    const hr_cache& c = *w.cache;
    float key[most_dim];
    for (int head = 0; head < c.num_kv_heads; ++head) {
        const int64_t k = token * w.key_token_stride + head * w.key_head_stride;
        const int64_t v = token * w.value_token_stride + head * w.value_head_stride;
        if (c.dtype == HR_BF16) {
            load_head(static_cast<const bf16*>(w.key) + k, c.key_dim, key);
            write_key<bf16>(c, key, w.slots[token], head);
            write_value(c, static_cast<const bf16*>(w.value) + v, w.slots[token], head);
        } else {
            write_key<float>(c, static_cast<const float*>(w.key) + k, w.slots[token], head);
            write_value(c, static_cast<const float*>(w.value) + v, w.slots[token], head);
        }
    }
}

template <class T>
void norm_head(float* x, const T* weight, int dim, float eps, float offset) {
    vf squares = vzero();
    for (int d = 0; d < dim; d += W) {
        const vf v = dim - d >= W ? vload(x + d) : vload_n(x + d, dim - d);
        squares = vfma(v, v, squares);
    }
    const float scale = 1.0f / __builtin_sqrtf(vsum(squares) / float(dim) + eps);
    for (int d = 0; d < dim; ++d) x[d] = x[d] * scale * (widen(weight[d]) + offset);
}

template <class T>
void rotate_head(const hr_rope& r, int64_t token, float* x) {
    const T* cosines = static_cast<const T*>(r.cos) + token * r.angle_stride;
    const T* sines = static_cast<const T*>(r.sin) + token * r.angle_stride;
    const int pairs = r.rotary_dim / 2;
    for (int i = 0; i < pairs; ++i) {
        const float c = widen(cosines[i * r.angle_step]), s = widen(sines[i * r.angle_step]);
        const int first = r.interleaved ? 2 * i : i, second = r.interleaved ? 2 * i + 1 : i + pairs;
        const float a = x[first], b = x[second];
        x[first] = a * c - b * s;
        x[second] = b * c + a * s;
    }
}

template <class T>
void rope_as(const hr_rope& r, int64_t token) {
    const hr_cache& c = *r.cache;
    float head[most_dim];
    for (int h = 0; h < r.num_heads; ++h) {
        T* q = static_cast<T*>(r.query) + token * r.query_stride + h * c.key_dim;
        load_head(q, c.key_dim, head);
        if (r.query_norm) {
            norm_head(head, static_cast<const T*>(r.query_norm), c.key_dim, r.norm_eps, r.norm_offset);
        }
        rotate_head<T>(r, token, head);
        for (int d = 0; d < c.key_dim; ++d) narrow(head[d], q + d);
    }
    for (int h = 0; h < c.num_kv_heads; ++h) {
        load_head(static_cast<const T*>(r.key) + token * r.key_stride + h * c.key_dim, c.key_dim, head);
        if (r.key_norm) norm_head(head, static_cast<const T*>(r.key_norm), c.key_dim, r.norm_eps, r.norm_offset);
        rotate_head<T>(r, token, head);
        write_key<T>(c, head, r.slots[token], h);
        const T* value = static_cast<const T*>(r.value) + token * r.value_stride + h * c.value_dim;
        write_value(c, value, r.slots[token], h);
    }
}

inline void rope_and_write(const hr_rope& r, int64_t token) {
    if (r.cache->dtype == HR_BF16) {
        rope_as<bf16>(r, token);
    } else {
        rope_as<float>(r, token);
    }
}

}  // namespace hr::HR_ISA
