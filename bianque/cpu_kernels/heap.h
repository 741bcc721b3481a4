/* The largest of many values, found one by one: a heap whose top is the one that comes last. */
#ifndef BIANQUE_HEAP_H
#define BIANQUE_HEAP_H

#include <math.h>
#include <stdint.h>

typedef struct {
    float value;
    int64_t id;
} Found;

/* Whether `a` comes before `b` in the result: the larger value, of equals the one that stands first. */
static inline int precedes(Found a, Found b) { return a.value > b.value || (a.value == b.value && a.id < b.id); }

/* Let the first element sink to its place. */
static inline void sink(Found *heap, int64_t count) {
    Found moved = heap[0];
    int64_t place = 0;
    for (int64_t child; (child = 2 * place + 1) < count; place = child) {
        if (child + 1 < count && precedes(heap[child], heap[child + 1])) child++;
        if (!precedes(moved, heap[child])) break;
        heap[place] = heap[child];
    }
    heap[place] = moved;
}

/* Begin with `count` elements that every finite value replaces. */
static inline void clear_heap(Found *heap, int64_t count, int64_t id) {
    for (int64_t i = 0; i < count; i++) heap[i] = (Found){-INFINITY, id};
}

static inline void offer(Found *heap, int64_t count, float value, int64_t id) {
    if (value > heap[0].value) {
        heap[0] = (Found){value, id};
        sink(heap, count);
    }
}

#endif
