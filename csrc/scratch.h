// Memory of the calling thread that a call may use until it returns; kept, and grown on demand.
#ifndef HEADRACE_SCRATCH_H
#define HEADRACE_SCRATCH_H

#include <cstddef>

namespace hr {

// 64-byte aligned, on huge pages where the system has them; throws std::bad_alloc. The next call invalidates it.
void* scratch(size_t bytes);

// The same for what outlives a call of a kernel: the next call of this, not of scratch, invalidates it.
void* workspace(size_t bytes);

}  // namespace hr
#endif
