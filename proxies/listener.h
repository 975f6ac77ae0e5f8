/* SPDX-License-Identifier: MIT
 *
 * The sockets that listen at tcp and ipc addresses, one for each address of this process. They are made here and
 * libzmq gets duplicates (ZMQ_USE_FD), for two reasons: an address that cannot be had is known before anything
 * has changed for it, and one that passes from a socket to its successor is never without a listener, while what
 * libzmq binds by itself it gives up later, on another thread.
 *
 * As there is one guard in a process, so there is one set of addresses.
 */
#ifndef PROXYD_PROXIES_LISTENER_H
#define PROXYD_PROXIES_LISTENER_H

#include "proxies/endpoint.h"

#include <stdbool.h>
#include <stddef.h>

/* False for inproc, and where the address is chosen by the system (port 0, `ipc://` and `*`): those are for
 * libzmq. */
bool listener_suits(const struct endpoint *endpoint);

/* A descriptor for libzmq, which closes it, of the socket that listens there; made if there is none. An ipc path is
 * bound only when nothing is there or a socket that nobody listens on. Any thread. -1 with a reason in `err`. */
int listener_share(const struct endpoint *endpoint, char *err, size_t err_size);

/* Closes the one at `endpoint`, if any, and removes the ipc file that it made; libzmq's own lives on. */
void listener_end(const struct endpoint *endpoint);

/* A new set of addresses is about to replace the present one: listeners_want names each, listeners_settle ends
 * it. One thread. */
void listeners_begin(void);

/* Listens there if that is not done yet. An address that only collides with one not (yet) wanted any more can be had
 * all the same. -1 with a reason in `err`. */
int listeners_want(const struct endpoint *endpoint, char *err, size_t err_size);

/* With `is_good` what was not wanted is closed, and an ipc file of ours removed; otherwise what is new. */
void listeners_settle(bool is_good);

/* Closes all of them. */
void listeners_close(void);

#endif
