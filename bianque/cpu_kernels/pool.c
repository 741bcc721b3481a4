/* Threads that help with a piece of work, chunk by chunk, so that one that loses its core for a while holds up one chunk.
 *
 * Helpers sleep on a condition variable and are never waited for unless they are inside a chunk. Waits spin for
 * SPIN_NANOSECONDS at most. A second caller at the same time works alone on its own thread.
 */
#include "pool.h"

#include <immintrin.h>
#include <pthread.h>
#include <stdatomic.h>
#include <time.h>

enum { MAX_HELPERS = 255 };
enum { SPIN_NANOSECONDS = 50000 };

typedef struct {
    void *context;
    Work work;
    int64_t total, chunk;
    atomic_llong next;
} Task;

static struct {
    pthread_mutex_t caller;  /* held by the one call that has the helpers */
    pthread_mutex_t lock;    /* guards what follows */
    pthread_cond_t wake, done;
    Task *task;              /* NULL when there is nothing to join */
    int num_helpers, num_wanted;
    atomic_uint generation, active;
} pool = {.caller = PTHREAD_MUTEX_INITIALIZER, .lock = PTHREAD_MUTEX_INITIALIZER, .wake = PTHREAD_COND_INITIALIZER,
          .done = PTHREAD_COND_INITIALIZER};

static int64_t now(void) {
    struct timespec time;
    clock_gettime(CLOCK_MONOTONIC, &time);
    return time.tv_sec * 1000000000LL + time.tv_nsec;
}

/* Spin until `*value` differs from `compared` (or, with `is_wanted`, equals it), at most SPIN_NANOSECONDS. */
static void spin(atomic_uint *value, unsigned compared, int is_wanted) {
    int64_t end = now() + SPIN_NANOSECONDS;
    while ((atomic_load(value) == compared) != is_wanted && now() < end)
        for (int i = 0; i < 16; i++) _mm_pause();
}

static void take_chunks(Task *task) {
    for (;;) {
        int64_t first = atomic_fetch_add(&task->next, task->chunk), left = task->total - first;
        if (left <= 0) return;
        task->work(task->context, first, first + (left < task->chunk ? left : task->chunk));
    }
}

static void *help(void *unused) {
    unsigned seen = 0;
    pthread_mutex_lock(&pool.lock);
    for (;;) {
        while (!pool.task || pool.num_wanted == 0 || seen == atomic_load(&pool.generation))
            pthread_cond_wait(&pool.wake, &pool.lock);
        Task *task = pool.task;
        seen = atomic_load(&pool.generation);
        pool.num_wanted--;
        atomic_fetch_add(&pool.active, 1);
        pthread_mutex_unlock(&pool.lock);
        take_chunks(task);
        pthread_mutex_lock(&pool.lock);
        if (atomic_fetch_sub(&pool.active, 1) == 1) pthread_cond_signal(&pool.done);
        pthread_mutex_unlock(&pool.lock);
        spin(&pool.generation, seen, 0);
        pthread_mutex_lock(&pool.lock);
    }
    return unused;
}

static void start_helpers(int wanted) {
    for (; pool.num_helpers < wanted && pool.num_helpers < MAX_HELPERS; pool.num_helpers++) {
        pthread_t thread;
        if (pthread_create(&thread, NULL, help, NULL)) return;
        pthread_detach(thread);
    }
}

void bianque_share(void *context, Work work, int64_t total, int64_t chunk, int threads) {
    Task task = {.context = context, .work = work, .total = total, .chunk = chunk};
    if (threads < 2 || total <= chunk || pthread_mutex_trylock(&pool.caller)) {
        take_chunks(&task);
        return;
    }
    pthread_mutex_lock(&pool.lock);
    start_helpers(threads - 1);
    pool.task = &task;
    pool.num_wanted = threads - 1;
    atomic_fetch_add(&pool.generation, 1);
    pthread_mutex_unlock(&pool.lock);
    pthread_cond_broadcast(&pool.wake);
    take_chunks(&task);
    spin(&pool.active, 0, 1);
    pthread_mutex_lock(&pool.lock);
    pool.task = NULL;  /* from here on nobody joins */
    while (atomic_load(&pool.active)) pthread_cond_wait(&pool.done, &pool.lock);
    pthread_mutex_unlock(&pool.lock);
    pthread_mutex_unlock(&pool.caller);
}

static void forget_helpers(void) {
    pthread_mutex_init(&pool.caller, NULL);
    pthread_mutex_init(&pool.lock, NULL);
    pthread_cond_init(&pool.wake, NULL);
    pthread_cond_init(&pool.done, NULL);
    pool.task = NULL;
    pool.num_helpers = pool.num_wanted = 0;
    atomic_store(&pool.active, 0);
}

static void __attribute__((constructor)) watch_forks(void) { pthread_atfork(NULL, NULL, forget_helpers); }
