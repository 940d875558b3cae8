// The roofline of this processor, for benchmarks.
#include "context.h"

extern "C" {

double hr_probe_flops(hr_context* c, int64_t rounds) {
    double operations = 0;
    c->pool.run(c->pool.num_threads(), [&](int64_t i) {
        float sink;
        const double done = c->kernels->probe_multiply_adds(rounds, &sink);
        if (i == 0) operations = done;
    });
    return operations * c->pool.num_threads();
}

void hr_probe_read(hr_context* c, const void* p, int64_t bytes) {
    const int64_t pieces = 8 * c->pool.num_threads(), floats = bytes / 4;
    c->pool.run(pieces, [&](int64_t i) {
        float sink;
        const int64_t begin = floats * i / pieces;
        c->kernels->probe_read(static_cast<const float*>(p) + begin, floats * (i + 1) / pieces - begin, &sink);
    });
}

}  // extern "C"
