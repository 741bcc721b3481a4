/* GELU by its approximation with tanh, times a gate where there is one, in fp32.
 *
 * gelu(x) = x · (1 + tanh(u)) / 2 = x / (1 + exp(-2u)),   u = √(2/π) · (x + 0.044715 · x³)
 */
#include "operations.h"
#include "pool.h"
#include "vectors.h"

/* Fewer values together than this are done by the thread that calls. */
enum { SHARED_VALUES = 1 << 13 };

static inline __m256 gelu_of(__m256 x) {
    __m256 inner = _mm256_fmadd_ps(_mm256_mul_ps(_mm256_mul_ps(x, x), x), _mm256_set1_ps(0.044715f), x);
    __m256 twice = _mm256_mul_ps(inner, _mm256_set1_ps(1.5957691216f)), sign = _mm256_set1_ps(-0.0f);
    __m256 power = exponential(_mm256_or_ps(twice, sign));  /* of -|2u|, which cannot overflow */
    __m256 one = _mm256_set1_ps(1), is_negative = _mm256_and_ps(twice, sign);
    /* Far below zero nothing is left, however large x is; the power stops at e^-87. */
    __m256 rest = _mm256_and_ps(power, _mm256_cmp_ps(twice, _mm256_set1_ps(-87), _CMP_GT_OQ));
    __m256 numerator = _mm256_blendv_ps(one, rest, is_negative);
    return _mm256_div_ps(_mm256_mul_ps(x, numerator), _mm256_add_ps(one, power));
}

/* The items are vectors of FLOATS values. */
static void gelu_vectors(void *context, int64_t first, int64_t last) {
    const Gelu *gelu = context;
    for (int64_t i = first * FLOATS; i < last * FLOATS; i += FLOATS) {
        __m256 value = gelu_of(_mm256_loadu_ps(gelu->x + i));
        if (gelu->gate) value = _mm256_mul_ps(value, _mm256_loadu_ps(gelu->gate + i));
        _mm256_storeu_ps(gelu->y + i, value);
    }
}

int bianque_gelu(const Gelu *gelu, int64_t rows, int threads) {
    int64_t total = rows * gelu->size / FLOATS;
    bianque_share((void *)gelu, gelu_vectors, total, SHARED_VALUES / 2 / FLOATS, threads);
    return 0;
}
