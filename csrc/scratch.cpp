#include "scratch.h"

#include <cstdlib>
#include <memory>
#include <new>

#if defined(__linux__)
#include <sys/mman.h>
#endif

namespace hr {
namespace {

constexpr size_t huge_page_bytes = size_t(2) << 20;

struct Free {
    void operator()(void* p) const { std::free(p); }
};

struct Buffer {
    std::unique_ptr<void, Free> memory;
    size_t bytes = 0;
};

void* grown(Buffer& buffer, size_t bytes) {
    if (bytes > buffer.bytes) {
        const size_t rounded = (bytes + huge_page_bytes - 1) / huge_page_bytes * huge_page_bytes;
        buffer.memory.reset();
        buffer.bytes = 0;
        buffer.memory.reset(std::aligned_alloc(huge_page_bytes, rounded));
        if (!buffer.memory) throw std::bad_alloc();
        buffer.bytes = rounded;
#if defined(__linux__) && defined(MADV_HUGEPAGE)
        madvise(buffer.memory.get(), rounded, MADV_HUGEPAGE);
#endif
    }
    return buffer.memory.get();
}

}  // namespace

void* scratch(size_t bytes) {
    thread_local Buffer buffer;
    return grown(buffer, bytes);
}

void* workspace(size_t bytes) {
    thread_local Buffer buffer;
    return grown(buffer, bytes);
}

}  // namespace hr
