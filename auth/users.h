/* SPDX-License-Identifier: MIT
 *
 * Who there is and what each may use: the users file and the file of CURVE client keys as an immutable,
 * counted tree; and the decision user x chain, per message.
 *
 *     name:hash[:chain,chain…]              users; the hash is Argon2id, see secret.h
 *     name:public-key[:chain,chain…]        keys; 40 characters of Z85, which may themselves be colons
 *
 * One entry a line; blank lines and lines that start with # are skipped. Names are UTF-8 without control
 * characters and colons. Chains are patterns with * and ?; without a list, every chain.
 *
 * A user id, `name#fingerprint`, is what a login leaves on a connection. The fingerprint follows from the
 * stored hash or key, so that an id outlives every reload that leaves its user's credentials alone, and none
 * that removes or changes them. Rights to chains are looked up anew for each message.
 */
#ifndef PROXYD_AUTH_USERS_H
#define PROXYD_AUTH_USERS_H

#include "auth/secret.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum {
    USERS_KEY_BYTES = 32,
    USERS_ID_BYTES = 256, /* of a user id, with its NUL */
    USERS_NAME_MAX = 238, /* an id of such a name is 255 bytes, as long as ZAP allows */
};

enum users_kind { USERS_PASSWORDS, USERS_KEYS };

struct users;

/* An entry; lives as long as its tree. */
struct user {
    const char *name;
    size_t name_size;
    const char *chains; /* patterns parted by commas; NULL: all */
    uint64_t fingerprint;
    struct secret_hash hash;      /* USERS_PASSWORDS */
    uint8_t key[USERS_KEY_BYTES]; /* USERS_KEYS */
    unsigned line;
};

/* Is told of each problem: "FILE:LINE: message" or "FILE: message". */
typedef void users_problem_fn(void *context, const char *text);

/* Reads a file into a tree with one reference. A users file must be closed to other users (mode & 007), a
 * keys file not writable to them. Hashes whose check needs more than `memory_limit_bytes` are errors (keys:
 * not used). NULL after all problems were told. */
struct users *users_load(const char *path, enum users_kind kind, size_t memory_limit_bytes,
                         users_problem_fn *problem, void *context);

/* The same for a text in memory, which stands in messages as `path`. */
struct users *users_parse(const char *path, const char *text, size_t size, enum users_kind kind,
                          size_t memory_limit_bytes, users_problem_fn *problem, void *context);

/* One more reference, and one less. Any thread. NULL is fine. */
struct users *users_hold(struct users *users);
void users_free(struct users *users);

/* How many there are; users_any has them under the numbers below that. */
size_t users_count(const struct users *users);

/* The user of that name or that key, or NULL. */
const struct user *users_find(const struct users *users, const char *name, size_t size);
const struct user *users_find_key(const struct users *users, const uint8_t key[static USERS_KEY_BYTES]);

/* Any user, chosen by `number`, always the same by the same number; NULL when there is none. What a stranger
 * is made to cost. */
const struct user *users_any(const struct users *users, uint64_t number);

/* Writes the user's id. */
void users_write_id(const struct user *user, char id[static USERS_ID_BYTES]);

/* True when the user's own list grants `chain` and one of the chain's `patterns` (a frontend's `users`)
 * matches the name. */
bool users_grants(const struct user *user, const char *chain, char *const *patterns, size_t pattern_count);

/* The decision for one message: the name behind the id that its connection carries, or NULL: denied, because
 * the user is gone, has other credentials now, or may not use the chain. Cheap and without locks. The name
 * lives as long as the tree. A NULL id is denied. */
const char *users_decide(const struct users *users, const char *id, const char *chain, char *const *patterns,
                         size_t pattern_count);

/* True for a name that an entry could have. */
bool users_name_is_valid(const char *name, size_t size);

/* True for a list of chain names or patterns parted by commas, none of them empty. */
bool users_chains_are_valid(const char *chains);

/* True when `text` matches the shell-like pattern of `size` bytes: * any bytes, ? one byte. */
bool users_match(const char *pattern, size_t size, const char *text);

/* --- the current tree, shared by threads --- */

struct users_slot;

/* Takes the tree (NULL stays with the caller on failure). NULL when memory is short. */
struct users_slot *users_slot_new(struct users *users);
void users_slot_free(struct users_slot *slot);

/* Puts a new tree in place, which it takes. Any thread. Views see it at their next refresh. */
void users_slot_swap(struct users_slot *slot, struct users *users);

/* The current tree with a reference of the caller's own. Any thread. */
struct users *users_slot_hold(struct users_slot *slot);

/* One thread's view of a slot, for use without locks; zero-initialise with the slot in it. */
struct users_view {
    struct users_slot *slot;
    struct users *users;
    uint64_t generation;
};

/* The current tree; it lives until the next refresh. Once a loop turn, before messages are read: one atomic
 * load while nothing has changed. */
const struct users *users_view_refresh(struct users_view *view);
void users_view_close(struct users_view *view);

#endif
