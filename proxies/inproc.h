/* SPDX-License-Identifier: MIT
 *
 * The inproc names that are bound in this process. libzmq lets a socket connect to a name that nobody has bound, and
 * hands over what it was given whenever somebody does, even when it is closed by then; and it does not tell that the
 * one it connected to is gone. So a name is connected to only while somebody has it, and both ends see who is there.
 */
#ifndef PROXYD_PROXIES_INPROC_H
#define PROXYD_PROXIES_INPROC_H

#include <stdbool.h>
#include <stdint.h>

struct inproc; /* a name that was bound, as long as somebody is joined by it */

/* Binds the ZeroMQ socket `zmq` to `address`, which must outlive that. NULL and errno as zmq_bind. */
struct inproc *inproc_bind(void *zmq, const char *address);

/* Connects `zmq` to `address`. NULL and errno as zmq_connect; ECONNREFUSED where nobody has bound it. */
struct inproc *inproc_connect(void *zmq, const char *address);

/* To be called before `zmq`, which bound or connected, is closed. The name is free then, and not only when libzmq has
 * closed its owner. */
void inproc_leave(struct inproc *name, void *zmq);

/* Whoever bound it has left. What had been sent by then can be read. Any thread; a socket is woken by its peer's end. */
bool inproc_is_gone(const struct inproc *name);

/* Who is connected to it now, and `*ever`. Any thread. */
uint32_t inproc_connections(const struct inproc *name, uint32_t *ever);

#endif
