/* SPDX-License-Identifier: MIT
 *
 * A digest (BLAKE2b) of bytes in pieces: equal for equal pieces, and where one piece ends and the next begins counts,
 * too.
 */
#ifndef PROXYD_AUTH_DIGEST_H
#define PROXYD_AUTH_DIGEST_H

#include <sodium.h>
#include <stddef.h>
#include <stdint.h>

enum { DIGEST_BYTES = 16, DIGEST_KEY_BYTES = crypto_generichash_KEYBYTES };

struct digest {
    crypto_generichash_state state;
};

/* Begins a digest. Under a random `key` nobody without it can tell the digest, or make two inputs that agree. NULL:
 * the same in every run; nobody can find an input that agrees with another's, but whoever makes both could, with
 * 2^64 tries. */
void digest_begin(struct digest *digest, const uint8_t key[DIGEST_KEY_BYTES]);

/* Adds a piece. */
void digest_add(struct digest *digest, const void *data, size_t size);

/* Ends it. What was added may be read out of `digest` still: wipe it (secret_wipe) where that was a secret. */
void digest_end(struct digest *digest, uint8_t out[static DIGEST_BYTES]);

#endif
