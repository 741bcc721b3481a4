/* y = x · Wᵀ for weights in int8, packed int4 or fp16, on x86 with AVX2, FMA and F16C.
 *
 * Integer weights. Every row of x is cut into blocks of BLOCK values, and each block is rounded to int16 with a scale of
 * its own (largest magnitude / 32767). Products of integers are added in int32, which is exact: BLOCK * 128 * 32767 is
 * below 2^31. The block's sum, times its scale, is added to a float, block after block; the weight's scale and the bias
 * come last. A float is therefore added to in the same order whatever the number of rows and threads, so that a row of y
 * depends on its row of x alone, bit for bit.
 *
 * fp16 weights. They and x are multiplied in fp32; one vector of eight sums for each block, then as above.
 *
 * Work. Rows of W are handed out in chunks, so that a thread that loses its core for a while holds up one chunk. A chunk
 * takes TILE rows of W at a time: a block of them is unpacked to int16 (or fp32) into scratch memory that stays in the
 * cache, and multiplied with all rows of x, four by two in registers. For a single row of x, where each weight is used
 * once, SINGLE_TILE rows of W are unpacked and multiplied in registers as they come from memory.
 *
 * Order of columns. Unpacking is cheapest when columns of a group come out permuted; x is stored in the same order.
 *
 * Threads. Helpers sleep on a condition variable and are never waited for unless they are inside a chunk. Waits spin for
 * SPIN_NANOSECONDS at most. A second caller at the same time works alone on its own thread.
 */
#include <immintrin.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

enum { BLOCK = 512, GROUP = 64, LANES = 16, SINGLE_TILE = 4, TILE = 8, WIDE_TILE = 32, MANY_ROWS = 16 };
enum { MAX_HELPERS = 255 };
enum { SPIN_NANOSECONDS = 50000 };

typedef struct {
    const float *x;          /* (rows, in) */
    const uint8_t *weight;   /* (out, row_bytes) */
    const uint16_t *scale;   /* (out) fp16; unused for fp16 weights */
    const float *bias;       /* (out) or NULL */
    float *y;                /* (rows, out) */
    int64_t rows, in, out, row_bytes, blocks;
    int bits;
    uint8_t *packed;         /* blocks × rows × BLOCK int16 (or fp32): x in the order of the unpacked weights */
    float *x_scale;          /* blocks × rows */
    int64_t chunk;           /* rows of W, or of x while packing, taken at once */
    int64_t total;
    atomic_llong next;
    atomic_int failed;
} Job;

/* --- x ------------------------------------------------------------------------------------------------------------
 *
 * Rows are stored two by two, the last one alone if their number is odd: within a block, LANES values of one row, LANES
 * of the other, and so on. W's scratch does the same with four rows. Loads then run through memory in order; rows side
 * by side at a power of two would fall into the same banks of the cache. */

static inline int64_t columns_at(const Job *job, int64_t row) { return (row | 1) < job->rows ? 2 : 1; }

/* Where x's block `block` of the pair with the even row `row` begins, in values. */
static inline int64_t packed_at(const Job *job, int64_t block, int64_t row) {
    return (block * job->rows + row) * BLOCK;
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
static void pack_block(const float *x, int64_t count, int bits, int64_t stride, int16_t *packed, float *scale) {
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

static void pack_half_block(const float *x, int64_t count, int64_t stride, float *packed) {
    for (int64_t start = 0; start < count; start += GROUP)
        for (int i = 0; i < GROUP; i++)
            packed[(start + i) / 8 * stride + i % 8] = start + i < count ? x[start + i] : 0;
}

static void pack_rows(Job *job, int64_t first, int64_t last) {
    for (int64_t row = first; row < last; row++)
        for (int64_t block = 0; block < job->blocks; block++) {
            int64_t count = job->in - block * BLOCK < BLOCK ? job->in - block * BLOCK : BLOCK;
            const float *x = job->x + row * job->in + block * BLOCK;
            int64_t columns = columns_at(job, row), to = packed_at(job, block, row & ~1LL);
            if (job->bits == 16)
                pack_half_block(x, count, 8 * columns, (float *)job->packed + to + (row & 1) * 8);
            else
                pack_block(x, count, job->bits, LANES * columns, (int16_t *)job->packed + to + (row & 1) * LANES,
                           job->x_scale + block * job->rows + row);
        }
}

/* --- W ------------------------------------------------------------------------------------------------------------ */

static inline void unpack_group(const uint8_t *weight, int bits, int16_t *unpacked) {
    __m256i *to = (__m256i *)unpacked;
    if (bits == 8) {
        for (int part = 0; part < GROUP / LANES; part++)
            _mm256_store_si256(to + 4 * part,
                               _mm256_cvtepi8_epi16(_mm_loadu_si128((const __m128i *)(weight + part * LANES))));
        return;
    }
    __m256i words = _mm256_loadu_si256((const __m256i *)weight);
    _mm256_store_si256(to, _mm256_srai_epi16(words, 12));
    _mm256_store_si256(to + 4, _mm256_srai_epi16(_mm256_slli_epi16(words, 4), 12));
    _mm256_store_si256(to + 8, _mm256_srai_epi16(_mm256_slli_epi16(words, 8), 12));
    _mm256_store_si256(to + 12, _mm256_srai_epi16(_mm256_slli_epi16(words, 12), 12));
}

static void unpack_row(const uint8_t *weight, int64_t count, int bits, int16_t *unpacked) {
    int64_t start = 0;
    for (; start + GROUP <= count; start += GROUP) {
        _mm_prefetch((const char *)weight + (start + BLOCK) * bits / 8, _MM_HINT_T0);
        unpack_group(weight + start * bits / 8, bits, unpacked + 4 * start);
    }
    if (start < count) {
        uint8_t rest[GROUP] = {0};
        memcpy(rest, weight + start * bits / 8, (count - start) * bits / 8);
        unpack_group(rest, bits, unpacked + 4 * start);
    }
}

static void unpack_half_row(const uint16_t *weight, int64_t count, float *unpacked) {
    for (int64_t start = 0; start < count; start += GROUP) {
        uint16_t rest[GROUP] = {0};
        const uint16_t *group = weight + start;
        _mm_prefetch((const char *)(group + BLOCK), _MM_HINT_T0);
        _mm_prefetch((const char *)(group + BLOCK) + 64, _MM_HINT_T0);
        if (count - start < GROUP) {
            memcpy(rest, group, (count - start) * sizeof *rest);
            group = rest;
        }
        for (int i = 0; i < GROUP; i += 8)
            _mm256_store_ps(unpacked + 4 * (start + i), _mm256_cvtph_ps(_mm_loadu_si128((const __m128i *)(group + i))));
    }
}

/* --- products of four rows of W and one or two of x ---------------------------------------------------------------- */

/* Keep a vector that is used more than once in a register: compilers would load it again for every use. */
#define KEEP(vector) __asm__("" : "+x"(vector))

static inline void add_integers(const __m256i *sums, float scale, float *total) {
    __m256i halves = _mm256_hadd_epi32(_mm256_hadd_epi32(sums[0], sums[1]), _mm256_hadd_epi32(sums[2], sums[3]));
    __m128i sum = _mm_add_epi32(_mm256_castsi256_si128(halves), _mm256_extracti128_si256(halves, 1));
    _mm_storeu_ps(total, _mm_fmadd_ps(_mm_cvtepi32_ps(sum), _mm_set1_ps(scale), _mm_loadu_ps(total)));
}

static inline void add_floats(const __m256 *sums, float *total) {
    __m256 halves = _mm256_hadd_ps(_mm256_hadd_ps(sums[0], sums[1]), _mm256_hadd_ps(sums[2], sums[3]));
    __m128 sum = _mm_add_ps(_mm256_castps256_ps128(halves), _mm256_extractf128_ps(halves, 1));
    _mm_storeu_ps(total, _mm_add_ps(_mm_loadu_ps(total), sum));
}

/* `columns` is known when this is compiled. */
static inline __attribute__((always_inline)) void multiply(const int16_t *weight, const int16_t *x, int64_t count,
                                                           int columns, const float *scale, float *const *total) {
    __m256i sums[2][4];
    for (int c = 0; c < columns; c++)
        for (int r = 0; r < 4; r++) sums[c][r] = _mm256_setzero_si256();
    for (int64_t step = 0; step < count / LANES; step++) {
        __m256i value[2];
        for (int c = 0; c < columns; c++) {
            value[c] = _mm256_load_si256((const __m256i *)x + step * columns + c);
            KEEP(value[c]);
        }
        for (int r = 0; r < 4; r++) {
            __m256i factor = _mm256_load_si256((const __m256i *)weight + step * 4 + r);
            KEEP(factor);
            for (int c = 0; c < columns; c++)
                sums[c][r] = _mm256_add_epi32(sums[c][r], _mm256_madd_epi16(factor, value[c]));
        }
    }
    for (int c = 0; c < columns; c++) add_integers(sums[c], scale[c], total[c]);
}

static inline __attribute__((always_inline)) void multiply_half(const float *weight, const float *x, int64_t count,
                                                                int columns, float *const *total) {
    __m256 sums[2][4];
    for (int c = 0; c < columns; c++)
        for (int r = 0; r < 4; r++) sums[c][r] = _mm256_setzero_ps();
    for (int64_t step = 0; step < count / 8; step++) {
        __m256 value[2];
        for (int c = 0; c < columns; c++) {
            value[c] = _mm256_load_ps(x + (step * columns + c) * 8);
            KEEP(value[c]);
        }
        for (int r = 0; r < 4; r++) {
            __m256 factor = _mm256_load_ps(weight + (step * 4 + r) * 8);
            KEEP(factor);
            for (int c = 0; c < columns; c++) sums[c][r] = _mm256_fmadd_ps(factor, value[c], sums[c][r]);
        }
    }
    for (int c = 0; c < columns; c++) add_floats(sums[c], total[c]);
}

/* Functions of their own: put into their caller, their sums no longer fit the registers, at a third of the speed. */
#define ALONE static __attribute__((noinline)) void

ALONE multiply_pair(const int16_t *weight, const int16_t *x, int64_t count, const float *scale, float *const *total) {
    multiply(weight, x, count, 2, scale, total);
}

ALONE multiply_one(const int16_t *weight, const int16_t *x, int64_t count, const float *scale, float *const *total) {
    multiply(weight, x, count, 1, scale, total);
}

ALONE multiply_half_pair(const float *weight, const float *x, int64_t count, float *const *total) {
    multiply_half(weight, x, count, 2, total);
}

ALONE multiply_half_one(const float *weight, const float *x, int64_t count, float *const *total) {
    multiply_half(weight, x, count, 1, total);
}

/* --- products of four rows of W and the only row of x, in the same order of sums ------------------------------------- */

typedef struct {
    const uint8_t *weight;  /* of the first of the four rows */
    int64_t row_bytes;
    int64_t ahead;          /* from there to what is read next */
    int64_t count;          /* a multiple of GROUP */
} Strip;

/* Ask for the line that stands `ahead` of `weight`, in each of the four rows. */
static inline void prefetch_rows(const Strip *strip, int64_t offset) {
    for (int r = 0; r < 4; r++)
        _mm_prefetch((const char *)strip->weight + r * strip->row_bytes + offset + strip->ahead, _MM_HINT_T0);
}

ALONE multiply_strip_int8(const Strip *strip, const int16_t *x, const float *scale, float *total) {
    __m256i sums[4] = {0};
    for (int64_t start = 0; start < strip->count; start += GROUP) {
        prefetch_rows(strip, start);
        for (int part = 0; part < GROUP / LANES; part++) {
            __m256i value = _mm256_load_si256((const __m256i *)(x + start) + part);
            KEEP(value);
            for (int r = 0; r < 4; r++) {
                const uint8_t *weight = strip->weight + r * strip->row_bytes + start + part * LANES;
                __m256i factor = _mm256_cvtepi8_epi16(_mm_loadu_si128((const __m128i *)weight));
                sums[r] = _mm256_add_epi32(sums[r], _mm256_madd_epi16(factor, value));
            }
        }
    }
    add_integers(sums, *scale, total);
}

ALONE multiply_strip_int4(const Strip *strip, const int16_t *x, const float *scale, float *total) {
    __m256i sums[4] = {0};
    for (int64_t start = 0; start < strip->count; start += GROUP) {
        if (start % (2 * GROUP) == 0) prefetch_rows(strip, start / 2);
        __m256i value[4];
        for (int part = 0; part < 4; part++) {
            value[part] = _mm256_load_si256((const __m256i *)(x + start) + part);
            KEEP(value[part]);
        }
        for (int r = 0; r < 4; r++) {
            __m256i words = _mm256_loadu_si256((const __m256i *)(strip->weight + r * strip->row_bytes + start / 2));
            __m256i high = _mm256_madd_epi16(_mm256_srai_epi16(words, 12), value[0]);
            __m256i second = _mm256_madd_epi16(_mm256_srai_epi16(_mm256_slli_epi16(words, 4), 12), value[1]);
            __m256i third = _mm256_madd_epi16(_mm256_srai_epi16(_mm256_slli_epi16(words, 8), 12), value[2]);
            __m256i low = _mm256_madd_epi16(_mm256_srai_epi16(_mm256_slli_epi16(words, 12), 12), value[3]);
            __m256i both = _mm256_add_epi32(_mm256_add_epi32(high, second), _mm256_add_epi32(third, low));
            sums[r] = _mm256_add_epi32(sums[r], both);
        }
    }
    add_integers(sums, *scale, total);
}

ALONE multiply_strip_half(const Strip *strip, const float *x, float *total) {
    __m256 sums[4] = {0};
    for (int64_t start = 0; start < strip->count; start += 32) {
        prefetch_rows(strip, 2 * start);
        for (int i = 0; i < 32; i += 8) {
            __m256 value = _mm256_load_ps(x + start + i);
            KEEP(value);
            for (int r = 0; r < 4; r++) {
                const uint8_t *weight = strip->weight + r * strip->row_bytes + 2 * (start + i);
                __m256 factor = _mm256_cvtph_ps(_mm_loadu_si128((const __m128i *)weight));
                sums[r] = _mm256_fmadd_ps(factor, value, sums[r]);
            }
        }
    }
    add_floats(sums, total);
}

static void multiply_strip(const Job *job, int64_t first, int64_t block, int64_t count, float *total) {
    int64_t block_bytes = BLOCK * job->bits / 8, is_last = block == job->blocks - 1;
    Strip strip = {.weight = job->weight + first * job->row_bytes + block * block_bytes, .row_bytes = job->row_bytes,
                   .ahead = is_last ? SINGLE_TILE * job->row_bytes - block * block_bytes : block_bytes, .count = count};
    const void *x = job->packed + packed_at(job, block, 0) * (job->bits == 16 ? sizeof(float) : sizeof(int16_t));
    if (job->bits == 16) multiply_strip_half(&strip, x, total);
    else if (job->bits == 8) multiply_strip_int8(&strip, x, job->x_scale + block, total);
    else multiply_strip_int4(&strip, x, job->x_scale + block, total);
}

/* --- one chunk ----------------------------------------------------------------------------------------------------- */

/* Unpack a block of `tile` rows of W from row `first`, four by four; rows past the end stay as they are, unused. */
static void unpack_tile(const Job *job, int64_t first, int64_t tile, int64_t block, int64_t count, void *unpacked) {
    for (int64_t r = 0; r < tile && first + r < job->out; r++) {
        const uint8_t *weight = job->weight + (first + r) * job->row_bytes + block * BLOCK * job->bits / 8;
        int64_t to = r / 4 * 4 * BLOCK;
        if (job->bits == 16) unpack_half_row((const uint16_t *)weight, count, (float *)unpacked + to + r % 4 * 8);
        else unpack_row(weight, count, job->bits, (int16_t *)unpacked + to + r % 4 * LANES);
    }
}

static void multiply_tile(const Job *job, int64_t tile, int64_t block, int64_t count, const void *unpacked,
                          float *totals) {
    enum { TOGETHER = 16 };  /* rows of x that stay in the first cache while a tile of W passes */
    for (int64_t begin = 0; begin < job->rows; begin += TOGETHER) {
        int64_t end = begin + TOGETHER < job->rows ? begin + TOGETHER : job->rows;
        for (int64_t r = 0; r < tile; r += 4)
            for (int64_t row = begin; row < end; row += 2) {
                float *total[2] = {totals + row * tile + r, totals + (row + 1) * tile + r};
                int64_t from = packed_at(job, block, row);
                int is_pair = columns_at(job, row) == 2;
                if (job->bits == 16) {
                    const float *weight = (const float *)unpacked + r * BLOCK, *x = (float *)job->packed + from;
                    if (is_pair) multiply_half_pair(weight, x, count, total);
                    else multiply_half_one(weight, x, count, total);
                } else {
                    const int16_t *weight = (const int16_t *)unpacked + r * BLOCK, *x = (int16_t *)job->packed + from;
                    const float *scale = job->x_scale + block * job->rows + row;
                    if (is_pair) multiply_pair(weight, x, count, scale, total);
                    else multiply_one(weight, x, count, scale, total);
                }
            }
    }
}

static void finish_tile(const Job *job, int64_t first, int64_t tile, const float *totals) {
    for (int64_t r = 0; r < tile && first + r < job->out; r++) {
        float scale = job->bits == 16 ? 1 : _cvtsh_ss(job->scale[first + r]);
        float bias = job->bias ? job->bias[first + r] : 0;
        for (int64_t row = 0; row < job->rows; row++)
            job->y[row * job->out + first + r] = totals[row * tile + r] * scale + bias;
    }
}

static void multiply_rows(Job *job, int64_t first, int64_t last) {
    int64_t tile = job->rows > MANY_ROWS ? WIDE_TILE : job->rows > 1 ? TILE : SINGLE_TILE;
    size_t unpacked_bytes = tile * BLOCK * (job->bits == 16 ? sizeof(float) : sizeof(int16_t));
    size_t totals_bytes = tile * job->rows * sizeof(float);
    uint8_t *scratch = aligned_alloc(64, (unpacked_bytes + totals_bytes + 63) / 64 * 64);
    if (!scratch) {
        atomic_store(&job->failed, 1);
        return;
    }
    float *totals = (float *)(scratch + unpacked_bytes);
    for (; first < last; first += tile) {
        memset(totals, 0, totals_bytes);
        for (int64_t block = 0; block < job->blocks; block++) {
            int64_t count = job->in - block * BLOCK < BLOCK ? job->in - block * BLOCK : BLOCK;
            int64_t padded = (count + GROUP - 1) / GROUP * GROUP;
            if (job->rows == 1 && count == padded && first + tile <= job->out) {
                multiply_strip(job, first, block, count, totals);
                continue;
            }
            unpack_tile(job, first, tile, block, count, scratch);
            multiply_tile(job, tile, block, padded, scratch, totals);
        }
        finish_tile(job, first, tile, totals);
    }
    free(scratch);
}

/* --- threads ------------------------------------------------------------------------------------------------------- */

typedef void (*Work)(Job *, int64_t first, int64_t last);

static struct {
    pthread_mutex_t caller;  /* held by the one call that has the helpers */
    pthread_mutex_t lock;    /* guards what follows */
    pthread_cond_t wake, done;
    Job *job;                /* NULL when there is nothing to join */
    Work work;
    int num_helpers, num_wanted, num_active;
    pid_t process;           /* a forked child has none of its parent's threads */
    atomic_uint generation, active;
} pool = {.caller = PTHREAD_MUTEX_INITIALIZER, .lock = PTHREAD_MUTEX_INITIALIZER, .wake = PTHREAD_COND_INITIALIZER,
          .done = PTHREAD_COND_INITIALIZER};

static int64_t now(void) {
    struct timespec time;
    clock_gettime(CLOCK_MONOTONIC, &time);
    return time.tv_sec * 1000000000LL + time.tv_nsec;
}

/* Spin until `*value` differs from `old` (or, with `is_wanted`, equals it), at most SPIN_NANOSECONDS. */
static void spin(atomic_uint *value, unsigned compared, int is_wanted) {
    int64_t end = now() + SPIN_NANOSECONDS;
    while ((atomic_load(value) == compared) != is_wanted && now() < end)
        for (int i = 0; i < 16; i++) _mm_pause();
}

static void take_chunks(Job *job, Work work) {
    for (;;) {
        int64_t first = atomic_fetch_add(&job->next, job->chunk);
        if (first >= job->total) return;
        work(job, first, first + job->chunk < job->total ? first + job->chunk : job->total);
    }
}

static void *help(void *unused) {
    unsigned seen = 0;
    pthread_mutex_lock(&pool.lock);
    for (;;) {
        while (!pool.job || pool.num_wanted == 0 || seen == atomic_load(&pool.generation))
            pthread_cond_wait(&pool.wake, &pool.lock);
        Job *job = pool.job;
        Work work = pool.work;
        seen = atomic_load(&pool.generation);
        pool.num_wanted--;
        atomic_fetch_add(&pool.active, 1);
        pthread_mutex_unlock(&pool.lock);
        take_chunks(job, work);
        pthread_mutex_lock(&pool.lock);
        if (atomic_fetch_sub(&pool.active, 1) == 1) pthread_cond_signal(&pool.done);
        pthread_mutex_unlock(&pool.lock);
        spin(&pool.generation, seen, 0);
        pthread_mutex_lock(&pool.lock);
    }
    return unused;
}

static void start_helpers(int wanted) {
    for (; pool.num_helpers < wanted && pool.num_helpers < MAX_HELPERS; pool.num_helpers++) {
        pthread_t thread;
        if (pthread_create(&thread, NULL, help, NULL)) return;
        pthread_detach(thread);
    }
}

static void run(Job *job, Work work, int64_t total, int64_t chunk, int threads) {
    job->total = total;
    job->chunk = chunk;
    atomic_store(&job->next, 0);
    if (threads < 2 || total <= chunk || pthread_mutex_trylock(&pool.caller)) {
        take_chunks(job, work);
        return;
    }
    pthread_mutex_lock(&pool.lock);
    start_helpers(threads - 1);
    pool.job = job;
    pool.work = work;
    pool.num_wanted = threads - 1;
    atomic_fetch_add(&pool.generation, 1);
    pthread_mutex_unlock(&pool.lock);
    pthread_cond_broadcast(&pool.wake);
    take_chunks(job, work);
    spin(&pool.active, 0, 1);
    pthread_mutex_lock(&pool.lock);
    pool.job = NULL;  /* from here on nobody joins */
    while (atomic_load(&pool.active)) pthread_cond_wait(&pool.done, &pool.lock);
    pthread_mutex_unlock(&pool.lock);
    pthread_mutex_unlock(&pool.caller);
}

static void forget_helpers(void) {
    pthread_mutex_init(&pool.caller, NULL);
    pthread_mutex_init(&pool.lock, NULL);
    pthread_cond_init(&pool.wake, NULL);
    pthread_cond_init(&pool.done, NULL);
    pool.job = NULL;
    pool.num_helpers = pool.num_wanted = 0;
    atomic_store(&pool.active, 0);
}

static void __attribute__((constructor)) watch_forks(void) { pthread_atfork(NULL, NULL, forget_helpers); }

/* --- the one entry ------------------------------------------------------------------------------------------------- */

/* Compute y (rows, out) from contiguous arrays; bits is 8, 4 or 16 (fp16). Return 0, or 1 if memory ran out. */
int bianque_linear(const float *x, const void *weight, const uint16_t *scale, const float *bias, float *y,
                   int64_t rows, int64_t in, int64_t out, int bits, int threads) {
    Job job = {.x = x, .weight = weight, .scale = scale, .bias = bias, .y = y, .rows = rows, .in = in, .out = out,
               .row_bytes = in * bits / 8, .blocks = (in + BLOCK - 1) / BLOCK, .bits = bits};
    if (rows == 0 || out == 0) return 0;
    size_t packed_bytes = job.blocks * rows * BLOCK * (bits == 16 ? sizeof(float) : sizeof(int16_t));
    size_t scale_bytes = (job.blocks * rows * sizeof(float) + 63) / 64 * 64;
    job.packed = aligned_alloc(64, packed_bytes + scale_bytes + 64);
    if (!job.packed) return 1;
    job.x_scale = (float *)(job.packed + packed_bytes);
    run(&job, pack_rows, rows, 8, rows * in > 1 << 17 ? threads : 1);
    int64_t tile = rows > MANY_ROWS ? WIDE_TILE : TILE;
    int64_t chunk = ((1 << 17) / (job.row_bytes + 1) / tile + 1) * tile;
    run(&job, multiply_rows, out, rows > MANY_ROWS ? tile : chunk, threads);
    free(job.packed);
    return atomic_load(&job.failed);
}
