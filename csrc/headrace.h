// The C interface of headrace's CPU kernels: raw pointers and plain integers, so that ctypes can call it and one
// library serves every version of torch. Shapes are in the comments: T tokens, M rows, N outputs, K inputs, H query
// heads, D key size, E value size, S block size. Strides count elements. Nothing here keeps a pointer after it returns.
#ifndef HEADRACE_H
#define HEADRACE_H

#include <stdint.h>

#define HR_API __attribute__((visibility("default")))

#ifdef __cplusplus
extern "C" {
#endif

// Raised whenever a signature or a struct below changes; the Python side refuses another one.
#define HR_ABI 3

enum hr_dtype { HR_F32 = 0, HR_BF16 = 1, HR_INT8 = 2 };
enum hr_activation { HR_IDENTITY = 0, HR_SILU = 1, HR_GELU = 2, HR_GELU_TANH = 3, HR_RELU = 4 };
enum hr_status { HR_OK = 0, HR_UNSUPPORTED = 1, HR_NO_MEMORY = 2 };

// An instruction set and a pool of threads. Calls on one context from several threads at a time are allowed: one of
// them gets the pool, the others run on their own thread.
typedef struct hr_context hr_context;

HR_API int32_t hr_abi(void);
// The instruction sets that this processor runs, best first, separated by commas.
HR_API const char* hr_available(void);
// NULL when this processor or this build does not run `isa`. num_threads counts the calling thread.
HR_API hr_context* hr_open(const char* isa, int32_t num_threads);
HR_API void hr_close(hr_context* context);

// Floating point operations of `rounds` multiply-adds from registers on every thread of the context.
HR_API double hr_probe_flops(hr_context* context, int64_t rounds);
// Reads the bytes once, cut over the threads.
HR_API void hr_probe_read(hr_context* context, const void* p, int64_t bytes);

// ---------------------------------------------------------------------------------------------------------- linear
// A weight [N, K] in panels (see kernels/gemm.h). `gated`: the first N/2 outputs are gates, the others what they gate.
typedef struct {
    void* data;         // hr_packed_bytes(), 64-byte aligned, zeroed before the first hr_pack
    const float* bias;  // [N] or NULL
    int64_t n;
    int64_t k;
    int32_t dtype;  // HR_F32, HR_BF16 or HR_INT8
    int32_t gated;
} hr_matrix;

HR_API int64_t hr_packed_bytes(const hr_context* context, const hr_matrix* matrix);
// Put `rows` rows of w (HR_F32 or HR_BF16, row stride ldw) in the matrix as its rows first_row, first_row + 1, …
// Several tensors make one merged matrix so. HR_INT8 quantizes: per row, symmetric, scale = max |w| / 127.
HR_API int32_t hr_pack(hr_context* context, const hr_matrix* matrix, const void* w, int64_t ldw, int32_t w_dtype,
                       int64_t first_row, int64_t rows);
// The way back, exact for HR_F32 and HR_BF16 (w of the matrix's dtype); HR_UNSUPPORTED for HR_INT8.
HR_API int32_t hr_unpack(hr_context* context, const hr_matrix* matrix, void* w, int64_t ldw, int64_t first_row,
                         int64_t rows);
// Row rows[i] of an HR_F32 or HR_BF16 matrix, bit by bit, to row i of out (the matrix's dtype); HR_UNSUPPORTED for a
// row that it does not have.
HR_API int32_t hr_lookup(hr_context* context, const hr_matrix* matrix, const int64_t* rows, int64_t count, void* out,
                         int64_t out_stride);

// y = activation(x · wᵀ + bias) + residual, or with a gated matrix y = activation(gate) · up + residual, N/2 wide.
// x [M, K]; y and residual [M, N] of y_dtype, residual may be NULL and may be y. HR_INT8 quantizes x per row.
// A row of y depends on its row of x alone, to the bit, whatever M and the number of threads.
HR_API int32_t hr_linear(hr_context* context, const hr_matrix* matrix, const void* x, int64_t ldx, int32_t x_dtype,
                         void* y, int64_t ldy, int32_t y_dtype, const void* residual, int64_t ldr, int64_t m,
                         int32_t activation);

// ------------------------------------------------------------------------------------------------------- attention
// One layer's paged cache of N blocks; a slot is block · S + offset. S is a power of two; D and E are even, at most
// 256.
// keys    [N][KV heads][D][S], of HR_BF16 in pairs of d: [N][KV heads][D/2][S][2]   (a vector of tokens per d)
// values  [N][KV heads][S][E]
// Both need hr_cache_padding() readable bytes behind their end.
typedef struct {
    void* keys;
    void* values;
    int32_t dtype;  // HR_F32 or HR_BF16, of everything that goes in and comes out as well
    int32_t num_kv_heads;
    int32_t key_dim;
    int32_t value_dim;
    int32_t block_size;
} hr_cache;

// Queries of a batch of rows; the tokens of row b are query_start[b] … query_start[b + 1] - 1, the last of its
// context_len[b]. The query at position p sees j ≤ p, j > p - window (if window > 0), j ≥ p / chunk · chunk
// (chunk > 0).
typedef struct {
    const hr_cache* cache;
    const void* query;  // [T, H, D], the last dimension dense
    int64_t query_token_stride;
    int64_t query_head_stride;
    void* out;  // [T, H, E], the last dimension dense
    int64_t out_token_stride;
    int64_t out_head_stride;
    const float* sinks;          // [H] or NULL: a logit per head that joins the denominator
    const int32_t* query_start;  // [B + 1]
    const int32_t* context_len;  // [B]
    const int32_t* block_table;  // [B, block_table_stride]
    int64_t block_table_stride;
    int32_t num_rows;  // B
    int32_t num_heads;
    int32_t window;
    int32_t chunk;
    float scale;
    float softcap;  // scores become softcap · tanh(score / softcap); 0 is none
} hr_attention;

HR_API int64_t hr_cache_padding(void);
// key [T, KV heads, D] and value [T, KV heads, E] to slots[t]; the last dimensions dense.
HR_API int32_t hr_cache_write(hr_context* context, const hr_cache* cache, const void* key, int64_t key_token_stride,
                              int64_t key_head_stride, const void* value, int64_t value_token_stride,
                              int64_t value_head_stride, const int64_t* slots, int64_t num_tokens);
// A query's result depends on its own row's context alone, to the bit, whatever the batch, the cut of the prompt into
// chunks and the number of threads: a context is folded in spans of 256 tokens by position, always in their order.
HR_API int32_t hr_attend(hr_context* context, const hr_attention* attention);

// Between the query/key/value product and attention: normalize query and key heads, rotate both, write key and value.
typedef struct {
    const hr_cache* cache;
    void* query;  // [T, H, D], changed in place; token strides, heads dense
    int64_t query_stride;
    const void* key;  // [T, KV heads, D]
    int64_t key_stride;
    const void* value;  // [T, KV heads, E]
    int64_t value_stride;
    const void* query_norm;  // [D] weights of an RMS norm per head, or NULL
    const void* key_norm;    // [D] or NULL
    const void* cos;         // [T, …]: pair i of token t turns by the angle of cos[t · angle_stride + i · angle_step]
    const void* sin;
    int64_t angle_stride;
    const int64_t* slots;  // [T]
    int64_t num_tokens;
    int32_t num_heads;
    int32_t angle_step;   // 1, or 2 where each angle stands twice in a row
    int32_t rotary_dim;   // leading dims that turn, even; 0 for none
    int32_t interleaved;  // pairs (2i, 2i + 1), else (i, i + rotary_dim / 2)
    float norm_eps;
    float norm_offset;  // added to the norms' weights (gemma: 1)
} hr_rope;

HR_API int32_t hr_rope_and_write(hr_context* context, const hr_rope* rope);

// ------------------------------------------------------------------------------------------------ row by row, [M, n]
// Of HR_F32 or HR_BF16 (weights too), in float within; row strides in elements.

// With residual: residual += x first, and that is normalized. out may be x. `centered` makes it a
// layer norm, else it is an RMS norm.
typedef struct {
    const void* x;
    int64_t x_stride;
    void* residual;
    int64_t residual_stride;
    void* out;
    int64_t out_stride;
    const void* weight;  // [n] or NULL for ones
    const void* bias;    // [n] or NULL for zeros
    int64_t m;
    int64_t n;
    int32_t dtype;
    int32_t centered;  // a layer norm: the mean is taken off first
    float eps;
    float offset;  // added to the weights
} hr_norm_args;

HR_API int32_t hr_norm(hr_context* context, const hr_norm_args* args);
// out [M, n] = activation(gate) · up; up NULL: activation(gate)
HR_API int32_t hr_activate(hr_context* context, const void* gate, int64_t gate_stride, const void* up,
                           int64_t up_stride, void* out, int64_t out_stride, int64_t m, int64_t n, int32_t dtype,
                           int32_t activation);
// The lowest index of the highest value of each row; -1 where a value is NaN or infinite.
HR_API int32_t hr_argmax(hr_context* context, const void* x, int64_t x_stride, int64_t m, int64_t n, int32_t dtype,
                         int64_t* out);

// --------------------------------------------------------------------------------------------------------- experts
// y[t] = Σ over j < k of weights[t, j] · down[e](activation(gate[e](x[t])) · up[e](x[t])), e = index[t, j]. Without
// `gated` inner matrices activation(inner[e](x)) is what goes down. The E matrices of a kind have one shape and dtype.
// A token's result depends on its own row alone, to the bit.
typedef struct {
    const hr_matrix* inner;  // [E]
    const hr_matrix* down;   // [E]
    const void* x;           // [T, …] of dtype, as y
    int64_t x_stride;
    void* y;
    int64_t y_stride;
    const int64_t* index;  // [T, k]
    const float* weights;  // [T, k]
    int64_t num_tokens;
    int64_t num_experts;
    int64_t k;  // at most 64
    int32_t dtype;
    int32_t activation;
} hr_experts_args;

HR_API int32_t hr_experts(hr_context* context, const hr_experts_args* args);

// -------------------------------------------------------------------------------------------------------- programs
// What a decoder layer does to the rows of a step, in one call: from one of these operations to the next Python takes
// longer than the smaller of them do, and the other threads fall asleep meanwhile.
enum hr_op {
    HR_OP_LINEAR = 0,  // y = activation(x · wᵀ + bias) + residual; args: hr_matrix
    HR_OP_NORM = 1,    // columns `column` … of y = norm of these columns of x; args: hr_norm_args
    HR_OP_ROTATE = 2,  // x = [query, key, value] heads: hr_rope_and_write in place; args: hr_rope
    HR_OP_ATTEND = 3,  // y = attention of the queries in x's first columns; args: hr_attention
    HR_OP_ADD = 4,     // y = residual + scale · x
    HR_OP_TAKE = 5,    // y = the rows of x that the step keeps
};

// x, y and residual number the program's values. args is a struct of this file, of which only what no step decides is
// read: not its cache, nor where rows lie and how many they are.
typedef struct {
    int32_t op;
    int32_t x;
    int32_t y;         // may be x but for LINEAR, ATTEND and TAKE
    int32_t residual;  // -1 for none; may be y
    const void* args;
    int64_t column;
    float scale;
    int32_t activation;
    int32_t is_taken;  // its rows are those that TAKE left
} hr_operation;

// Values are rows of `widths[i]` numbers of dtype, dense. The first num_outside of them lie where the caller says; the
// others in memory of the calling thread, which keeps them until it runs another program or more rows.
typedef struct {
    const hr_operation* operations;
    const int64_t* widths;
    int32_t num_operations;
    int32_t num_values;  // at most 16
    int32_t num_outside;
    int32_t dtype;  // HR_F32 or HR_BF16
} hr_program;

// What one layer needs of the step under way; see hr_attention and hr_rope.
typedef struct {
    const hr_cache* cache;
    const void* cos;
    const void* sin;
    int64_t angle_stride;
    const int64_t* slots;
    const int32_t* query_start;
    const int32_t* context_len;
    const int32_t* block_table;
    int64_t block_table_stride;
    int64_t num_tokens;
    const int64_t* kept;  // [num_kept] the rows that TAKE takes
    int64_t num_kept;
    int32_t num_rows;
} hr_step;

// Operations first … end - 1.
HR_API int32_t hr_run(hr_context* context, const hr_program* program, const hr_step* step, void* const* outside,
                      int32_t first, int32_t end);

// -------------------------------------------------------------------------------------------------------- sampling
// Draws of m tokens from rows of logits of n tokens. A draw depends on its own row and settings alone.
typedef struct {
    const void* logits;  // HR_F32 or HR_BF16
    int64_t stride;
    int64_t n;
    int64_t m;
    const int64_t* rows;      // [m] which row of the logits
    const double* uniform;    // [m] in [0, 1)
    const float* sharpness;   // [m] 1 / temperature, above 0
    const int64_t* top_k;     // [m] 1 … n; n keeps all
    const double* top_p;      // [m] 1 keeps all
    const float* min_p;       // [m] of the most likely token's probability; 0 keeps all
    int64_t* out;             // [m] token ids; -1 where the highest logit is not finite
    int32_t dtype;
    int32_t shortlist;  // how many tokens are looked at before the whole row, at most 256
} hr_draw_args;

HR_API int32_t hr_draw(hr_context* context, const hr_draw_args* args);

#ifdef __cplusplus
}
#endif
#endif
