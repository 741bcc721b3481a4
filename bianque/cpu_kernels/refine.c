/* The second digits of a weight, read only where they may change which values of a row are the largest.
 *
 * What the low digits of row v of the weight add to y[v] is at most bound[v] · |x| (Cauchy and Schwarz). With
 *
 *     threshold = the count-th largest of y[v] - bound[v] · |x|
 *
 * at least `count` values end up at the threshold or above. A value with y[v] + bound[v] · |x| below it is none of them,
 * and stays as it is; the others are computed. Rounding to fp32 keeps order, so that all this holds for rounded sums as
 * well; `bound` has room for the rounding of the sums that are added.
 */
#include <math.h>
#include <stdlib.h>

#include "heap.h"
#include "operations.h"
#include "pool.h"
#include "vectors.h"

/* Rows of the weight that are handed out at a time. */
enum { CHUNK = 256 };

/* Which values of a row of y are computed. */
typedef struct {
    float norm, threshold;
} Limit;

typedef struct {
    const Refine *refine;
    int64_t rows;
    Limit *limits;
} Job;

static float norm_of(const float *x, int64_t size) {
    double sum = 0;  /* squares of fp32 values can be too large or too small for fp32 */
    for (int64_t i = 0; i < size; i++) sum += (double)x[i] * x[i];
    return (float)sqrt(sum);
}

static float threshold_of(const float *y, const float *bound, float norm, int64_t size, int64_t count) {
    if (count <= 0 || count > MAX_LARGEST) return -INFINITY;
    Found heap[MAX_LARGEST];
    clear_heap(heap, count, size);
    __m256 factor = _mm256_set1_ps(norm);
    int64_t i = 0;
    for (; i + FLOATS <= size; i += FLOATS) {
        __m256 least = _mm256_sub_ps(_mm256_loadu_ps(y + i), _mm256_mul_ps(_mm256_loadu_ps(bound + i), factor));
        int left = _mm256_movemask_ps(_mm256_cmp_ps(least, _mm256_set1_ps(heap[0].value), _CMP_GT_OQ));
        if (!left) continue;
        float lanes[FLOATS];
        _mm256_storeu_ps(lanes, least);
        for (; left; left &= left - 1) offer(heap, count, lanes[__builtin_ctz(left)], i + __builtin_ctz(left));
    }
    for (; i < size; i++) offer(heap, count, y[i] - bound[i] * norm, i);
    return heap[0].value;
}

static void set_limits(void *context, int64_t first, int64_t last) {
    const Job *job = context;
    const Refine *refine = job->refine;
    for (int64_t row = first; row < last; row++) {
        float norm = norm_of(refine->x + row * refine->in, refine->in);
        const float *y = refine->y + row * refine->out;
        job->limits[row] = (Limit){norm, threshold_of(y, refine->bound, norm, refine->out, refine->counts[row])};
    }
}

static inline __m256 floats_of(const int8_t *low) {
    return _mm256_cvtepi32_ps(_mm256_cvtepi8_epi32(_mm_loadl_epi64((const __m128i *)low)));
}

/* Always in this order, so that a value does not depend on why it is computed. */
static float product_of(const int8_t *low, const float *x, int64_t size) {
    __m256 a = _mm256_setzero_ps(), b = a, c = a, d = a;
    int64_t i = 0;
    for (; i + 4 * FLOATS <= size; i += 4 * FLOATS) {
        a = _mm256_fmadd_ps(floats_of(low + i), _mm256_loadu_ps(x + i), a);
        b = _mm256_fmadd_ps(floats_of(low + i + FLOATS), _mm256_loadu_ps(x + i + FLOATS), b);
        c = _mm256_fmadd_ps(floats_of(low + i + 2 * FLOATS), _mm256_loadu_ps(x + i + 2 * FLOATS), c);
        d = _mm256_fmadd_ps(floats_of(low + i + 3 * FLOATS), _mm256_loadu_ps(x + i + 3 * FLOATS), d);
    }
    float sum = sum_of(_mm256_add_ps(_mm256_add_ps(a, b), _mm256_add_ps(c, d)));
    for (; i < size; i++) sum += low[i] * x[i];
    return sum;
}

static void refine_chunk(void *context, int64_t first, int64_t last) {
    const Job *job = context;
    const Refine *refine = job->refine;
    for (int64_t v = first; v < last; v++) {
        const int8_t *low = refine->low + v * refine->in;
        for (int64_t row = 0; row < job->rows; row++) {
            float *y = refine->y + row * refine->out + v;
            Limit limit = job->limits[row];
            if (*y + refine->bound[v] * limit.norm >= limit.threshold)
                *y += product_of(low, refine->x + row * refine->in, refine->in) * _cvtsh_ss(refine->scale[v]) / 256;
        }
    }
}

int bianque_refine(const Refine *refine, int64_t rows, int threads) {
    Job job = {.refine = refine, .rows = rows, .limits = malloc((rows + 1) * sizeof(Limit))};
    if (!job.limits) return 1;
    bianque_share(&job, set_limits, rows, 1, threads);
    bianque_share(&job, refine_chunk, refine->out, CHUNK, threads);
    free(job.limits);
    return 0;
}
