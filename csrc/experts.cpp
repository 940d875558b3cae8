// hr_experts: every expert of a layer in one call.
//
//   tokens' choices ─► sorted by expert ─► rows of x packed ─► gate · up products, all experts side by side
//                                                               └─► packed again ─► down products ─► weighted sums
//
// A row of a product does not depend on what lies beside it (linear.cpp), and a token's terms are added in the order of
// its own choices: so a token's result does not depend on the batch.
#include <algorithm>
#include <vector>

#include "context.h"
#include "scratch.h"
#include "types.h"

namespace hr {
namespace {

// Tokens that go through together: more would leave the caches.
constexpr int64_t tokens_at_once = 512;
constexpr int64_t alignment = 64;

int64_t aligned(int64_t bytes) { return ceil_div(bytes, alignment) * alignment; }

// The choices of some tokens, sorted by expert; equals in the order of the tokens.
struct Choices {
    std::vector<int64_t> first;   // [E + 1] where the rows of an expert begin
    std::vector<int64_t> choice;  // [rows] token · k + place
    std::vector<int64_t> row;     // [T · k] the way back

    Choices(const hr_experts_args& a, int64_t token, int64_t tokens)
        : first(size_t(a.num_experts) + 1), choice(size_t(tokens * a.k)), row(choice.size()) {
        const int64_t* experts = a.index + token * a.k;
        for (size_t c = 0; c < choice.size(); ++c) first[size_t(experts[c]) + 1] += 1;
        for (size_t e = 0; e < size_t(a.num_experts); ++e) first[e + 1] += first[e];
        std::vector<int64_t> next(first.begin(), first.end() - 1);
        for (size_t c = 0; c < choice.size(); ++c) {
            row[c] = next[size_t(experts[c])]++;
            choice[size_t(row[c])] = int64_t(c);
        }
    }
};

// One product of every expert that has rows.
struct Stage {
    const hr_matrix* matrices;
    int64_t x_row_bytes;
    char* packed;  // stage_bytes()
    char* y;
    int64_t y_row_bytes;
    int32_t activation;
};

struct Layout {
    int64_t words, padded;
    PanelLayout panels;

    Layout(const Kernels& kernels, const hr_matrix& matrix) : panels(kernels.panel_layout(matrix.dtype)) {
        const int64_t pair = matrix.dtype == HR_BF16 && panels.word_k == 1 ? 2 : 1;
        words = ceil_div(ceil_div(matrix.k, panels.word_k), pair) * pair;
        padded = ceil_div(words, panels.block_words) * panels.block_words;
    }
    int64_t num_panels(const hr_matrix& matrix) const {
        return matrix.gated ? ceil_div(matrix.n / 2, panels.width / 2) : ceil_div(matrix.n, panels.width);
    }
    int64_t bytes(int64_t rows) const { return aligned(4 * (padded + 1) * rows); }
};

// `x_of(row)` is where row `row` of the sorted rows lies.
template <class XOf>
void run_stage(const hr_context& c, const hr_experts_args& a, const Choices& choices, const Stage& stage,
               const XOf& x_of) {
    const Layout layout(*c.kernels, stage.matrices[0]);
    const int64_t rows = int64_t(choices.choice.size());
    auto* words = reinterpret_cast<uint32_t*>(stage.packed);
    auto* scales = reinterpret_cast<float*>(words + layout.padded * rows);
    std::vector<Product> products;
    std::vector<int64_t> expert_of(static_cast<size_t>(rows));
    std::vector<int64_t> first_row;
    for (int64_t e = 0; e < a.num_experts; ++e) {
        const int64_t first = choices.first[size_t(e)], count = choices.first[size_t(e) + 1] - first;
        if (!count) continue;
        std::fill_n(expert_of.begin() + first, count, int64_t(products.size()));
        first_row.push_back(first);
        products.push_back({stage.matrices + e, words + layout.padded * first, scales + first, count,
                            ceil_div(count, layout.panels.tile_rows), layout.words, stage.y + first * stage.y_row_bytes,
                            stage.y_row_bytes / element_bytes(a.dtype), nullptr, 0, a.dtype, stage.activation});
    }
    c.pool.run(rows, [&](int64_t row) {
        const auto p = size_t(expert_of[size_t(row)]);
        const Product& g = products[p];
        c.kernels->pack_x(g, x_of(row), a.dtype, const_cast<uint32_t*>(g.x), row - first_row[p], scales + row);
    });
    const int64_t panels = layout.num_panels(stage.matrices[0]), active = int64_t(products.size());
    const int64_t wanted = c.pool.num_threads() > 1 ? 8 * c.pool.num_threads() : 1;
    const int64_t pieces = std::min(panels, ceil_div(wanted, active));
    c.pool.run(active * pieces, [&](int64_t i) {
        const Product& g = products[size_t(i / pieces)];
        const int64_t p = i % pieces;
        c.kernels->multiply(g, panels * p / pieces, panels * (p + 1) / pieces, 0, g.row_blocks);
    });
}

void run_tokens(const hr_context& c, const hr_experts_args& a, int64_t token, int64_t tokens) {
    const Choices choices(a, token, tokens);
    const int64_t rows = tokens * a.k, element = element_bytes(a.dtype);
    const int64_t inner_bytes = a.down[0].k * element, term_bytes = a.down[0].n * element;
    const int64_t packed = std::max(Layout(*c.kernels, a.inner[0]).bytes(rows), Layout(*c.kernels, a.down[0]).bytes(rows));
    const int64_t inner_size = aligned(rows * inner_bytes);
    auto* memory = static_cast<char*>(scratch(size_t(packed + inner_size + aligned(rows * term_bytes))));
    char *inner = memory + packed, *terms = inner + inner_size;

    const char* x = static_cast<const char*>(a.x);
    run_stage(c, a, choices, {a.inner, a.x_stride * element, memory, inner, inner_bytes, a.activation},
              [&](int64_t row) { return x + (token + choices.choice[size_t(row)] / a.k) * a.x_stride * element; });
    run_stage(c, a, choices, {a.down, inner_bytes, memory, terms, term_bytes, HR_IDENTITY},
              [&](int64_t row) { return inner + row * inner_bytes; });
    c.pool.run(tokens, [&](int64_t t) {
        const void* of_token[most_choices];
        for (int64_t j = 0; j < a.k; ++j) of_token[j] = terms + choices.row[size_t(t * a.k + j)] * term_bytes;
        char* y = static_cast<char*>(a.y) + (token + t) * a.y_stride * element;
        c.kernels->weighted_sum(of_token, a.weights + (token + t) * a.k, int(a.k), a.down[0].n, a.dtype, y);
    });
}

bool alike(const hr_matrix& m, const hr_matrix& first) {
    return m.data && m.n == first.n && m.k == first.k && m.dtype == first.dtype && m.gated == first.gated;
}

bool is_valid(const hr_experts_args& a) {
    if (!is_float(a.dtype) || a.num_experts < 1 || a.k < 1 || a.k > most_choices) return false;
    for (int64_t e = 0; e < a.num_experts; ++e) {
        if (!alike(a.inner[e], a.inner[0]) || !alike(a.down[e], a.down[0])) return false;
    }
    const int64_t width = a.inner[0].gated ? a.inner[0].n / 2 : a.inner[0].n;
    if (width != a.down[0].k || a.down[0].gated) return false;
    const auto missing = [&](int64_t e) { return e < 0 || e >= a.num_experts; };
    return std::none_of(a.index, a.index + a.num_tokens * a.k, missing);
}

}  // namespace
}  // namespace hr

using namespace hr;

extern "C" {

int32_t hr_experts(hr_context* c, const hr_experts_args* args) {
    return status_of([&] {
        if (!is_valid(*args)) return HR_UNSUPPORTED;
        for (int64_t token = 0; token < args->num_tokens; token += tokens_at_once) {
            run_tokens(*c, *args, token, std::min(tokens_at_once, args->num_tokens - token));
        }
        return HR_OK;
    });
}

}  // extern "C"
