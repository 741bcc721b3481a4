/* Sums and exponentials of eight fp32 values. */
#ifndef BIANQUE_VECTORS_H
#define BIANQUE_VECTORS_H

#include <immintrin.h>

enum { FLOATS = 8 };

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

#endif
