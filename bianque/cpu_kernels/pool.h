/* Share a piece of work among threads. */
#ifndef BIANQUE_POOL_H
#define BIANQUE_POOL_H

#include <stdint.h>

/* Does the items from `first` to `last`, the last not included. */
typedef void (*Work)(void *context, int64_t first, int64_t last);

/* Do `total` items in chunks of `chunk` on up to `threads` threads, this one among them; returns when all are done. */
void bianque_share(void *context, Work work, int64_t total, int64_t chunk, int threads);

#endif
