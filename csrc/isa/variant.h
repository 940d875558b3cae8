// Compiles every kernel for one instruction set: included by one source per set, after its vector types.
//
// All of it lies in a namespace of the set's own, and nothing here calls a template of the standard library: a copy
// that the linker shared with another source would run instructions that the processor may not have.
#include "../kernels.h"
#include "../kernels/math.h"
//
#include "../kernels/gemm.h"
//
#include "../kernels/pack.h"
//
#include "../kernels/probe.h"
//
#include "../kernels/attention_tile.h"
//
#include "../kernels/attention_span.h"
//
#include "../kernels/attention_softmax.h"
//
#include "../kernels/attention.h"
//
#include "../kernels/cache.h"
//
#include "../kernels/rows.h"
//
#include "../kernels/sampling.h"

#define HR_TABLE_OF(isa) isa##_kernels
#define HR_TABLE(isa) HR_TABLE_OF(isa)
#define HR_TEXT_OF(isa) #isa
#define HR_TEXT(isa) HR_TEXT_OF(isa)

namespace hr {

extern const Kernels HR_TABLE(HR_ISA) = {
    HR_TEXT(HR_ISA),    HR_ISA::panel_layout, HR_ISA::panel_bytes,    HR_ISA::pack_rows,
    HR_ISA::unpack_row, HR_ISA::pack_x,       HR_ISA::multiply,       HR_ISA::probe_multiply_adds,
    HR_ISA::probe_read, HR_ISA::task_rows,    HR_ISA::span_tokens,    HR_ISA::attend,
    HR_ISA::join,       HR_ISA::cache_write,  HR_ISA::rope_and_write, HR_ISA::norm,
    HR_ISA::activate,   HR_ISA::argmax,       HR_ISA::weighted_sum,   HR_ISA::highest,
    HR_ISA::weigh,      HR_ISA::column_sums,  HR_ISA::collect,        HR_ISA::bucket,
};

}  // namespace hr
