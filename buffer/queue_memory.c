/* SPDX-License-Identifier: MIT
 *
 * The queue whose medium is memory: nothing beyond what buffer/queue.c does for every store. An item counts
 * as stored once it is put, and its ack may claim no more than "queued".
 */
#include "buffer/queue_ops.h"

#include <stdlib.h>

static void memory_free(struct queue *queue)
{
    free(queue);
}

static const struct queue_ops memory_ops = {.free = memory_free};

struct queue *queue_memory_new(const struct queue_limits *limits)
{
    struct queue *queue = malloc(sizeof *queue);
    if (queue)
        queue_init(queue, &memory_ops, limits);
    return queue;
}
