/* SPDX-License-Identifier: MIT
 *
 * A keyed digest (BLAKE2b) of bytes in pieces: equal for equal pieces, and nobody outside can make two different
 * inputs that agree. The key is random and lives as long as the process.
 */
#ifndef PROXYD_AUTH_DIGEST_H
#define PROXYD_AUTH_DIGEST_H

#include <sodium.h>
#include <stddef.h>
#include <stdint.h>

enum { DIGEST_BYTES = 16 };

struct digest {
    crypto_generichash_state state;
};

/* Begins a digest. secret_open has been called. */
void digest_begin(struct digest *digest);

/* Adds a piece; where one ends and the next begins counts, too. */
void digest_add(struct digest *digest, const void *data, size_t size);

void digest_end(struct digest *digest, uint8_t out[static DIGEST_BYTES]);

#endif
