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

#include "operations.h"
#include "pool.h"
#include "vectors.h"

enum { LANES = FLOATS, SUMS = 8, SHARED_VALUES = 1 << 17 };

typedef struct {
    const Attend *attend;
    atomic_int failed;
} Job;

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

/* Where a row and head of query (0), key (1) or value (2) is. */
static inline const float *vector_of(const Attend *attend, int part, int64_t row, int64_t head) {
    const float *data = part == 0 ? attend->query : part == 1 ? attend->key : attend->value;
    return data + row * attend->strides[2 * part] + head * attend->strides[2 * part + 1];
}

static void attend_items(void *context, int64_t first, int64_t last) {
    Job *job = context;
    const Attend *attend = job->attend;
    int64_t size = attend->size, heads = attend->heads;
    float *scores = aligned_alloc(64, (attend->places + LANES + 15) / 16 * 16 * sizeof *scores);
    if (!scores) {
        atomic_store(&job->failed, 1);
        return;
    }
    for (int64_t item = first; item < last; item++) {
        int64_t row = item / heads, head = item % heads, count = attend->lengths[row];
        int64_t from = (attend->slots[row] * heads + head) * attend->places * size;
        float *keys = attend->keys + from, *values = attend->values + from;
        if (attend->key) {
            int64_t to = (count - 1) * size;
            memcpy(keys + to, vector_of(attend, 1, row, head), size * sizeof *keys);
            memcpy(values + to, vector_of(attend, 2, row, head), size * sizeof *values);
        }
        const float *bias = attend->bias ? attend->bias + (head + 1) * attend->bias_len - count : NULL;
        float largest = score(vector_of(attend, 0, row, head), keys, bias, count, size, attend->scale, scores);
        float sum = weigh(scores, count, largest);
        mix(scores, values, count, size, 1 / sum, attend->y + item * size);
    }
    free(scores);
}

int bianque_attend(const Attend *attend, int64_t rows, int threads) {
    Job job = {.attend = attend};
    int64_t looked_at = 0, heads = attend->heads;
    for (int64_t row = 0; row < rows; row++) looked_at += attend->lengths[row];
    /* Little work is done before a helper wakes up. */
    int is_shared = looked_at * heads * attend->size > SHARED_VALUES;
    bianque_share(&job, attend_items, rows * heads, is_shared ? (heads + 3) / 4 : rows * heads, threads);
    return atomic_load(&job.failed);
}
