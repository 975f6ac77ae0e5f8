/* SPDX-License-Identifier: MIT
 *
 * BLAKE2b, under a key of this process or none; see digest.h.
 */
#include "auth/digest.h"

#include <pthread.h>

static uint8_t key[crypto_generichash_KEYBYTES];
static pthread_once_t key_once = PTHREAD_ONCE_INIT;

static void make_key(void)
{
    randombytes_buf(key, sizeof key);
}

void digest_begin(struct digest *digest)
{
    pthread_once(&key_once, make_key);
    crypto_generichash_init(&digest->state, key, sizeof key, DIGEST_BYTES);
}

void digest_begin_lasting(struct digest *digest)
{
    crypto_generichash_init(&digest->state, NULL, 0, DIGEST_BYTES);
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
