// The softmax of one span, between the two products, and the fold of spans.
namespace hr::HR_ISA {

// Positions within a span.
struct Range {
    int begin;
    int end;
    bool holds(int t, int n) const { return t >= begin && t + n <= end; }
};

inline void store_words(float* p, int t, vf low, vf high) {
    vstore(p + t, low);
    vstore(p + t + W, high);
}

#if defined(HR_DPBF16)
inline void store_words(uint32_t* p, int t, vf low, vf high) { vstore_pairs(p + t / 2, low, high); }
#endif

// The scaled scores of the positions that a query sees, and the highest. What comes back is still to be multiplied: by
// the scale, where it keeps the order and is all that happens to a score.
struct Scaled {
    float factor;
    float highest;
};

inline __attribute__((always_inline)) Scaled scale_scores(float* scores, Range seen, float scale, float softcap) {
    const vf nothing = vset(-__builtin_inff());
    const bool as_they_are = softcap <= 0 && scale > 0;
    vf highest = nothing;
    for (int t = seen.begin / W * W; t < seen.end; t += W) {
        vf s = vload(scores + t);
        if (softcap > 0) {
            s = vmul(vset(softcap), vtanh(vmul(s, vset(scale / softcap))));
        } else if (!as_they_are) {
            s = vmul(s, vset(scale));
        }
        if (!as_they_are) vstore(scores + t, s);
        if (!seen.holds(t, W)) s = vwithin(t, seen.begin, seen.end, s, nothing);
        highest = vmax(s, highest);
    }
    const float factor = as_they_are ? scale : 1.0f;
    return {factor, factor * vhighest(highest)};
}

// Scores to p for the positions that a query sees, and 0 for the others of its tile.
template <class Word>
inline __attribute__((always_inline)) Fold soften(float* scores, Word* p, Range seen, Range tile, float scale,
                                                  float softcap) {
    if (seen.begin >= seen.end) seen = {tile.end, tile.end};
    const Scaled scaled = scale_scores(scores, seen, scale, softcap);
    const vf factor = vset(scaled.factor), top = vset(-scaled.highest);
    const auto p_at = [&](int t) __attribute__((always_inline)) { return vexp(vfma(vload(scores + t), factor, top)); };
    vf total = vzero();
    for (int t = tile.begin / (2 * W) * (2 * W); t < tile.end; t += 2 * W) {
        vf low = p_at(t), high = p_at(t + W);
        if (!seen.holds(t, 2 * W)) {
            low = vwithin(t, seen.begin, seen.end, low, vzero());
            high = vwithin(t + W, seen.begin, seen.end, high, vzero());
        }
        total = vadd(vadd(total, low), high);
        store_words(p, t, low, high);
    }
    return {scaled.highest, vsum(total)};
}

inline float exp_of(float x) {
    float lanes[W];
    vstore(lanes, vexp(vset(x)));
    return lanes[0];
}

// (into, sum) := (into, sum) and then (next, next_sum)
inline void fold(Fold& into, float* sum, Fold next, const float* next_sum, int dim) {
    if (next.total == 0) return;
    if (into.total == 0) {
        for (int e = 0; e < dim; e += W) vstore(sum + e, vload(next_sum + e));
        into = next;
        return;
    }
    const bool rises = next.highest > into.highest;
    const float weight = exp_of(rises ? into.highest - next.highest : next.highest - into.highest);
    const vf keep = vset(rises ? weight : 1.0f), add = vset(rises ? 1.0f : weight);
    for (int e = 0; e < dim; e += W) {
        vstore(sum + e, vfma(vload(sum + e), keep, vmul(vload(next_sum + e), add)));
    }
    into = {rises ? next.highest : into.highest,
            rises ? into.total * weight + next.total : into.total + next.total * weight};
}

}  // namespace hr::HR_ISA
