// What this processor could do: multiply-adds from registers, and reading memory. Benchmarks stand beside these.
namespace hr::HR_ISA {

// Runs `rounds` of independent multiply-adds, as many as a full tile has; returns the operations done.
inline double probe_multiply_adds(int64_t rounds, float* sink) {
    constexpr int chains = 2 * tile_rows;
    vf c[chains];
#pragma GCC unroll 32
    for (int i = 0; i < chains; ++i) c[i] = vset(float(i));
    const vf a = vset(1.0f - 1e-7f), b = vset(1e-7f);
    for (int64_t round = 0; round < rounds; ++round) {
#pragma GCC unroll 32
        for (int i = 0; i < chains; ++i) c[i] = vfma(c[i], a, b);
    }
    float sum = 0;
#pragma GCC unroll 32
    for (int i = 0; i < chains; ++i) sum += vsum(c[i]);
    *sink = sum;
    return 2.0 * chains * W * double(rounds);
}

inline void probe_read(const float* p, int64_t floats, float* sink) {
    vf sums[4] = {vzero(), vzero(), vzero(), vzero()};
    for (int64_t i = 0; i + 4 * W <= floats; i += 4 * W) {
        for (int j = 0; j < 4; ++j) sums[j] = vadd(sums[j], vload(p + i + j * W));
    }
    *sink = vsum(vadd(vadd(sums[0], sums[1]), vadd(sums[2], sums[3])));
}

}  // namespace hr::HR_ISA
