/* Rotary positions of ChatGLM, in fp32: two positions for every token, one for each half of a head. */
#include "operations.h"
#include "pool.h"

static void rotate_rows(void *context, int64_t first, int64_t last) {
    const Rotate *rotate = context;
    int64_t quarter = rotate->size / 4;
    for (int64_t row = first; row < last; row++)
        for (int64_t head = 0; head < rotate->heads; head++)
            for (int64_t part = 0; part < 4; part++) {  /* both halves of the query, then of the key */
                float *a = rotate->mixed + (row * rotate->heads + head) * 3 * rotate->size + part * 2 * quarter;
                float *b = a + quarter;
                const float *cosine = rotate->table + rotate->positions[2 * row + part % 2] * 3 * quarter;
                const float *sine = cosine + 2 * quarter;
                for (int64_t i = 0; i < quarter; i++) {
                    float turned = a[i] * cosine[i] - b[i] * sine[i];
                    b[i] = b[i] * cosine[i] + a[i] * sine[i];
                    a[i] = turned;
                }
            }
}

int bianque_rotate(const Rotate *rotate, int64_t rows, int threads) {
    bianque_share((void *)rotate, rotate_rows, rows, 4, threads);
    return 0;
}
