// What hr_open makes: the kernels of one instruction set, and the threads that run them.
#ifndef HEADRACE_CONTEXT_H
#define HEADRACE_CONTEXT_H

#include <exception>
#include <new>

#include "kernels.h"
#include "pool.h"

struct hr_context {
    const hr::Kernels* kernels;
    mutable hr::Pool pool;
};

namespace hr {

// Runs a call of the C interface: no exception crosses it.
template <class Body>
int32_t status_of(const Body& body) {
    try {
        return body();
    } catch (const std::bad_alloc&) {
        return HR_NO_MEMORY;
    } catch (const std::exception&) {
        return HR_UNSUPPORTED;
    }
}

}  // namespace hr
#endif
