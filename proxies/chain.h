/* SPDX-License-Identifier: MIT
 *
 * One running chain: a thread that takes messages in at a frontend, keeps them in a queue and moves them out
 * at a backend. What is in here may be called from any thread; nothing waits for the chain's loop except
 * chain_free and, for a few milliseconds, chain_stats.
 *
 *      callers --> [ frontend ] --> [ queue ] --> [ backend ] --> upstreams
 *                       ^                              |
 *                       +----------- replies ----------+
 */
#ifndef PROXYD_PROXIES_CHAIN_H
#define PROXYD_PROXIES_CHAIN_H

#include "proxies/conf.h"
#include "proxies/runtime.h"
#include "proxies/stats.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct ask;
struct chain;

/* A consistent copy of the state at the end of the chain's last turn. -1 when memory is short. */
int chain_stats(struct chain *chain, struct chain_stats *stats);
void chain_stats_close(struct chain_stats *stats);

/* Makes a chain and binds its endpoints; takes no message yet. `conf` and `runtime` must outlive it.
 * NULL with a reason in `err` (an address in use, a live ipc socket…). */
struct chain *chain_open(struct chain_conf *conf, struct runtime *runtime, char *err, size_t err_size);

/* Starts its thread. -1 with a reason in `err`. */
int chain_start(struct chain *chain, char *err, size_t err_size);

/* Its configuration: name and kind for good, the rest to be read while chain_progress says CHAIN_SETTLED. */
const struct chain_conf *chain_conf(const struct chain *chain);

/* Intake goes on, sending stops; and the reverse, which also ends a drain. */
void chain_pause(struct chain *chain);
void chain_resume(struct chain *chain);

/* New requests hear `shutting-down`, the queue empties. */
void chain_drain(struct chain *chain);

/* Drains for at most `drain_ms`; then what is unsent hears `shutting-down`, what was sent `lost`, and the
 * thread ends. Called again with 0 it ends at once. */
void chain_stop(struct chain *chain, int64_t drain_ms);

/* True once the thread has ended. */
bool chain_is_stopped(const struct chain *chain);

/* Begins to change the chain; its queue, counters and, where the frontend stays the same, its callers notice nothing.
 *
 *    frontend   callers on the old one hear their answers first, new requests on it `shutting-down`
 *    backend    nothing new is sent until what is in flight has ended; intake goes on
 *    store      as the backend, and intake waits until the messages have moved
 *
 * What has not ended by then is treated as at a stop. The chain gets ready, and changes when chain_proceed lets it;
 * in the meantime conf sections of both belong to it. */
void chain_change(struct chain *chain, const struct chain_change *change);
void chain_proceed(struct chain *chain);

enum chain_progress {
    CHAIN_SETTLED,   /* nothing to change, or not any more */
    CHAIN_PREPARING, /* something is in flight, or somebody waits */
    CHAIN_READY,     /* for chain_proceed */
};
enum chain_progress chain_progress(const struct chain *chain);

/* Ends a change that has not been let proceed; the chain goes on as it is. */
void chain_withdraw(struct chain *chain);

/* Is written to (as an eventfd) when the chain has ended or its state or progress has changed, so that a daemon need
 * not poll; -1 = none. Set before chain_start. */
void chain_set_waker(struct chain *chain, int eventfd);

/* Puts a question to the chain's queue; see ask.h. */
void chain_ask(struct chain *chain, struct ask *ask);

/* A sign of life: asks the loop to turn; chain_turns counts its turns. */
void chain_ping(struct chain *chain);
uint64_t chain_turns(const struct chain *chain);

/* For how long a ping has waited for the loop; 0 when none does. */
int64_t chain_silent_ms(const struct chain *chain);

/* Waits for the thread (if started) and releases the chain. */
void chain_free(struct chain *chain);

#endif
