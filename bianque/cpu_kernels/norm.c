/* LayerNorm and RMSNorm of rows, in fp32. */
#include <math.h>

#include "operations.h"
#include "pool.h"
#include "vectors.h"

/* Rows with fewer values together than this are done by the thread that calls. */
enum { SHARED_VALUES = 1 << 14 };

static float mean_of(const float *x, int64_t size) {
    __m256 sum = _mm256_setzero_ps();
    for (int64_t i = 0; i < size; i += FLOATS) sum = _mm256_add_ps(sum, _mm256_loadu_ps(x + i));
    return sum_of(sum) / size;
}

static float mean_square_of(const float *x, int64_t size, float centre) {
    __m256 sum = _mm256_setzero_ps(), shift = _mm256_set1_ps(centre);
    for (int64_t i = 0; i < size; i += FLOATS) {
        __m256 value = _mm256_sub_ps(_mm256_loadu_ps(x + i), shift);
        sum = _mm256_fmadd_ps(value, value, sum);
    }
    return sum_of(sum) / size;
}

static void norm_rows(void *context, int64_t first, int64_t last) {
    const Norm *norm = context;
    for (int64_t row = first; row < last; row++) {
        const float *x = norm->x + row * norm->size;
        float *y = norm->y + row * norm->size, centre = norm->bias ? mean_of(x, norm->size) : 0;
        __m256 shift = _mm256_set1_ps(centre);
        __m256 factor = _mm256_set1_ps(1 / sqrtf(mean_square_of(x, norm->size, centre) + norm->epsilon));
        for (int64_t i = 0; i < norm->size; i += FLOATS) {
            __m256 value = _mm256_mul_ps(_mm256_sub_ps(_mm256_loadu_ps(x + i), shift), factor);
            value = _mm256_mul_ps(value, _mm256_loadu_ps(norm->weight + i));
            if (norm->bias) value = _mm256_add_ps(value, _mm256_loadu_ps(norm->bias + i));
            _mm256_storeu_ps(y + i, value);
        }
    }
}

int bianque_norm(const Norm *norm, int64_t rows, int threads) {
    int64_t chunk = SHARED_VALUES / 4 / norm->size + 1;
    bianque_share((void *)norm, norm_rows, rows, rows * norm->size < SHARED_VALUES ? rows : chunk, threads);
    return 0;
}
