/* SPDX-License-Identifier: MIT
 *
 * Host names -> numeric addresses, outside libzmq: its own lookup blocks the I/O thread that all sockets
 * share. Each lookup has a thread of its own for as long as it lasts, so a name server that does not answer
 * holds up nobody else's name.
 */
#ifndef PROXYD_PROXIES_RESOLVER_H
#define PROXYD_PROXIES_RESOLVER_H

#include <stddef.h>

struct lookup;
struct waker;

enum lookup_state { LOOKUP_PENDING, LOOKUP_DONE, LOOKUP_FAILED };

/* Starts looking `host` up; `waker` is woken when the state changes. Numeric addresses are done at once.
 * NULL when memory or threads are short. */
struct lookup *lookup_start(const char *host, struct waker *waker);

enum lookup_state lookup_state(const struct lookup *lookup);

/* LOOKUP_DONE: the addresses, IPv4 first (as libzmq itself prefers), each once. NULL past the last. */
const char *lookup_address(const struct lookup *lookup, size_t index);

/* Lets go of the result; a lookup still under way ends by itself. */
void lookup_release(struct lookup *lookup);

#endif
