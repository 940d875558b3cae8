// Keys and values to their slots, and what comes before: norms of heads and rotation.
namespace hr::HR_ISA {

// A key in words of 4 bytes: one d of a float, a pair of bf16; words of consecutive tokens lie side by side.
inline void write_key(const hr_cache& c, const uint32_t* key, int64_t slot, int head) {
    const int64_t s = c.block_size, words = c.key_dim * element_bytes(c.dtype) / 4;
    uint32_t* to = static_cast<uint32_t*>(c.keys) + (slot / s * c.num_kv_heads + head) * words * s + slot % s;
    for (int64_t w = 0; w < words; ++w) to[w * s] = key[w];
}

template <class T>
void write_value(const hr_cache& c, const T* value, int64_t slot, int head) {
    const int64_t s = c.block_size;
    T* to = static_cast<T*>(c.values) + ((slot / s * c.num_kv_heads + head) * s + slot % s) * c.value_dim;
    std::memcpy(to, value, size_t(c.value_dim) * sizeof(T));
}

template <class T>
void cache_write_as(const CacheWrite& w, int64_t token) {
    const hr_cache& c = *w.cache;
    uint32_t key[most_dim];
    for (int head = 0; head < c.num_kv_heads; ++head) {
        const T* k = static_cast<const T*>(w.key) + token * w.key_token_stride + head * w.key_head_stride;
        const T* v = static_cast<const T*>(w.value) + token * w.value_token_stride + head * w.value_head_stride;
        std::memcpy(key, k, size_t(c.key_dim) * sizeof(T));
        write_key(c, key, w.slots[token], head);
        write_value(c, v, w.slots[token], head);
    }
}

inline void cache_write(const CacheWrite& w, int64_t token) {
    if (w.cache->dtype == HR_BF16) {
        cache_write_as<bf16>(w, token);
    } else {
        cache_write_as<float>(w, token);
    }
}

template <class T>
vf load_some_of(const T* p, int n) {
    return n >= W ? vload(p) : vload_n(p, n);
}

template <class T>
void store_some_of(T* p, vf v, int n) {
    if (n >= W) {
        vstore(p, v);
    } else {
        vstore_n(p, v, n);
    }
}

inline void norm_head(float* x, const float* weight, int dim, float eps) {
    vf squares = vzero();
    for (int d = 0; d < dim; d += W) {
        const vf v = load_some_of(x + d, dim - d);
        squares = vfma(v, v, squares);
    }
    const vf scale = vset(1.0f / __builtin_sqrtf(vsum(squares) / float(dim) + eps));
    for (int d = 0; d < dim; d += W) vstore(x + d, vmul(vmul(vload(x + d), scale), vload(weight + d)));
}

// Cosines and sines of one token.
struct Turn {
    float cos[most_dim / 2 + 16];
    float sin[most_dim / 2 + 16];
};

template <class T>
void load_turn(const hr_rope& r, int64_t token, Turn& turn) {
    const T* cosines = static_cast<const T*>(r.cos) + token * r.angle_stride;
    const T* sines = static_cast<const T*>(r.sin) + token * r.angle_stride;
    const int pairs = r.rotary_dim / 2;
    if (r.angle_step == 1) {
        for (int i = 0; i < pairs; i += W) {
            vstore(turn.cos + i, load_some_of(cosines + i, pairs - i));
            vstore(turn.sin + i, load_some_of(sines + i, pairs - i));
        }
        return;
    }
    for (int i = 0; i < pairs; ++i) {
        turn.cos[i] = widen(cosines[i * r.angle_step]);
        turn.sin[i] = widen(sines[i * r.angle_step]);
    }
}

inline void rotate_head(const hr_rope& r, const Turn& turn, float* x) {
    const int pairs = r.rotary_dim / 2;
    if (r.interleaved) {
        for (int i = 0; i < pairs; ++i) {
            const float a = x[2 * i], b = x[2 * i + 1];
            x[2 * i] = a * turn.cos[i] - b * turn.sin[i];
            x[2 * i + 1] = b * turn.cos[i] + a * turn.sin[i];
        }
        return;
    }
    for (int i = 0; i < pairs; i += W) {
        const int n = pairs - i;
        const vf a = load_some_of(x + i, n), b = load_some_of(x + pairs + i, n);
        const vf c = vload(turn.cos + i), s = vload(turn.sin + i);
        store_some_of(x + i, vsub(vmul(a, c), vmul(b, s)), n);
        store_some_of(x + pairs + i, vfma(b, c, vmul(a, s)), n);
    }
}

// Weights of a head's norm in float, the offset added; `with` says whether there is one.
struct HeadNorm {
    bool with;
    float eps;
    alignas(64) float weight[most_dim + 16];
};

template <class T>
void load_norm(const hr_rope& r, const void* weight, HeadNorm& norm) {
    norm.with = weight != nullptr;
    norm.eps = r.norm_eps;
    const T* w = static_cast<const T*>(weight);
    for (int d = 0; w && d < r.cache->key_dim; ++d) norm.weight[d] = widen(w[d]) + r.norm_offset;
}

// A head of NV vectors, in registers: normalized, if there is a weight for that, and all of it turned.
template <class T, int NV>
void turn_whole(const Turn& turn, const HeadNorm& norm, const T* from, T* to) {
    vf x[NV];
    for (int v = 0; v < NV; ++v) x[v] = vload(from + v * W);
    if (norm.with) {
        vf squares[2] = {vzero(), vzero()};
        for (int v = 0; v < NV; ++v) squares[v % 2] = vfma(x[v], x[v], squares[v % 2]);
        const float mean = vsum(vadd(squares[0], squares[1])) / float(NV * W);
        const vf scale = vset(1.0f / __builtin_sqrtf(mean + norm.eps));
        for (int v = 0; v < NV; ++v) x[v] = vmul(vmul(x[v], scale), vload(norm.weight + v * W));
    }
    for (int v = 0; v < NV / 2; ++v) {
        const vf c = vload(turn.cos + v * W), s = vload(turn.sin + v * W), a = x[v], b = x[v + NV / 2];
        vstore(to + v * W, vsub(vmul(a, c), vmul(b, s)));
        vstore(to + (v + NV / 2) * W, vfma(b, c, vmul(a, s)));
    }
}

// Any head, by way of memory.
template <class T>
void turn_any(const hr_rope& r, const Turn& turn, const HeadNorm& norm, const T* from, T* to) {
    const int dim = r.cache->key_dim;
    alignas(64) float x[most_dim + 16];
    for (int d = 0; d < dim; d += W) vstore(x + d, load_some_of(from + d, dim - d));
    if (norm.with) norm_head(x, norm.weight, dim, norm.eps);
    rotate_head(r, turn, x);
    for (int d = 0; d < dim; d += W) store_some_of(to + d, vload(x + d), dim - d);
}

template <class T>
void turn_head(const hr_rope& r, const Turn& turn, const HeadNorm& norm, const T* from, T* to) {
    const int dim = r.cache->key_dim, vectors = r.rotary_dim == dim && !r.interleaved && dim % W == 0 ? dim / W : 0;
    switch (vectors) {
        case 4: return turn_whole<T, 4>(turn, norm, from, to);
        case 8: return turn_whole<T, 8>(turn, norm, from, to);
        default: return turn_any(r, turn, norm, from, to);
    }
}

constexpr int tokens_at_once = 16;

// A few tokens in a row: their keys share cache lines, so a head goes through all of them before the next one does.
template <class T>
void rope_some(const hr_rope& r, int64_t token, int count) {
    const hr_cache& c = *r.cache;
    Turn turns[tokens_at_once];
    HeadNorm query_norm, key_norm;
    load_norm<T>(r, r.query_norm, query_norm);
    load_norm<T>(r, r.key_norm, key_norm);
    for (int i = 0; i < count; ++i) {
        load_turn<T>(r, token + i, turns[i]);
        T* q = static_cast<T*>(r.query) + (token + i) * r.query_stride;
        for (int h = 0; h < r.num_heads; ++h, q += c.key_dim) turn_head(r, turns[i], query_norm, q, q);
    }
    for (int h = 0; h < c.num_kv_heads; ++h) {
        for (int i = 0; i < count; ++i) {
            alignas(64) T key[most_dim];
            uint32_t words[most_dim];
            const T* from = static_cast<const T*>(r.key) + (token + i) * r.key_stride + h * c.key_dim;
            turn_head(r, turns[i], key_norm, from, key);
            std::memcpy(words, key, size_t(c.key_dim) * sizeof(T));
            write_key(c, words, r.slots[token + i], h);
            const T* value = static_cast<const T*>(r.value) + (token + i) * r.value_stride + h * c.value_dim;
            write_value(c, value, r.slots[token + i], h);
        }
    }
}

inline void rope_and_write(const hr_rope& r, int64_t token, int64_t end) {
    for (; token < end; token += tokens_at_once) {
        const int count = end - token < tokens_at_once ? int(end - token) : tokens_at_once;
        if (r.cache->dtype == HR_BF16) {
            rope_some<bf16>(r, token, count);
        } else {
            rope_some<float>(r, token, count);
        }
    }
}

}  // namespace hr::HR_ISA
