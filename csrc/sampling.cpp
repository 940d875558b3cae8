// hr_draw: a token of each row, drawn by its temperature among what its filters leave.
//
// Weights are e^((logit - peak) / temperature), at most 1, and are summed as integers (fixed point), so that no order
// of summation can change a token. A filter that leaves few tokens is settled on the most likely ones:
//
//   row ─► the `shortlist` most likely, sorted ─► filters ─► draw in this order
//                                                    └─ a token that is not listed may stay:
//   row ─► buckets by distance from the peak ─► the one that holds the limit, sorted ─► lowest value that stays
//       ─► sums of columns (token = line · columns + column) ─► draw a column ─► draw a line of it
#include <algorithm>
#include <cmath>
#include <functional>
#include <vector>

#include "context.h"
#include "types.h"

namespace hr {
namespace {

constexpr double fixed_point = 1099511627776.0;  // 2^40
// Beyond this distance from the peak, in units of the temperature, the fixed-point weight is 0.
constexpr float reach = 28.0f;
constexpr int most_listed = 256;

// 0 for a NaN: its row fails, but must do no harm before.
int64_t fixed(float weight) { return weight > 0.0f ? int64_t(double(weight) * fixed_point) : 0; }

struct Row {
    const void* x;
    int64_t n;
    int32_t dtype;
    float peak, lowest, sharpness, min_p;
    int64_t top_k;  // 1 … n
    double top_p, uniform;

    float at(int64_t i) const {
        return dtype == HR_BF16 ? widen(static_cast<const bf16*>(x)[i]) : static_cast<const float*>(x)[i];
    }
};

// Buffers of a thread, kept.
struct Buffers {
    std::vector<float> weights, sums;
    std::vector<int32_t> buckets;
    std::vector<uint64_t> keys;
};

Buffers& buffers() {
    thread_local Buffers kept;
    return kept;
}

struct Drawn {
    int64_t index;
    double within;  // where in the index's share the uniform number fell, itself uniform
};

// Inverts the distribution function of n weights; `weight(i)` gives the integers.
template <class Weight>
Drawn invert(int64_t n, int64_t total, double uniform, const Weight& weight) {
    if (total <= 0) return {0, 0.0};
    const int64_t target = std::min(int64_t(uniform * double(total)), total - 1);
    int64_t upto = 0;
    for (int64_t i = 0; i < n; ++i) {
        const int64_t share = weight(i);
        upto += share;
        if (upto > target) return {i, double(target - (upto - share)) / double(share)};
    }
    return {n - 1, 0.0};
}

// ------------------------------------------------------------------------------------------------ the shortlist

// A value that at least `count` tokens reach: as many groups have a maximum that does. -inf where it takes too many.
float reached_by(float* maxima, int count) {
    if (count > sample_groups / 2) return -INFINITY;
    std::nth_element(maxima, maxima + count - 1, maxima + sample_groups, std::greater<float>());
    return maxima[count - 1];
}

// The `count` most likely tokens as keys, descending, equals by ascending id; fewer where others are -inf.
int most_likely(const Kernels& kernels, const Row& row, int count, float* maxima, uint64_t* keys) {
    constexpr int room = 2 * most_listed + 64;
    int have = 0;
    float above = std::nextafter(reached_by(maxima, count), -INFINITY);
    for (int64_t from = 0; from < row.n;) {
        int found = 0;
        from = kernels.collect(row.x, from, row.n, row.dtype, above, keys + have, room - have, &found);
        have += found;
        if (have > count) {
            std::nth_element(keys, keys + count - 1, keys + have, std::greater<uint64_t>());
            have = count;
            above = sample_value(keys[count - 1]);
        }
    }
    std::sort(keys, keys + have, std::greater<uint64_t>());
    return have;
}

int64_t total_mass(const Kernels& kernels, const Row& row) {
    const int64_t columns = ceil_div(row.n, sample_lines);
    std::vector<float>& sums = buffers().sums;
    sums.resize(size_t(columns) + 64);
    kernels.column_sums(row.x, row.n, row.dtype, Cut{row.peak, row.sharpness, 0, -INFINITY, row.n}, sums.data());
    int64_t total = 0;
    for (int64_t c = 0; c < columns; ++c) total += fixed(sums[size_t(c)]);
    return total;
}

// The token, or -1 where the filters may keep one that is not among the `count` most likely.
int64_t draw_from_shortlist(const Kernels& kernels, const Row& row, int count, float* maxima) {
    const int width = int(std::min<int64_t>(count, row.n));
    uint64_t keys[2 * most_listed + 64];
    float values[most_listed], weights[most_listed + 64];
    const int have = most_likely(kernels, row, width, maxima, keys);
    for (int i = 0; i < width; ++i) values[i] = i < have ? sample_value(keys[i]) : -INFINITY;
    kernels.weigh(values, width, values[0], row.sharpness, weights);

    int64_t shares[most_listed], listed = 0;
    const float kth = values[std::min<int64_t>(row.top_k, width) - 1];
    for (int i = 0; i < width; ++i) {
        shares[i] = row.top_k > width || values[i] >= kth ? fixed(weights[i]) : 0;
        listed += shares[i];
    }
    const bool by_all = width < row.n && row.top_k > width;
    const double limit = row.top_p >= 1.0 ? 0.0 : row.top_p * double(by_all ? total_mass(kernels, row) : listed);
    int64_t before = 0, total = 0;
    bool reaches_end = false;
    for (int i = 0; i < width; ++i) {
        const int64_t share = shares[i];
        const bool kept = (row.top_p >= 1.0 || double(before) < limit) && weights[i] >= row.min_p;
        before += share;
        shares[i] = kept ? share : 0;
        total += shares[i];
        reaches_end |= shares[i] > 0 && values[i] == values[width - 1];
    }
    if (width < row.n && reaches_end) return -1;
    const Drawn drawn = invert(width, total, row.uniform, [&](int64_t i) { return shares[i]; });
    return drawn.index < have ? sample_id(keys[drawn.index]) : 0;
}

// ------------------------------------------------------------------------------------------------ the whole row

// Which tokens fall to top_k and top_p: those below `floor`, and its equals beyond `last_equal`.
class Limits {
   public:
    Limits(const Kernels& kernels, const Row& row) : row_(row), kept_(buffers()) {
        const float span = std::min(reach / row.sharpness, row.peak - row.lowest);
        const float scale = span > 0 ? float(sample_buckets - 1) / span : 0.0f;
        kept_.weights.resize(size_t(row.n) + 64);
        kept_.buckets.resize(size_t(row.n) + 64);
        kernels.bucket(row.x, row.n, row.dtype, row.peak, row.sharpness, scale, kept_.weights.data(),
                       kept_.buckets.data());
        const int32_t* buckets = kept_.buckets.data();
        const float* weights = kept_.weights.data();
        if (row.top_k < row.n) {
            for (int64_t i = 0; i < row.n; ++i) count_[buckets[i]] += 1;
        }
        if (row.top_p < 1.0) {
            for (int64_t i = 0; i < row.n; ++i) mass_[buckets[i]] += fixed(weights[i]);
        }
    }

    Cut cut() {
        Cut cut{row_.peak, row_.sharpness, row_.min_p, -INFINITY, row_.n};
        int64_t mass = 0;
        if (row_.top_k < row_.n) {
            mass = by_top_k(cut.floor);
        } else {
            for (int b = 0; b < sample_buckets; ++b) mass += mass_[b];
        }
        if (row_.top_p < 1.0) by_top_p(int64_t(std::ceil(row_.top_p * double(mass))), cut);
        return cut;
    }

   private:
    // Keys of a bucket's tokens.
    std::vector<uint64_t>& members(int bucket) {
        kept_.keys.clear();
        for (int64_t i = 0; i < row_.n; ++i) {
            if (kept_.buckets[size_t(i)] == bucket) kept_.keys.push_back(sample_key(row_.at(i), i));
        }
        return kept_.keys;
    }

    int64_t share(uint64_t key) const { return fixed(kept_.weights[size_t(sample_id(key))]); }

    // The top_k-th value, and the mass of those not below it.
    int64_t by_top_k(float& floor) {
        int64_t above = 0, mass = 0;
        int b = 0;
        for (; b < sample_buckets - 1 && above + count_[b] < row_.top_k; ++b) above += count_[b], mass += mass_[b];
        std::vector<uint64_t>& keys = members(b);
        const auto kth = keys.begin() + (row_.top_k - above - 1);
        std::nth_element(keys.begin(), kth, keys.end(), std::greater<uint64_t>());
        floor = sample_value(*kth);
        for (const uint64_t key : keys) mass += sample_value(key) >= floor ? share(key) : 0;
        return mass;
    }

    // The first token, in descending order, at which the mass reaches `wanted`.
    void by_top_p(int64_t wanted, Cut& cut) {
        int64_t mass = 0;
        int b = 0;
        for (; b < sample_buckets - 1 && mass + mass_[b] < wanted; ++b) mass += mass_[b];
        std::vector<uint64_t>& keys = members(b);
        std::sort(keys.begin(), keys.end(), std::greater<uint64_t>());
        for (const uint64_t key : keys) {
            mass += share(key);
            cut.floor = sample_value(key);
            cut.last_equal = sample_id(key);
            if (mass >= wanted) return;
        }
    }

    const Row& row_;
    Buffers& kept_;
    int64_t count_[sample_buckets] = {};
    int64_t mass_[sample_buckets] = {};
};

int64_t draw_from_full_row(const Kernels& kernels, const Row& row) {
    Cut cut{row.peak, row.sharpness, row.min_p, -INFINITY, row.n};
    if (row.top_p < 1.0 || row.top_k < row.n) cut = Limits(kernels, row).cut();
    const int64_t columns = ceil_div(row.n, sample_lines);
    std::vector<float>& sums = buffers().sums;
    sums.resize(size_t(columns) + 64);
    kernels.column_sums(row.x, row.n, row.dtype, cut, sums.data());
    int64_t total = 0;
    for (int64_t c = 0; c < columns; ++c) total += fixed(sums[size_t(c)]);
    const Drawn column = invert(columns, total, row.uniform, [&](int64_t c) { return fixed(sums[size_t(c)]); });

    float values[sample_lines], weights[sample_lines + 64], highest = 0.0f;
    for (int line = 0; line < sample_lines; ++line) {
        const int64_t id = line * columns + column.index;
        values[line] = id < row.n ? row.at(id) : -INFINITY;
    }
    kernels.weigh(values, sample_lines, row.peak, row.sharpness, weights);
    for (int line = 0; line < sample_lines; ++line) {
        const int64_t id = line * columns + column.index;
        const bool equal_falls = values[line] == cut.floor && id > cut.last_equal;
        if (id >= row.n || values[line] < cut.floor || equal_falls || weights[line] < cut.min_weight) weights[line] = 0;
        highest = std::max(highest, weights[line]);
    }
    total = 0;  // relative to the largest, so that a column of tiny weights keeps its proportions
    for (float& weight : weights) {
        if (&weight - weights < sample_lines) total += fixed(weight /= highest);
    }
    const Drawn line = invert(sample_lines, total, column.within, [&](int64_t i) { return fixed(weights[i]); });
    return line.index * columns + column.index;
}

int64_t draw_row(const Kernels& kernels, const hr_draw_args& a, int64_t i) {
    const int64_t row_bytes = a.stride * element_bytes(a.dtype);
    Row row{static_cast<const char*>(a.logits) + a.rows[i] * row_bytes, a.n, a.dtype, 0, 0, a.sharpness[i], a.min_p[i],
            a.top_k[i], a.top_p[i], a.uniform[i]};
    float maxima[sample_groups];
    row.peak = kernels.highest(row.x, row.n, row.dtype, &row.lowest, maxima);
    if (!std::isfinite(row.peak)) return -1;
    if (row.top_k < a.shortlist || (row.top_k == a.n && row.top_p < 1.0)) {
        const int64_t token = draw_from_shortlist(kernels, row, a.shortlist, maxima);
        if (token >= 0) return token;
    }
    return draw_from_full_row(kernels, row);
}

}  // namespace
}  // namespace hr

using namespace hr;

extern "C" {

int32_t hr_draw(hr_context* c, const hr_draw_args* args) {
    return status_of([&] {
        const hr_draw_args& a = *args;
        if (!is_float(a.dtype) || a.n <= 0 || a.n > INT32_MAX || a.shortlist < 1 || a.shortlist > most_listed) {
            return HR_UNSUPPORTED;
        }
        for (int64_t i = 0; i < a.m; ++i) {
            if (a.top_k[i] < 1 || a.top_k[i] > a.n || !(a.sharpness[i] > 0)) return HR_UNSUPPORTED;
        }
        c->pool.run(a.m, [&](int64_t i) { a.out[i] = draw_row(*c->kernels, a, i); });
        return HR_OK;
    });
}

}  // extern "C"
