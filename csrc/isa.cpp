// Which instruction sets this processor runs, and contexts for them.
#include <cstring>
#include <memory>

#include "context.h"

#if defined(__x86_64__)
#include <cpuid.h>
#endif

namespace {

struct Choice {
    const hr::Kernels* kernels;
    bool runs;
};

#if defined(HR_WITH_AVX512BF16)
// CPUID leaf 7, subleaf 1: not every compiler's __builtin_cpu_supports knows the name.
bool runs_dpbf16() {
#if defined(HR_EMULATE_DPBF16)
    return true;
#else
    unsigned a = 0, b = 0, c = 0, d = 0;
    return __get_cpuid_count(7, 1, &a, &b, &c, &d) && (a >> 5 & 1);
#endif
}
#endif

// Best first. HR_WITH_…: the compiler of this build knew the instruction set.
int choices(Choice* out) {
    int n = 0;
#if defined(__x86_64__)
    __builtin_cpu_init();
    const bool avx512 = __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
                        __builtin_cpu_supports("avx512vl") && __builtin_cpu_supports("avx512dq");
    const bool vnni = avx512 && __builtin_cpu_supports("avx512vnni");
#if defined(HR_WITH_AVX512BF16)
    out[n++] = {&hr::avx512bf16_kernels, vnni && runs_dpbf16()};
#endif
#if defined(HR_WITH_AVX512VNNI)
    out[n++] = {&hr::avx512vnni_kernels, vnni};
#endif
#if defined(HR_WITH_AVX512)
    out[n++] = {&hr::avx512_kernels, avx512};
#endif
#if defined(HR_WITH_AVX2)
    out[n++] = {&hr::avx2_kernels, __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma")};
#endif
#endif
    out[n++] = {&hr::portable_kernels, true};
    return n;
}

}  // namespace

extern "C" {

int32_t hr_abi(void) { return HR_ABI; }

const char* hr_available(void) {
    static char names[128];
    Choice all[8];
    char text[sizeof names] = "";
    for (int i = 0, n = choices(all); i < n; ++i) {
        if (!all[i].runs) continue;
        if (*text) std::strcat(text, ",");
        std::strcat(text, all[i].kernels->name);
    }
    std::memcpy(names, text, sizeof names);
    return names;
}

hr_context* hr_open(const char* isa, int32_t num_threads) {
    try {
        Choice all[8];
        for (int i = 0, n = choices(all); i < n; ++i) {
            if (all[i].runs && std::strcmp(all[i].kernels->name, isa) == 0) {
                return new hr_context{all[i].kernels, hr::Pool(num_threads)};
            }
        }
    } catch (const std::exception&) {
    }
    return nullptr;
}

void hr_close(hr_context* context) { delete context; }

}  // extern "C"
