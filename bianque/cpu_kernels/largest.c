/* The largest values of rows, and whether all values of a row are finite: what sampling needs of logits. */
#include "heap.h"
#include "operations.h"
#include "pool.h"
#include "vectors.h"

static float sum_of_row(const float *x, int64_t size) {
    __m256 sum = _mm256_setzero_ps();
    int64_t i = 0;
    for (; i + FLOATS <= size; i += FLOATS) sum = _mm256_add_ps(sum, _mm256_loadu_ps(x + i));
    float result = sum_of(sum);
    for (; i < size; i++) result += x[i];
    return result;
}

static void find_rows(void *context, int64_t first, int64_t last) {
    const Largest *largest = context;
    int64_t size = largest->size, count = largest->count;
    for (int64_t row = first; row < last; row++) {
        const float *x = largest->x + row * size;
        Found heap[MAX_LARGEST];
        clear_heap(heap, count, size);
        int64_t i = 0;
        for (; i + FLOATS <= size; i += FLOATS) {
            __m256 is_larger = _mm256_cmp_ps(_mm256_loadu_ps(x + i), _mm256_set1_ps(heap[0].value), _CMP_GT_OQ);
            for (int left = _mm256_movemask_ps(is_larger); left; left &= left - 1)
                offer(heap, count, x[i + __builtin_ctz(left)], i + __builtin_ctz(left));
        }
        for (; i < size; i++) offer(heap, count, x[i], i);
        for (int64_t left = count; left--;) {
            largest->values[row * count + left] = heap[0].value;
            largest->ids[row * count + left] = heap[0].id;
            heap[0] = heap[left];
            sink(heap, left);
        }
        largest->sums[row] = sum_of_row(largest->raw + row * size, size);
    }
}

int bianque_largest(const Largest *largest, int64_t rows, int threads) {
    if (largest->count > MAX_LARGEST) return 1;
    bianque_share((void *)largest, find_rows, rows, 1, threads);
    return 0;
}
