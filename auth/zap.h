/* SPDX-License-Identifier: MIT
 *
 * The door: one thread that answers libzmq's question, for each connection to a protected socket, who may
 * come in (ZAP, RFC 27). It listens at inproc://zeromq.zap.01 of its context and must do so before any such
 * socket is bound: libzmq lets NULL connections pass where nobody listens, unless the socket enforces its
 * domain (option 93). A socket's ZAP domain names its policy.
 *
 * 200 lets in and leaves the user's id (users.h) on the connection, to be read from its messages as
 * "User-Id"; it is empty where nobody is asked for a name. 400 is a denial, after which a libzmq client stays
 * silent until its program makes a new socket; so it is given for what will not become right by waiting,
 * and nothing else. Everything that may pass is 300: the client hears nothing and tries again after the
 * handshake limit.
 *
 * Nothing here prints. If the thread ever ends by itself, sockets would be without a keeper: the daemon
 * must then end too (zap_is_running, zap_conf.waker).
 */
#ifndef PROXYD_AUTH_ZAP_H
#define PROXYD_AUTH_ZAP_H

#include "auth/address.h"
#include "auth/users.h"
#include "auth/zap_frames.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum zap_verdict {
    ZAP_ACCEPTED,
    ZAP_DENIED, /* 400: no such user, wrong password, unknown key; which of them is nobody's business */
    ZAP_DENIED_ADDRESS, /* 400: by `deny`, or not by `allow` */
    ZAP_DENIED_CHAIN,   /* 400: the right user, who may not use this chain */
    ZAP_MALFORMED,      /* 400: not a request, or a name that nobody can have */
    ZAP_SLOWED,         /* 300: too many failures */
    ZAP_OVERLOADED,     /* 300: no time or memory for it */
    ZAP_NOT_READY,      /* 300: there is no policy for this domain, or one for another mechanism (yet) */
    ZAP_VERDICTS
};

/* "accepted", "denied", "denied-address" and so on; static. */
const char *zap_verdict_name(enum zap_verdict verdict);

/* What one attempt came to. Texts are printable and live during the call only. */
struct zap_audit {
    enum zap_verdict verdict;
    const char *chain; /* "" where the domain is unknown */
    const char *user; /* the name given (CURVE: of the key, or else the key itself); "" where there is none */
    const char *address; /* as libzmq tells it */
    const char *mechanism;
};

struct zap_policy {
    const char *domain;
    const char *chain;
    enum zap_mechanism mechanism;
    struct users_slot *users; /* PLAIN: users; CURVE: keys, NULL admits any key; NULL mechanism: not used */
    char *const *patterns;    /* user names that may use the chain, on top of what the users file grants */
    size_t pattern_count;
    bool checks_chain; /* refuse users without this chain at the door; false where the frontend tells them */
    const struct address_range *allow,
        *deny; /* of tcp peers; no `allow` admits all that `deny` does not hit */
    size_t allow_count, deny_count;
};

struct zap_conf {
    void *zmq;            /* the context */
    int64_t handshake_ms; /* ZMQ_HANDSHAKE_IVL of the protected sockets */
    size_t memory_bytes;  /* auth_memory; also the limit to give to users_load */
    int waker;            /* eventfd that is written to when the thread has ended by itself; -1 = none */
    /* Called in the ZAP thread for every attempt; must neither block nor call back. NULL = none. */
    void (*audit)(void *context, const struct zap_audit *audit);
    void *audit_context;
};

struct zap;

/* Listens, and starts the ZAP thread and those that hash. Everybody hears 300 until policies are set.
 * NULL with a reason in `err`. */
struct zap *zap_open(const struct zap_conf *conf, char *err, size_t err_size);

/* Replaces all policies by copies of these; whoever asks after this returns is judged by them. Slots must
 * outlive the zap or their last policy. Any thread. -1 when memory is short, and the old ones stay. */
int zap_set_policies(struct zap *zap, const struct zap_policy *policies, size_t count);

/* How many attempts there were, by verdict. Any thread. */
void zap_stats(const struct zap *zap, uint64_t totals[static ZAP_VERDICTS]);

/* False when the thread has ended by itself; zap_failure then says why. Any thread. */
bool zap_is_running(const struct zap *zap);
const char *zap_failure(const struct zap *zap);

/* A sign of life: asks the loop to turn; zap_turns counts its turns. Any thread. */
void zap_ping(struct zap *zap);
uint64_t zap_turns(const struct zap *zap);

/* Ends the threads and releases everything. Protected sockets must be closed before. NULL is fine. */
void zap_close(struct zap *zap);

#endif
