/* SPDX-License-Identifier: MIT
 *
 * The words that all parts of a store share: a message as a row, and how an operation can end.
 */
#ifndef PROXYD_BUFFER_STORE_ROW_H
#define PROXYD_BUFFER_STORE_ROW_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum {
    STORE_SEQUENCE_BITS = 48,
    STORE_SECRET_BYTES = 16, /* unguessable, in each ticket */
    STORE_REASON_BYTES = 32,
    STORE_DIGEST_BYTES = 16,
    STORE_MESSAGE_MAX = 512 << 20, /* flat bytes: half of what SQLite takes */
};

enum store_result {
    STORE_OK,
    STORE_FULL,    /* no space: the transaction did not happen */
    STORE_BROKEN,  /* an I/O error: whether it happened is unknown; open again */
    STORE_CORRUPT, /* the file is damaged; open again, which sets it aside and salvages */
    STORE_REFUSED, /* open only: locked, forbidden, newer, not ours */
};

/* A message as it is written and read. */
struct store_row {
    uint64_t id;   /* chain << 48 | sequence */
    size_t bytes;  /* payload of all frames */
    int64_t taken; /* by the store's clock */
    uint32_t attempts;
    uint64_t owner;
    unsigned char secret[STORE_SECRET_BYTES];
    char reason[STORE_REASON_BYTES]; /* of dead letters */
    bool has_digest; /* to be remembered beside the message; DELETE, EXPIRE: to be forgotten */
    unsigned char digest[STORE_DIGEST_BYTES];
    const void *flat; /* not owned */
    size_t flat_bytes;
};

#endif
