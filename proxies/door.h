/* SPDX-License-Identifier: MIT
 *
 * Who may come in by the bound sockets of one side of a chain. This room asks; the daemon, which knows users
 * and addresses, answers. A door belongs to its chain's thread.
 */
#ifndef PROXYD_PROXIES_DOOR_H
#define PROXYD_PROXIES_DOOR_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct chain_conf;

enum door_side { DOOR_FRONTEND, DOOR_BACKEND };
enum door_mechanism { DOOR_NULL, DOOR_PLAIN, DOOR_CURVE };
enum door_verdict { DOOR_OPEN, DOOR_DENIED, DOOR_RATE_LIMITED };

struct door {
    enum door_mechanism mechanism;
    const char *zap_domain; /* how the ZAP handler knows the socket; NULL: it is not asked (DOOR_NULL only) */
    const char *curve_secret_key; /* DOOR_CURVE: ours, in Z85 */
    bool checks_messages;         /* each message is asked about, not only each connection */
};

/* How doors are made and asked; the daemon's. */
struct doorman {
    /* The door of that side, or NULL with a reason in `err`. It lives until `close`. */
    struct door *(*open)(void *context, const struct chain_conf *conf, enum door_side side, char *err,
                         size_t err_size);
    void (*close)(struct door *door);

    /* Takes in what has changed since; true when that may turn a verdict. Once per turn of the loop, before
     * messages are read. Never blocks. */
    bool (*refresh)(struct door *door);

    /* checks_messages: whether a message may pass that came by a connection with this ZAP user id, or with DOOR_NULL
     * from this address (NULL where there is none). With DOOR_OPEN *user is the user's name, good until the next
     * refresh, or NULL. */
    enum door_verdict (*check)(struct door *door, const char *user_id, const char *address, int64_t now_ms,
                               const char **user);
    void *context;
};

#endif
