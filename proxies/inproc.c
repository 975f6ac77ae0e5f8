/* SPDX-License-Identifier: MIT
 *
 * Inproc names and who is joined by them; see inproc.h. The mutex is held over libzmq's own bind and connect, so that
 * nobody connects to a name in the moment that it is given up.
 */
#include "proxies/inproc.h"

#include "buffer/list.h"

#include <errno.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <zmq.h>

struct inproc {
    struct list link; /* names, until it is given up */
    const char *address;
    const void *owner; /* the socket that bound it */
    uint32_t references;
    atomic_uint connections, ever;
    atomic_bool is_gone;
};

static pthread_mutex_t mutex = PTHREAD_MUTEX_INITIALIZER;
static struct list names = {&names, &names};

static struct inproc *find(const char *address)
{
    LIST_EACH (link, &names) {
        struct inproc *name = LIST_ENTRY(link, struct inproc, link);
        if (strcmp(name->address, address) == 0)
            return name;
    }
    errno = ECONNREFUSED;
    return NULL;
}

struct inproc *inproc_bind(void *zmq, const char *address)
{
    struct inproc *name = calloc(1, sizeof *name);
    if (!name)
        return NULL;
    *name = (struct inproc){.address = address, .owner = zmq, .references = 1};
    pthread_mutex_lock(&mutex);
    int rc = zmq_bind(zmq, address);
    if (rc == 0)
        list_append(&names, &name->link);
    pthread_mutex_unlock(&mutex);
    if (rc == 0)
        return name;
    free(name);
    return NULL;
}

struct inproc *inproc_connect(void *zmq, const char *address)
{
    pthread_mutex_lock(&mutex);
    struct inproc *name = find(address);
    if (name && zmq_connect(zmq, address) != 0)
        name = NULL;
    if (name) {
        name->references++;
        atomic_fetch_add(&name->ever, 1);
        atomic_fetch_add(&name->connections, 1);
    }
    pthread_mutex_unlock(&mutex);
    return name;
}

void inproc_leave(struct inproc *name, void *zmq)
{
    pthread_mutex_lock(&mutex);
    if (name->owner == zmq) {
        zmq_unbind(zmq, name->address);
        list_remove(&name->link);
        atomic_store(&name->is_gone, true);
    } else {
        atomic_fetch_sub(&name->connections, 1);
    }
    bool is_last = --name->references == 0;
    pthread_mutex_unlock(&mutex);
    if (is_last)
        free(name);
}

bool inproc_is_gone(const struct inproc *name)
{
    return atomic_load(&name->is_gone);
}

uint32_t inproc_connections(const struct inproc *name, uint32_t *ever)
{
    *ever = atomic_load(&name->ever);
    return atomic_load(&name->connections);
}
