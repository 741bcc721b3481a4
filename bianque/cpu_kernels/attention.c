/* One new token of each row attends to what its slot of the KV cache holds, over exactly its own length, in fp32, on x86
 * with AVX2 and FMA.
 *
 * A row and head is one item of work and sums in one order, so that a row depends on nothing but itself. For a reply's
 * few hundred places, all of this takes less time than one call of a library's attention for each row.
 */
#include <immintrin.h>
#include <math.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>

#include "pool.h"

enum { LANES = 8, SUMS = 8, SHARED_VALUES = 1 << 17 };

/* Where the new token's vector of a row and head is, in values: query, key or value. */
typedef struct {
    const float *data;
    int64_t row_stride, head_stride;
} Vectors;

typedef struct {
    Vectors query, key, value;  /* key.data is NULL if nothing is added to the slots */
    float *keys, *values;       /* (slots, heads, places, size) */
    const int64_t *slots;       /* of each row */
    const int64_t *lengths;     /* places each row looks at, the new one included */
    const float *bias;          /* (heads, bias_len), added to the scores; a row takes the last of it; or NULL */
    float *y;                   /* (rows, heads, size) */
    int64_t heads, places, size, bias_len;
    float scale;
    atomic_int failed;
} Job;

static inline float sum_of(__m256 values) {
    __m128 sum = _mm_add_ps(_mm256_castps256_ps128(values), _mm256_extractf128_ps(values, 1));
    sum = _mm_add_ps(sum, _mm_movehl_ps(sum, sum));
    return _mm_cvtss_f32(_mm_add_ss(sum, _mm_movehdup_ps(sum)));
}

/* e to the power of eight values that are not above 0, to 2e-7: 2^whole times a polynomial in what is left. */
static inline __m256 exponential(__m256 x) {
    x = _mm256_max_ps(_mm256_set1_ps(-87), x);  /* NaN in x stays: it is the second operand */
    __m256 whole = _mm256_round_ps(_mm256_mul_ps(x, _mm256_set1_ps(1.44269504f)), _MM_FROUND_TO_NEAREST_INT);
    __m256 rest = _mm256_fnmadd_ps(whole, _mm256_set1_ps(0.693359375f), x);
    rest = _mm256_fnmadd_ps(whole, _mm256_set1_ps(-2.12194440e-4f), rest);
    static const float factors[] = {1.f / 720, 1.f / 120, 1.f / 24, 1.f / 6, 1.f / 2, 1, 1};
    __m256 power = _mm256_set1_ps(factors[0]);
    for (int i = 1; i < 7; i++) power = _mm256_fmadd_ps(power, rest, _mm256_set1_ps(factors[i]));
    __m256i exponent = _mm256_slli_epi32(_mm256_add_epi32(_mm256_cvtps_epi32(whole), _mm256_set1_epi32(127)), 23);
    return _mm256_mul_ps(power, _mm256_castsi256_ps(exponent));
}

/* Write the scores of `count` places and return the largest. */
static float score(const float *query, const float *keys, const float *bias, int64_t count, int64_t size, float scale,
                   float *scores) {
    float largest = -INFINITY;
    for (int64_t place = 0; place < count; place++, keys += size) {
        __m256 sum = _mm256_setzero_ps(), other = sum;
        int64_t i = 0;
        for (; i + 2 * LANES <= size; i += 2 * LANES) {
            sum = _mm256_fmadd_ps(_mm256_loadu_ps(query + i), _mm256_loadu_ps(keys + i), sum);
            other = _mm256_fmadd_ps(_mm256_loadu_ps(query + i + LANES), _mm256_loadu_ps(keys + i + LANES), other);
        }
        if (i < size) sum = _mm256_fmadd_ps(_mm256_loadu_ps(query + i), _mm256_loadu_ps(keys + i), sum);
        scores[place] = sum_of(_mm256_add_ps(sum, other)) * scale + (bias ? bias[place] : 0);
        largest = scores[place] > largest ? scores[place] : largest;
    }
    return largest;
}

/* Turn scores into weights that are not yet divided by their sum, which is returned. `scores` has room for LANES more. */
static float weigh(float *scores, int64_t count, float largest) {
    for (int64_t place = count; place % LANES; place++) scores[place] = -INFINITY;
    __m256 sum = _mm256_setzero_ps(), shift = _mm256_set1_ps(largest);
    for (int64_t place = 0; place < count; place += LANES) {
        __m256 values = _mm256_loadu_ps(scores + place), weights = exponential(_mm256_sub_ps(values, shift));
        /* What is minus infinity counts as nothing. */
        weights = _mm256_andnot_ps(_mm256_cmp_ps(values, _mm256_set1_ps(-INFINITY), _CMP_EQ_OQ), weights);
        _mm256_storeu_ps(scores + place, weights);
        sum = _mm256_add_ps(sum, weights);
    }
    return sum_of(sum);
}

/* Write the weighted sum of `count` values, `size` long each, SUMS vectors of them at a time. */
static void mix(const float *weights, const float *values, int64_t count, int64_t size, float factor, float *y) {
    for (int64_t start = 0; start < size; start += SUMS * LANES) {
        int num_sums = size - start < SUMS * LANES ? (size - start) / LANES : SUMS;
        __m256 sums[SUMS];
        for (int i = 0; i < SUMS; i++) sums[i] = _mm256_setzero_ps();
        if (num_sums == SUMS) {  /* known when this is compiled: the sums stay in registers */
            for (int64_t place = 0; place < count; place++) {
                __m256 weight = _mm256_set1_ps(weights[place]);
                for (int i = 0; i < SUMS; i++)
                    sums[i] = _mm256_fmadd_ps(weight, _mm256_loadu_ps(values + place * size + start + i * LANES), sums[i]);
            }
        } else {
            for (int64_t place = 0; place < count; place++)
                for (int i = 0; i < num_sums; i++)
                    sums[i] = _mm256_fmadd_ps(_mm256_set1_ps(weights[place]),
                                              _mm256_loadu_ps(values + place * size + start + i * LANES), sums[i]);
        }
        for (int i = 0; i < num_sums; i++)
            _mm256_storeu_ps(y + start + i * LANES, _mm256_mul_ps(sums[i], _mm256_set1_ps(factor)));
    }
}

static inline const float *vector_of(const Vectors *vectors, int64_t row, int64_t head) {
    return vectors->data + row * vectors->row_stride + head * vectors->head_stride;
}

static void attend_items(void *context, int64_t first, int64_t last) {
    Job *job = context;
    float *scores = aligned_alloc(64, (job->places + LANES + 15) / 16 * 16 * sizeof *scores);
    if (!scores) {
        atomic_store(&job->failed, 1);
        return;
    }
    for (int64_t item = first; item < last; item++) {
        int64_t row = item / job->heads, head = item % job->heads, count = job->lengths[row];
        int64_t from = (job->slots[row] * job->heads + head) * job->places * job->size;
        float *keys = job->keys + from, *values = job->values + from;
        if (job->key.data) {
            int64_t to = (count - 1) * job->size;
            memcpy(keys + to, vector_of(&job->key, row, head), job->size * sizeof *keys);
            memcpy(values + to, vector_of(&job->value, row, head), job->size * sizeof *values);
        }
        const float *bias = job->bias ? job->bias + (head + 1) * job->bias_len - count : NULL;
        float largest = score(vector_of(&job->query, row, head), keys, bias, count, job->size, job->scale, scores);
        float sum = weigh(scores, count, largest);
        mix(scores, values, count, job->size, 1 / sum, job->y + item * job->size);
    }
    free(scores);
}

/* Store the new keys and values, unless `key` is NULL, and compute y (rows, heads, size); see Job. `strides` holds row and
 * head stride of query, key and value. `size` is a multiple of LANES. Return 0, or 1 if memory ran out. */
int bianque_attend(const float *query, const float *key, const float *value, const int64_t *strides, float *keys,
                   float *values, const int64_t *slots, const int64_t *lengths, const float *bias, int64_t bias_len,
                   float *y, int64_t rows, int64_t heads, int64_t places, int64_t size, float scale, int threads) {
    Job job = {.query = {query, strides[0], strides[1]}, .key = {key, strides[2], strides[3]},
               .value = {value, strides[4], strides[5]}, .keys = keys, .values = values, .slots = slots,
               .lengths = lengths, .bias = bias, .y = y, .heads = heads, .places = places, .size = size,
               .bias_len = bias_len, .scale = scale};
    int64_t looked_at = 0;
    for (int64_t row = 0; row < rows; row++) looked_at += lengths[row];
    /* Little work is done before a helper wakes up. */
    int is_shared = looked_at * heads * size > SHARED_VALUES;
    bianque_share(&job, attend_items, rows * heads, is_shared ? (heads + 3) / 4 : rows * heads, threads);
    return atomic_load(&job.failed);
}
