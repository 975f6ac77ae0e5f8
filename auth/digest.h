/* SPDX-License-Identifier: MIT
 *
 * A digest (BLAKE2b) of bytes in pieces: equal for equal pieces. With a key, which is random and lives as long as the
 * process, nobody outside can tell it or make two different inputs that agree.
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

/* Begins a digest with the key. secret_open has been called. */
void digest_begin(struct digest *digest);

/* Begins one without a key: the same in every run. Nobody can find an input that agrees with another's; whoever makes
 * both could, with 2^64 tries. */
void digest_begin_lasting(struct digest *digest);

/* Adds a piece; where one ends and the next begins counts, too. */
void digest_add(struct digest *digest, const void *data, size_t size);

void digest_end(struct digest *digest, uint8_t out[static DIGEST_BYTES]);

#endif
