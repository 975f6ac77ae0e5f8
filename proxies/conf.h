/* SPDX-License-Identifier: MIT
 *
 * The configuration of one chain as plain values. The daemon fills it from its file; a running chain only
 * reads it. Defaults and ranges are the loader's business (proxyd/config_keys.def).
 */
#ifndef PROXYD_PROXIES_CONF_H
#define PROXYD_PROXIES_CONF_H

#include "buffer/queue.h"
#include "proxies/endpoint.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct dialect;
struct kind;

/* What a connecting socket presents: a name and a password, or keys, or (all NULL) nothing; and whom it trusts. */
struct credentials {
    char *username;
    char *password;         /* any bytes but NUL, at most 255 */
    char *curve_server_key; /* the peer's, in Z85, as the next two */
    char *curve_public_key;
    char *curve_secret_key;
    char *tls_ca_file; /* wss: the certificates of those who may vouch for the server; NULL = the system's */
    int64_t tls_ca_changed_ns; /* that file's last change (Unix time) when the configuration was read */
};

struct endpoint_list {
    struct endpoint *items;
    size_t count;
};

struct text_list {
    char **items;
    size_t count;
};

/* Who may come in by the bound sockets of a side. */
struct access_conf {
    int auth;               /* enum door_mechanism */
    char *curve_secret_key; /* DOOR_CURVE: ours, in Z85 */
    char *curve_keys;       /* DOOR_CURVE: the file of the peers' keys */
    struct text_list users; /* patterns of the names that may come in */
    struct text_list allow; /* address ranges in CIDR form; none = any */
    struct text_list deny;
    int64_t rate;  /* messages a second of a user or an address; 0 = no limit */
    int64_t burst; /* at once; 0 = as many as rate */
};

/* Whether the session of a message is valid, which an RPC server knows. */
struct verify_conf {
    struct endpoint_list endpoint; /* one; none = everything passes */
    struct credentials credentials;
    char *method;
    char *session_field;
    int64_t timeout_ms;
    int64_t cache_ms;
};

struct frontend_conf {
    struct endpoint_list endpoints;
    struct access_conf access;
    struct text_list subscribe;     /* SUB */
    int64_t recreate_after_ms;      /* SUB; 0 = never */
    int64_t backoff_ms;             /* SUB */
    int64_t backoff_max_ms;         /* SUB */
    int64_t max_message_bytes;      /* 0 = no limit */
    int64_t max_frames;             /* 0 = no limit */
    struct credentials credentials; /* SUB: towards the publisher */
    struct endpoint_list tickets;   /* buffered kinds */
    struct verify_conf verify;      /* SUB */
};

enum correlation { CORRELATION_AUTO, CORRELATION_LOCKSTEP, CORRELATION_ENVELOPE };
enum balance { BALANCE_ROUND_ROBIN, BALANCE_LEAST_PENDING, BALANCE_FAILOVER, BALANCE_ALL };
enum { BALANCE_ALL_MAX = 64 }; /* endpoints that BALANCE_ALL can go to */

enum strategy { STRATEGY_ROUND_ROBIN, STRATEGY_LEAST_PENDING, STRATEGY_STICKY };

/* Workers that connect to the backend, and heartbeats by which they prove to be alive. */
struct workers_conf {
    struct endpoint_list heartbeat; /* one */
    int64_t interval_ms;            /* between a worker's heartbeats */
    int64_t timeout_ms;             /* silent for so long, it has missed one */
    int64_t max_missed;
    int strategy; /* enum strategy */
};

struct backend_conf {
    struct endpoint_list endpoints;
    struct access_conf access; /* PUB and workers */
    struct credentials credentials;
    int64_t timeout_ms; /* 0 = none */
    int64_t retries;
    int64_t backoff_ms;
    int64_t backoff_max_ms;
    int64_t window;
    int correlation;      /* enum correlation */
    int balance;          /* enum balance */
    int64_t heartbeat_ms; /* PUB */
    int64_t hwm;          /* PUB */
    struct workers_conf workers;
};

enum queue_store { STORE_MEMORY, STORE_DISK, STORE_POSTGRESQL };

struct queue_conf {
    int store; /* enum queue_store */
    int64_t max_messages;
    int64_t max_bytes;
    int64_t max_age_ms;
    int when_full; /* enum queue_full_policy */
    int64_t max_attempts;
    int64_t patience_ms;
    int64_t keep_replies_ms;
    int64_t dedupe_ms;
    int64_t drain_rate; /* messages per second; 0 = as fast as it goes */
    int64_t sync_ms;    /* DISK: 0 = always */
};

struct chain_conf {
    char *name;
    const struct kind *kind;
    const struct dialect *dialect;
    struct frontend_conf frontend;
    struct backend_conf backend;
    struct queue_conf queue;
};

/* Another configuration for a running chain of the same name and kind. */
struct chain_change {
    struct chain_conf *next; /* its sections and the chain's own are exchanged */
    bool frontend, backend;  /* sockets are made anew */
    bool store;              /* messages move */
    int64_t drain_ms;        /* so long at most for those who wait, and for what is in flight */
};

#endif
