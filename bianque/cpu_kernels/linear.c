/* y = x · Wᵀ for weights in int8, packed int4, fp16 or fp32, on x86 with AVX2, FMA and F16C.
 *
 * Integer weights. Every row of x is cut into blocks of BLOCK values, and each block is rounded to int16 with a scale of
 * its own (largest magnitude / 32767). Products of integers are added in int32, in eight sums; that is exact, and so are
 * sums of two of them, since BLOCK / 4 * 128 * 32767 is below 2^31. The rest is fp32: these sums are added in one order,
 * times the block's scale, to those of the blocks before; the weight's scale, the bias and the residual come last. A row
 * of y therefore depends on its row of x alone, bit for bit, whatever the number of rows and threads.
 *
 * fp16 and fp32 weights. They and x are multiplied in fp32; one vector of eight sums for each block, then as above.
 *
 * Work. Rows of W are handed out in chunks, so that a thread that loses its core for a while holds up one chunk. A strip
 * is a block of STRIP_ROWS rows of W. It is multiplied with all rows of x, two by two. For a few rows of x every pass
 * unpacks it anew in registers; for many it is unpacked once. Every pass asks for its share of the strip that comes next.
 * The rows of a strip are not neighbours: they stand apart by the tile's spread, and each goes on where the same row of
 * the tile's strip before it ended. So few streams run through memory for long, which the processor recognises and fetches
 * ahead; in streams of a page each, or several in one page, it reads a fifth slower. For many rows of x, whose block then
 * stays in the cache, the strips of a tile take turns block by block instead.
 *
 * Order of columns. Unpacking is cheapest when columns of a group come out permuted; x is stored in the same order.
 */
#include <immintrin.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>

#include "operations.h"
#include "pool.h"

enum { BLOCK = 1024, GROUP = 64, LANES = 16, LINE = 64, STRIP_ROWS = 4, MANY_ROWS = 16 };
enum { STREAM = 65536, MAX_SPREAD = 32, MANY_SPREAD = 8 };

/* What is packed and multiplied, see `Pack` and `Multiply`. */
typedef struct {
    const float *x;
    const uint8_t *weight;   /* (out, row_bytes) */
    const uint16_t *scale;
    const float *bias, *residual;
    float *y, residual_scale;
    int64_t rows, in, out, row_bytes, blocks, width, bits;
    uint8_t *packed;         /* blocks × rows × width int16 (or fp32): x in the order of the unpacked weights */
    float *x_scale;          /* blocks × rows, behind it */
    atomic_int failed;
} Job;

/* Columns that a block has room for. */
static int64_t width_of(int64_t in) { return in < BLOCK ? (in + GROUP - 1) / GROUP * GROUP : BLOCK; }

static int64_t values_bytes(int64_t rows, int64_t in, int64_t bits) {
    return (in + BLOCK - 1) / BLOCK * rows * width_of(in) * (bits >= 16 ? sizeof(float) : sizeof(int16_t));
}

int64_t bianque_packed_bytes(int64_t rows, int64_t in, int64_t bits) {
    return values_bytes(rows, in, bits) + ((in + BLOCK - 1) / BLOCK * rows * sizeof(float) + 63) / 64 * 64;
}

/* Set what packing and multiplying share. */
static void describe(Job *job, void *packed, int64_t rows, int64_t in, int64_t bits) {
    job->rows = rows;
    job->in = in;
    job->bits = bits;
    job->row_bytes = in * bits / 8;
    job->blocks = (in + BLOCK - 1) / BLOCK;
    job->width = width_of(in);
    job->packed = packed;
    job->x_scale = (float *)(job->packed + values_bytes(rows, in, bits));
}

/* --- x ------------------------------------------------------------------------------------------------------------
 *
 * Rows are stored two by two, the last one alone if their number is odd: within a block, LANES values of one row, LANES
 * of the other, and so on. Loads then run through memory in order; rows side by side at a power of two would fall into
 * the same banks of the cache. */

static inline int64_t columns_at(const Job *job, int64_t row) { return (row | 1) < job->rows ? 2 : 1; }

/* Where x's block `block` of the pair with the even row `row` begins, in values. */
static inline int64_t packed_at(const Job *job, int64_t block, int64_t row) {
    return (block * job->rows + row) * job->width;
}

static float largest_magnitude(const float *x, int64_t count, float *poison) {
    __m256 largest = _mm256_setzero_ps(), poisons = largest, sign = _mm256_set1_ps(-0.0f);
    int64_t i = 0;
    for (; i + 8 <= count; i += 8) {
        __m256 values = _mm256_loadu_ps(x + i);
        largest = _mm256_max_ps(_mm256_andnot_ps(sign, values), largest);
        poisons = _mm256_fmadd_ps(values, _mm256_setzero_ps(), poisons);
    }
    float lanes[8], poison_lanes[8];
    _mm256_storeu_ps(lanes, largest);
    _mm256_storeu_ps(poison_lanes, poisons);
    float result = 0;
    *poison = 0;
    for (int j = 0; j < 8; j++) {
        result = lanes[j] > result ? lanes[j] : result;
        *poison += poison_lanes[j];
    }
    for (; i < count; i++) {
        float magnitude = x[i] < 0 ? -x[i] : x[i];
        result = magnitude > result ? magnitude : result;
        *poison += x[i] * 0;
    }
    return result;
}

/* Round a block of one row; groups of LANES go to `packed`, `stride` values apart. */
static void pack_block(const float *x, int64_t count, int64_t bits, int64_t stride, int16_t *packed, float *scale) {
    float poison, largest = largest_magnitude(x, count, &poison);
    /* NaN or infinity in x makes the whole row of y NaN. Next to nothing counts as nothing: its inverse overflows. */
    int is_empty = largest < 1e-30f || poison != 0;
    *scale = is_empty ? poison : largest / 32767;
    __m256 factor = _mm256_set1_ps(is_empty ? 0 : 32767 / largest);
    for (int64_t start = 0; start < count; start += GROUP) {
        float rest[GROUP] = {0};
        const float *group = x + start;
        if (count - start < GROUP) {
            memcpy(rest, group, (count - start) * sizeof *rest);
            group = rest;
        }
        int32_t rounded[GROUP];
        for (int i = 0; i < GROUP; i += 8)
            _mm256_storeu_si256((__m256i *)(rounded + i),
                                _mm256_cvtps_epi32(_mm256_mul_ps(_mm256_loadu_ps(group + i), factor)));
        int16_t *to = packed + start / LANES * stride;
        for (int part = 0; part < GROUP / LANES; part++)
            for (int i = 0; i < LANES; i++)
                /* A 16-bit word of packed int4 holds columns 4i + 2, 4i + 3, 4i, 4i + 1 from its highest nibble down. */
                to[part * stride + i] = (int16_t)rounded[bits == 8 ? part * LANES + i : 4 * i + (part ^ 2)];
    }
}

static void pack_float_block(const float *x, int64_t count, int64_t stride, float *packed) {
    for (int64_t start = 0; start < count; start += GROUP)
        for (int i = 0; i < GROUP; i++)
            packed[(start + i) / 8 * stride + i % 8] = start + i < count ? x[start + i] : 0;
}

static void pack_rows(void *context, int64_t first, int64_t last) {
    Job *job = context;
    for (int64_t row = first; row < last; row++)
        for (int64_t block = 0; block < job->blocks; block++) {
            int64_t count = job->in - block * BLOCK < BLOCK ? job->in - block * BLOCK : BLOCK;
            const float *x = job->x + row * job->in + block * BLOCK;
            int64_t columns = columns_at(job, row), to = packed_at(job, block, row & ~1LL);
            if (job->bits >= 16)
                pack_float_block(x, count, 8 * columns, (float *)job->packed + to + (row & 1) * 8);
            else
                pack_block(x, count, job->bits, LANES * columns, (int16_t *)job->packed + to + (row & 1) * LANES,
                           job->x_scale + block * job->rows + row);
        }
}

/* --- products of a block of four rows of W and one or two rows of x -------------------------------------------------- */

typedef struct {
    const uint8_t *weight;  /* of the first row */
    int64_t row_bytes;
    int64_t count;          /* of columns, a multiple of GROUP */
    int64_t ahead;          /* from a byte to the one in its place in the block that comes next */
    int64_t begin, end;     /* of what this pass asks for, in bytes of a row */
} Strip;

#define INLINE inline __attribute__((always_inline)) void
/* Functions of their own: put into their caller, their sums no longer fit the registers, at a third of the speed. */
#define ALONE static __attribute__((noinline)) void

/* Keep a vector that is used more than once in a register: compilers would load it again for every use. */
#define KEEP(vector) __asm__("" : "+x"(vector))
/* sum += product, in its register: compilers add into another one and move that back. */
#define ADD(sum, product) __asm__("vpaddd %1, %0, %0" : "+x"(sum) : "x"(product))

/* Inlined by force: a function that only prefetches has no effect that a compiler sees, and calls of it are dropped. */
static INLINE prefetch_rows(const Strip *strip, int64_t offset) {
    if (offset < strip->begin || offset >= strip->end) return;
    for (int r = 0; r < STRIP_ROWS; r++)
        _mm_prefetch((const char *)strip->weight + r * strip->row_bytes + offset + strip->ahead, _MM_HINT_T0);
}

static INLINE add_integers(__m256i a, __m256i b, __m256i c, __m256i d, float scale, float *total) {
    __m256 ab = _mm256_cvtepi32_ps(_mm256_hadd_epi32(a, b)), cd = _mm256_cvtepi32_ps(_mm256_hadd_epi32(c, d));
    __m256 halves = _mm256_hadd_ps(ab, cd);
    __m128 sum = _mm_add_ps(_mm256_castps256_ps128(halves), _mm256_extractf128_ps(halves, 1));
    _mm_storeu_ps(total, _mm_fmadd_ps(sum, _mm_set1_ps(scale), _mm_loadu_ps(total)));
}

static INLINE add_floats(__m256 a, __m256 b, __m256 c, __m256 d, float *total) {
    __m256 halves = _mm256_hadd_ps(_mm256_hadd_ps(a, b), _mm256_hadd_ps(c, d));
    __m128 sum = _mm_add_ps(_mm256_castps256_ps128(halves), _mm256_extractf128_ps(halves, 1));
    _mm_storeu_ps(total, _mm_add_ps(_mm_loadu_ps(total), sum));
}

/* `columns`, 1 or 2 rows of x, is known when this is compiled. */
static INLINE multiply_int8(const Strip *strip, const int16_t *x, int columns, const float *scale, float *total) {
    __m256i a0 = {0}, a1 = {0}, a2 = {0}, a3 = {0}, b0 = {0}, b1 = {0}, b2 = {0}, b3 = {0};
    for (int64_t start = 0; start < strip->count; start += GROUP) {
        const uint8_t *weight = strip->weight + start;
        prefetch_rows(strip, start);
        for (int part = 0; part < GROUP / LANES; part++, weight += LANES, x += columns * LANES) {
            __m256i a = _mm256_load_si256((const __m256i *)x), b = a;
            KEEP(a);
            if (columns == 2) {
                b = _mm256_load_si256((const __m256i *)x + 1);
                KEEP(b);
            }
#define STEP(r) { \
            __m256i factor = _mm256_cvtepi8_epi16(_mm_loadu_si128((const __m128i *)(weight + r * strip->row_bytes))); \
            KEEP(factor); \
            ADD(a##r, _mm256_madd_epi16(factor, a)); \
            if (columns == 2) ADD(b##r, _mm256_madd_epi16(factor, b)); }
            STEP(0) STEP(1) STEP(2) STEP(3)
#undef STEP
        }
    }
    add_integers(a0, a1, a2, a3, scale[0], total);
    if (columns == 2) add_integers(b0, b1, b2, b3, scale[1], total + STRIP_ROWS);
}

static INLINE multiply_int4(const Strip *strip, const int16_t *x, int columns, const float *scale, float *total) {
    __m256i a0 = {0}, a1 = {0}, a2 = {0}, a3 = {0}, b0 = {0}, b1 = {0}, b2 = {0}, b3 = {0};
    for (int64_t start = 0; start < strip->count; start += GROUP, x += columns * GROUP) {
        const uint8_t *weight = strip->weight + start / 2;
        const __m256i *value = (const __m256i *)x;
        if (start % (2 * GROUP) == 0) prefetch_rows(strip, start / 2);
#define PART(r, part, nibbles) { \
            __m256i factor = _mm256_srai_epi16(nibbles, 12); \
            KEEP(factor); \
            ADD(a##r, _mm256_madd_epi16(factor, _mm256_load_si256(value + part * columns))); \
            if (columns == 2) ADD(b##r, _mm256_madd_epi16(factor, _mm256_load_si256(value + part * columns + 1))); }
#define STEP(r) { \
            __m256i words = _mm256_loadu_si256((const __m256i *)(weight + r * strip->row_bytes)); \
            PART(r, 0, words) \
            PART(r, 1, _mm256_slli_epi16(words, 4)) \
            PART(r, 2, _mm256_slli_epi16(words, 8)) \
            PART(r, 3, _mm256_slli_epi16(words, 12)) }
        STEP(0) STEP(1) STEP(2) STEP(3)
#undef STEP
#undef PART
    }
    add_integers(a0, a1, a2, a3, scale[0], total);
    if (columns == 2) add_integers(b0, b1, b2, b3, scale[1], total + STRIP_ROWS);
}

static INLINE multiply_floats(const Strip *strip, const float *x, int columns, int is_half, float *total) {
    __m256 a0 = {0}, a1 = {0}, a2 = {0}, a3 = {0}, b0 = {0}, b1 = {0}, b2 = {0}, b3 = {0};
    int64_t bytes = is_half ? 2 : 4;
    for (int64_t start = 0; start < strip->count; start += LINE / bytes) {
        const uint8_t *weight = strip->weight + bytes * start;
        prefetch_rows(strip, bytes * start);
        for (int i = 0; i < LINE / bytes; i += 8, weight += 8 * bytes, x += columns * 8) {
            __m256 a = _mm256_load_ps(x), b = a;
            KEEP(a);
            if (columns == 2) {
                b = _mm256_load_ps(x + 8);
                KEEP(b);
            }
#define STEP(r) { \
            const void *at = weight + r * strip->row_bytes; \
            __m256 factor = is_half ? _mm256_cvtph_ps(_mm_loadu_si128(at)) : _mm256_loadu_ps(at); \
            KEEP(factor); \
            a##r = _mm256_fmadd_ps(factor, a, a##r); \
            if (columns == 2) b##r = _mm256_fmadd_ps(factor, b, b##r); }
            STEP(0) STEP(1) STEP(2) STEP(3)
#undef STEP
        }
    }
    add_floats(a0, a1, a2, a3, total);
    if (columns == 2) add_floats(b0, b1, b2, b3, total + STRIP_ROWS);
}

/* Unpack a strip: LANES of its first row, LANES of the next, and so on, in the order of x's columns. */
static void unpack(const Strip *strip, int64_t bits, __m256i *unpacked) {
    for (int64_t start = 0; start < strip->count; start += GROUP)
        for (int part = 0; part < GROUP / LANES; part++)
            for (int r = 0; r < STRIP_ROWS; r++) {
                const uint8_t *weight = strip->weight + r * strip->row_bytes + start * bits / 8;
                *unpacked++ = bits == 8
                    ? _mm256_cvtepi8_epi16(_mm_loadu_si128((const __m128i *)(weight + part * LANES)))
                    : _mm256_srai_epi16(_mm256_slli_epi16(_mm256_loadu_si256((const __m256i *)weight), 4 * part), 12);
            }
}

static INLINE multiply_unpacked(const __m256i *weight, int64_t count, const int16_t *x, int columns,
                                const float *scale, float *total) {
    __m256i a0 = {0}, a1 = {0}, a2 = {0}, a3 = {0}, b0 = {0}, b1 = {0}, b2 = {0}, b3 = {0};
    for (int64_t start = 0; start < count; start += LANES, weight += STRIP_ROWS, x += columns * LANES) {
        __m256i a = _mm256_load_si256((const __m256i *)x), b = a;
        KEEP(a);
        if (columns == 2) {
            b = _mm256_load_si256((const __m256i *)x + 1);
            KEEP(b);
        }
#define STEP(r) { \
        __m256i factor = _mm256_load_si256(weight + r); \
        KEEP(factor); \
        ADD(a##r, _mm256_madd_epi16(factor, a)); \
        if (columns == 2) ADD(b##r, _mm256_madd_epi16(factor, b)); }
        STEP(0) STEP(1) STEP(2) STEP(3)
#undef STEP
    }
    add_integers(a0, a1, a2, a3, scale[0], total);
    if (columns == 2) add_integers(b0, b1, b2, b3, scale[1], total + STRIP_ROWS);
}

ALONE multiply_unpacked_pair(const __m256i *weight, int64_t count, const int16_t *x, const float *scale, float *total) {
    multiply_unpacked(weight, count, x, 2, scale, total);
}

ALONE multiply_unpacked_one(const __m256i *weight, int64_t count, const int16_t *x, const float *scale, float *total) {
    multiply_unpacked(weight, count, x, 1, scale, total);
}

ALONE multiply_int8_pair(const Strip *strip, const int16_t *x, const float *scale, float *total) {
    multiply_int8(strip, x, 2, scale, total);
}

ALONE multiply_int8_one(const Strip *strip, const int16_t *x, const float *scale, float *total) {
    multiply_int8(strip, x, 1, scale, total);
}

ALONE multiply_int4_pair(const Strip *strip, const int16_t *x, const float *scale, float *total) {
    multiply_int4(strip, x, 2, scale, total);
}

ALONE multiply_int4_one(const Strip *strip, const int16_t *x, const float *scale, float *total) {
    multiply_int4(strip, x, 1, scale, total);
}

ALONE multiply_half_pair(const Strip *strip, const float *x, float *total) { multiply_floats(strip, x, 2, 1, total); }

ALONE multiply_half_one(const Strip *strip, const float *x, float *total) { multiply_floats(strip, x, 1, 1, total); }

ALONE multiply_float_pair(const Strip *strip, const float *x, float *total) { multiply_floats(strip, x, 2, 0, total); }

ALONE multiply_float_one(const Strip *strip, const float *x, float *total) { multiply_floats(strip, x, 1, 0, total); }

/* --- one chunk ----------------------------------------------------------------------------------------------------- */

/* Add the products of a strip and all rows of x to `totals`, (rows, STRIP_ROWS). */
static void multiply_strip(const Job *job, Strip *strip, int64_t block, float *totals) {
    int64_t strip_bytes = strip->count * job->bits / 8;
    int is_unpacked = job->rows > MANY_ROWS && job->bits <= 8;
    __m256i unpacked[BLOCK / LANES * STRIP_ROWS];
    if (is_unpacked) unpack(strip, job->bits, unpacked);
    strip->end = 0;
    for (int64_t row = 0; row < job->rows; row += 2) {
        int64_t from = packed_at(job, block, row);
        const float *scale = job->x_scale + block * job->rows + row;
        float *total = totals + row * STRIP_ROWS;
        int is_pair = columns_at(job, row) == 2;
        strip->begin = strip->end;
        strip->end = (row + 2) * strip_bytes / job->rows / LINE * LINE;
        if (is_unpacked) {
            for (int64_t offset = strip->begin; offset < strip->end; offset += LINE) prefetch_rows(strip, offset);
            (is_pair ? multiply_unpacked_pair : multiply_unpacked_one)(unpacked, strip->count,
                                                                       (int16_t *)job->packed + from, scale, total);
        } else if (job->bits == 32)
            (is_pair ? multiply_float_pair : multiply_float_one)(strip, (float *)job->packed + from, total);
        else if (job->bits == 16)
            (is_pair ? multiply_half_pair : multiply_half_one)(strip, (float *)job->packed + from, total);
        else if (job->bits == 8)
            (is_pair ? multiply_int8_pair : multiply_int8_one)(strip, (int16_t *)job->packed + from, scale, total);
        else
            (is_pair ? multiply_int4_pair : multiply_int4_one)(strip, (int16_t *)job->packed + from, scale, total);
    }
}

/* By how many rows of W the rows of a strip are apart; as many strips make a tile. */
static int64_t spread_of(const Job *job) {
    if (job->rows > MANY_ROWS) return MANY_SPREAD;
    int64_t rows_of_a_stream = (STREAM + job->row_bytes - 1) / job->row_bytes;
    return rows_of_a_stream < MAX_SPREAD ? rows_of_a_stream : MAX_SPREAD;
}

/* Multiply a block of the strip whose first row is `first` + `at`, in the tile that begins with the row `first`. */
static void multiply_block(const Job *job, int64_t first, int64_t spread, int64_t at, int64_t block, float *totals) {
    int64_t count = job->in - block * BLOCK < BLOCK ? job->in - block * BLOCK : BLOCK;
    int64_t rows = (job->out - first - at + spread - 1) / spread, block_bytes = BLOCK * job->bits / 8;
    int64_t next_at = at, next_block = block;
    if (job->rows > MANY_ROWS) {
        next_at = (at + 1) % spread;
        next_block = (block + !next_at) % job->blocks;
    } else {
        next_block = (block + 1) % job->blocks;
        next_at = (at + !next_block) % spread;
    }
    if (!next_at && !next_block) next_at = STRIP_ROWS * spread;
    Strip strip = {.weight = job->weight + (first + at) * job->row_bytes + block * block_bytes,
                   .row_bytes = spread * job->row_bytes, .count = (count + GROUP - 1) / GROUP * GROUP,
                   .ahead = (next_at - at) * job->row_bytes + (next_block - block) * block_bytes};
    uint8_t padded[STRIP_ROWS * BLOCK * sizeof(float)];
    if (count < strip.count || rows < STRIP_ROWS) {  /* what is missing counts as zero */
        memset(padded, 0, sizeof padded);
        for (int64_t r = 0; r < rows && r < STRIP_ROWS; r++)
            memcpy(padded + r * block_bytes, strip.weight + r * strip.row_bytes, count * job->bits / 8);
        strip.weight = padded;
        strip.row_bytes = block_bytes;
    }
    multiply_strip(job, &strip, block, totals);
}

/* Write a tile of y: `totals` is (spread, rows, STRIP_ROWS), and its last index goes in steps of `spread` through W. */
static void finish_tile(const Job *job, int64_t first, int64_t spread, const float *totals) {
    float scale[STRIP_ROWS * MAX_SPREAD], bias[STRIP_ROWS * MAX_SPREAD];
    int64_t tile = STRIP_ROWS * spread < job->out - first ? STRIP_ROWS * spread : job->out - first;
    __m128 factor = _mm_set1_ps(job->residual_scale);
    for (int64_t r = 0; r < tile; r++) {
        scale[r] = job->bits >= 16 ? 1 : _cvtsh_ss(job->scale[first + r]);
        bias[r] = job->bias ? job->bias[first + r] : 0;
    }
    for (int64_t row = 0; row < job->rows; row++) {
        float *y = job->y + row * job->out + first;
        const float *residual = job->residual ? job->residual + row * job->out + first : NULL;
        const float *total = totals + row * STRIP_ROWS;
        if (tile == STRIP_ROWS * spread && spread % 4 == 0) {
            for (int64_t at = 0; at < spread; at += 4) {
                __m128 lane[STRIP_ROWS];
                for (int i = 0; i < 4; i++) lane[i] = _mm_loadu_ps(total + (at + i) * job->rows * STRIP_ROWS);
                _MM_TRANSPOSE4_PS(lane[0], lane[1], lane[2], lane[3]);
                for (int64_t i = 0, r = at; i < STRIP_ROWS; i++, r += spread) {
                    __m128 sum = _mm_add_ps(_mm_mul_ps(lane[i], _mm_loadu_ps(scale + r)), _mm_loadu_ps(bias + r));
                    if (residual) sum = _mm_add_ps(sum, _mm_mul_ps(_mm_loadu_ps(residual + r), factor));
                    _mm_storeu_ps(y + r, sum);
                }
            }
        } else {
            for (int64_t r = 0; r < tile; r++) {
                float sum = total[r % spread * job->rows * STRIP_ROWS + r / spread] * scale[r] + bias[r];
                y[r] = residual ? sum + residual[r] * job->residual_scale : sum;
            }
        }
    }
}

static void multiply_rows(void *context, int64_t first, int64_t last) {
    Job *job = context;
    int64_t spread = spread_of(job), strip_totals = STRIP_ROWS * job->rows;
    size_t bytes = spread * strip_totals * sizeof(float);
    float *totals = aligned_alloc(64, (bytes + 63) / 64 * 64);
    if (!totals) {
        atomic_store(&job->failed, 1);
        return;
    }
    for (; first < last; first += STRIP_ROWS * spread) {
        int64_t strips = spread < job->out - first ? spread : job->out - first;
        memset(totals, 0, bytes);
        if (job->rows > MANY_ROWS) {
            for (int64_t block = 0; block < job->blocks; block++)
                for (int64_t at = 0; at < strips; at++)
                    multiply_block(job, first, spread, at, block, totals + at * strip_totals);
        } else {
            for (int64_t at = 0; at < strips; at++)
                for (int64_t block = 0; block < job->blocks; block++)
                    multiply_block(job, first, spread, at, block, totals + at * strip_totals);
        }
        finish_tile(job, first, spread, totals);
    }
    free(totals);
}

/* --- entries ------------------------------------------------------------------------------------------------------- */

int bianque_pack(const Pack *pack, int64_t rows, int threads) {
    Job job = {.x = pack->x};
    describe(&job, pack->packed, rows, pack->in, pack->bits);
    bianque_share(&job, pack_rows, rows, 8, rows * job.in > 1 << 17 ? threads : 1);
    return 0;
}

int bianque_multiply(const Multiply *multiply, int64_t rows, int threads) {
    if (rows == 0 || multiply->out == 0) return 0;
    Job job = {.weight = multiply->weight, .scale = multiply->scale, .bias = multiply->bias,
               .residual = multiply->residual, .residual_scale = multiply->residual_scale, .y = multiply->y,
               .out = multiply->out};
    describe(&job, multiply->packed, rows, multiply->in, multiply->bits);
    int64_t tile = STRIP_ROWS * spread_of(&job);
    int64_t chunk = ((1 << 17) / (job.row_bytes + 1) / tile + 1) * tile;
    bianque_share(&job, multiply_rows, job.out, rows > MANY_ROWS ? tile : chunk, threads);
    return atomic_load(&job.failed);
}

int bianque_linear(const Pack *pack, const Multiply *multiply, int64_t rows, int threads) {
    Pack packing = *pack;
    Multiply multiplying = *multiply;
    packing.packed = multiplying.packed = aligned_alloc(64, bianque_packed_bytes(rows, pack->in, pack->bits) + 64);
    if (!packing.packed) return 1;
    bianque_pack(&packing, rows, threads);
    int failed = bianque_multiply(&multiplying, rows, threads);
    free(packing.packed);
    return failed;
}
