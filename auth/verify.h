/* SPDX-License-Identifier: MIT
 *
 * Checks passwords without ever holding up who asks: workers hash, what they found right is remembered, who
 * fails often is slowed. One asker (the ZAP thread), a worker for each core that there is memory for; the mutex
 * between them is never held while hashing.
 *
 *     ask --remembered-------------------------------------------------> GOOD
 *      |
 *      +--> told lane    an address in credit: at most 20 failures a minute
 *      +--> quiet lane   an address that used those up, and a user who exists: worked on when the told lane
 *      |                 is empty; only success is ever heard of; at most 20 failures a minute for a user
 *      +--> no lane      anything else of such an address: held until the deadline, like every quiet failure,
 *                        so that nothing shows who exists
 *
 * Credentials are remembered under a keyed hash of name, password and stored hash: a changed or removed user
 * is forgotten by that alone. Askers of the same credentials share one job. A job whose askers ran out of
 * time stays behind in the quiet lane for as long again, so that their next attempt finds work done, not
 * repeated. Memory is fixed at verify_new; beyond it the address space of the hashes is reserved.
 */
#ifndef PROXYD_AUTH_VERIFY_H
#define PROXYD_AUTH_VERIFY_H

#include "auth/address.h"
#include "auth/users.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/queue.h>

enum {
    VERIFY_FREE_FAILURES = 20, /* a minute: per address told, per user quiet */
    VERIFY_JOBS_MAX = 2048,
    VERIFY_REMEMBERED_MAX = 16384,
    VERIFY_WAITERS_MAX = 8192,
};

enum verify_verdict {
    VERIFY_WAIT,       /* the answer comes from verify_take */
    VERIFY_GOOD,       /* these are the user's name and password */
    VERIFY_BAD,        /* they are not */
    VERIFY_SLOWED,     /* too many failures; may be tried again */
    VERIFY_OVERLOADED, /* no time or no memory; may be tried again */
};

struct verify;
struct verify_job;

/* One who asks: part of the caller's struct, in our lists from a VERIFY_WAIT until verify_take. */
struct verify_waiter {
    struct address address; /* in: what counts as one peer (address_group) */
    uint64_t fingerprint;   /* out: of the user whose stored hash was asked about */
    enum verify_verdict verdict;
    int64_t deadline_ms;
    struct verify_job *job;
    TAILQ_ENTRY(verify_waiter) job_link, age_link;
};

/* `patience_ms` is how long an asker waits: less than the handshake limit. `memory_bytes` is reserved for
 * hashing, all workers together; no stored hash may need more. NULL when memory is short. */
struct verify *verify_new(int64_t patience_ms, size_t memory_bytes);
void verify_free(struct verify *verify);

/* Starts the workers, at a lower priority than the rest; they write to `eventfd` when there is something to
 * take. -1 with errno. */
int verify_start(struct verify *verify, int eventfd);
void verify_stop(struct verify *verify);

/* Asks whether a user has this password. Never waits, keeps copies of what it needs. The name must be valid
 * (users_name_is_valid), the password at most SECRET_PASSWORD_MAX bytes. */
enum verify_verdict verify_ask(struct verify *verify, const struct users *users, const char *name,
                               size_t name_size, const char *password, size_t password_size,
                               struct verify_waiter *waiter, int64_t now_ms);

/* Ends the wait of those whose deadline has come. Returns milliseconds to the next deadline, -1 for none. */
int64_t verify_tick(struct verify *verify, int64_t now_ms);

/* One whose wait is over, with its verdict; the caller's again. NULL when there is none. */
struct verify_waiter *verify_take(struct verify *verify);

/* What a worker does all day: hashes for one job. False when there is nothing to hash, or no memory until another
 * worker is done. */
bool verify_work(struct verify *verify, int64_t now_ms);

#endif
