// Products, attention and draws of the portable kernels beside plain loops in double; exits with the number of faults.
#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <vector>

#include "headrace.h"

namespace {

int faults = 0;

void expect(bool holds, const char* what, double worst) {
    std::printf("%s %s %.2g\n", holds ? "ok" : "FAULT", what, worst);
    faults += !holds;
}

// Multiples of 1/64 up to 1: exact in every dtype.
std::vector<float> random(size_t n) {
    std::vector<float> x(n);
    for (float& v : x) v = float(std::rand() % 129 - 64) / 64;
    return x;
}

void products(hr_context* h, int dtype, int m, bool gated) {
    const int n = 38, k = 67, outputs = gated ? n / 2 : n;
    hr_matrix matrix{nullptr, nullptr, n, k, dtype, gated};
    const size_t bytes = size_t(hr_packed_bytes(h, &matrix)) + 63 & ~size_t(63);
    matrix.data = std::memset(std::aligned_alloc(64, bytes), 0, bytes);
    const std::vector<float> w = random(size_t(n * k)), x = random(size_t(m * k));
    std::vector<float> y(size_t(m * outputs));
    int status = hr_pack(h, &matrix, w.data(), k, HR_F32, 0, n);
    status |= hr_linear(h, &matrix, x.data(), k, HR_F32, y.data(), outputs, HR_F32, nullptr, 0, m,
                        gated ? HR_SILU : HR_IDENTITY);
    double worst = 0, top = 0;
    for (int i = 0; i < m; ++i) {
        for (int j = 0; j < outputs; ++j) {
            double sum = 0, up = 0;
            for (int q = 0; q < k; ++q) sum += double(x[i * k + q]) * w[j * k + q];
            for (int q = 0; gated && q < k; ++q) up += double(x[i * k + q]) * w[(j + outputs) * k + q];
            if (gated) sum = sum / (1 + std::exp(-sum)) * up;
            worst = std::fmax(worst, std::fabs(sum - y[i * outputs + j]));
            top = std::fmax(top, std::fabs(sum));
        }
    }
    expect(status == HR_OK && worst <= top * (dtype == HR_INT8 ? 0.05 : 1e-5), "product", worst / top);
    std::free(matrix.data);
}

void attention(hr_context* h) {
    const int heads = 4, kv_heads = 2, dim = 32, block_size = 16, length = 50, blocks = 4;
    std::vector<float> keys(blocks * kv_heads * dim * block_size + 64), values = keys;
    const hr_cache cache{keys.data(), values.data(), HR_F32, kv_heads, dim, dim, block_size};
    const std::vector<float> k = random(length * kv_heads * dim), v = random(length * kv_heads * dim);
    const std::vector<float> query = random(heads * dim);
    std::vector<float> out(heads * dim);
    std::vector<int64_t> slots(length);
    for (int t = 0; t < length; ++t) slots[size_t(t)] = t;
    const int32_t query_start[] = {0, 1}, context_len[] = {length}, table[blocks] = {0, 1, 2, 3};
    int status = hr_cache_write(h, &cache, k.data(), kv_heads * dim, dim, v.data(), kv_heads * dim, dim, slots.data(),
                                length);
    const hr_attention a{&cache,      query.data(), heads * dim, dim, out.data(), heads * dim, dim, nullptr, query_start,
                         context_len, table,        blocks,      1,   heads,      0,           0,   0.2f,    0.0f};
    status |= hr_attend(h, &a);
    double worst = 0;
    for (int head = 0; head < heads; ++head) {
        double p[length], total = 0;
        for (int t = 0; t < length; ++t) {
            double score = 0;
            for (int d = 0; d < dim; ++d) score += query[head * dim + d] * k[(t * kv_heads + head / 2) * dim + d];
            total += p[t] = std::exp(0.2 * score);
        }
        for (int d = 0; d < dim; ++d) {
            double sum = 0;
            for (int t = 0; t < length; ++t) sum += p[t] / total * v[(t * kv_heads + head / 2) * dim + d];
            worst = std::fmax(worst, std::fabs(sum - out[head * dim + d]));
        }
    }
    expect(status == HR_OK && worst < 1e-5, "attention", worst);
}

// The only token that stays is the most likely one, whichever way it is looked for.
void draws(hr_context* h, int64_t top_k, double top_p) {
    const int n = 1003;
    std::vector<float> logits(n);
    for (int i = 0; i < n; ++i) logits[size_t(i)] = float((i * 7919) % n) / 50;
    const int64_t row = 0;
    const double uniform = 0.3;
    const float sharpness = 50.0f, min_p = 1.0f;
    int64_t drawn = -5, highest = -6;
    const hr_draw_args a{logits.data(), n, n, 1, &row, &uniform, &sharpness, &top_k, &top_p, &min_p, &drawn, HR_F32, 8};
    const int status = hr_draw(h, &a) | hr_argmax(h, logits.data(), n, 1, n, HR_F32, &highest);
    expect(status == HR_OK && drawn == highest, "draw", double(drawn - highest));
}

}  // namespace

int main() {
    hr_context* h = hr_open("portable", 2);
    for (const int dtype : {HR_F32, HR_BF16, HR_INT8}) {
        for (const int m : {1, 3, 9, 20}) {
            products(h, dtype, m, false);
            products(h, dtype, m, true);
        }
    }
    attention(h);
    draws(h, 1, 1.0);
    draws(h, 1003, 0.9);
    draws(h, 500, 0.9);
    draws(h, 1003, 1.0);
    hr_close(h);
    return faults;
}
