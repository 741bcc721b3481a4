/* The operations that a program is made of, and their arguments; `program.py` has the same structures.
 *
 * An operation takes the first `rows` rows of its arrays, which are contiguous, and up to `threads` threads. It returns 0,
 * or 1 if memory ran out. A row of its result depends on nothing but the same row of its input, bit for bit.
 */
#ifndef BIANQUE_OPERATIONS_H
#define BIANQUE_OPERATIONS_H

#include <stdint.h>

/* Rows in the form in which they are multiplied; bits are those of the weights that will be. */
typedef struct {
    const float *x;         /* (rows, in) */
    void *packed;           /* bianque_packed_bytes(rows, in, bits), at a multiple of 64 */
    int64_t in, bits;
} Pack;

/* y = x · Wᵀ · scale + bias + residual · residual_scale. */
typedef struct {
    void *packed;           /* x */
    const void *weight;     /* (out, in): int8, packed int4, fp16 or fp32 */
    const uint16_t *scale;  /* (out) fp16; not looked at for float weights */
    const float *bias;      /* (out) or NULL */
    const float *residual;  /* (rows, out), may be y; or NULL */
    float *y;               /* (rows, out) */
    int64_t in, out, bits;  /* bits: 8, 4, 16 or 32 */
    float residual_scale;
} Multiply;

/* LayerNorm, or without bias RMSNorm, which leaves the mean where it is. */
typedef struct {
    const float *x, *weight, *bias;
    float *y;               /* (rows, size), may be x */
    int64_t size;           /* a multiple of 8 */
    float epsilon;
} Norm;

/* y = gelu(x) · gate, with the approximation by tanh. */
typedef struct {
    const float *x, *gate;  /* gate: (rows, size) or NULL for 1 */
    float *y;               /* (rows, size), may be x */
    int64_t size;           /* a multiple of 8 */
} Gelu;

/* Turn query and key of every head in place: the first half of a head by the first position, the second by the other. */
typedef struct {
    float *mixed;              /* (rows, heads, 3, size): query, key, value */
    const int64_t *positions;  /* (rows, 2) */
    const float *table;        /* (positions, 3, size / 4): cos, -sin, sin */
    int64_t heads, size;
} Rotate;

/* Store the new keys and values of each row in its slot, unless `key` is NULL, and attend to what the slot then holds. */
typedef struct {
    const float *query, *key, *value;
    int64_t strides[6];        /* of a row and of a head of query, key and value, in values */
    float *keys, *values;      /* (slots, heads, places, size) */
    const int64_t *slots;      /* of each row */
    const int64_t *lengths;    /* places each row looks at, the new one included */
    const float *bias;         /* (heads, bias_len), added to the scores; a row takes the last of it; or NULL */
    float *y;                  /* (rows, heads, size) */
    int64_t bias_len, heads, places, size;  /* size: a multiple of 8 */
    float scale;
} Attend;

enum { MAX_LARGEST = 512 };

/* The `count` largest values of each row, largest first and of equals the first ones first, with their places. Where
 * fewer are above minus infinity, that and the place `size` take the rest. NaN is passed over. */
typedef struct {
    const float *x;         /* (rows, size) */
    const float *raw;       /* (rows, size), may be x: what is summed */
    float *values;          /* (rows, count) */
    int64_t *ids;           /* (rows, count) */
    float *sums;            /* (rows): finite if all of raw is */
    int64_t size, count;    /* count: at most MAX_LARGEST and size */
} Largest;

/* Add the low digits of a weight to the product of its high ones with the same rows, where they matter.
 *
 * A weight of two digits is (high + low / 256) · scale, and y comes as x · highᵀ · scale. Afterwards the `counts` largest
 * values of a row, and all that tie with the last of them, are x · (high + low / 256)ᵀ · scale; every other value is so
 * too or left as it was, and then below all of them either way. Such a product is bit for bit the same whatever else is
 * computed. Rows of y that are NaN stay so. */
typedef struct {
    const float *x;         /* (rows, in) */
    const int8_t *low;      /* (out, in) */
    const uint16_t *scale;  /* (out) fp16 */
    const float *bound;     /* (out), times the norm of x at least as large as what can be added */
    const int64_t *counts;  /* of each row; everything is computed for 0, and for more than MAX_LARGEST */
    float *y;               /* (rows, out) */
    int64_t in, out;
} Refine;

int64_t bianque_packed_bytes(int64_t rows, int64_t in, int64_t bits);
int bianque_pack(const Pack *pack, int64_t rows, int threads);
int bianque_multiply(const Multiply *multiply, int64_t rows, int threads);
/* Both of these, in memory of its own: `packed` is not looked at. */
int bianque_linear(const Pack *pack, const Multiply *multiply, int64_t rows, int threads);
int bianque_norm(const Norm *norm, int64_t rows, int threads);
int bianque_gelu(const Gelu *gelu, int64_t rows, int threads);
int bianque_rotate(const Rotate *rotate, int64_t rows, int threads);
int bianque_attend(const Attend *attend, int64_t rows, int threads);
int bianque_largest(const Largest *largest, int64_t rows, int threads);
int bianque_refine(const Refine *refine, int64_t rows, int threads);

#endif
