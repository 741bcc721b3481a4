/* Run operations one after the other without a way back to Python in between: the helpers of the pool stay awake. */
#include <stdint.h>

typedef struct {
    int (*run)(const void *arguments, int64_t rows, int threads);
    const void *arguments;
} Operation;

/* Return 0, or 1 where an operation ran out of memory; those before it have done their work. */
int bianque_run(const Operation *operations, int64_t count, int64_t rows, int threads) {
    for (int64_t i = 0; i < count; i++)
        if (operations[i].run(operations[i].arguments, rows, threads)) return 1;
    return 0;
}
