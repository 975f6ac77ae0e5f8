/* SPDX-License-Identifier: MIT
 *
 * BLAKE2b by libsodium; see digest.h.
 */
#include "auth/digest.h"

void digest_begin(struct digest *digest, const uint8_t key[DIGEST_KEY_BYTES])
{
    crypto_generichash_init(&digest->state, key, key ? DIGEST_KEY_BYTES : 0, DIGEST_BYTES);
}

void digest_add(struct digest *digest, const void *data, size_t size)
{
    uint64_t length = size;
    crypto_generichash_update(&digest->state, (const void *)&length, sizeof length);
    crypto_generichash_update(&digest->state, data, size);
}

void digest_end(struct digest *digest, uint8_t out[static DIGEST_BYTES])
{
    crypto_generichash_final(&digest->state, out, DIGEST_BYTES);
}
