/* SPDX-License-Identifier: MIT
 *
 * CURVE key pairs, as Z85 text, made by libzmq.
 */
#ifndef PROXYD_AUTH_KEYGEN_H
#define PROXYD_AUTH_KEYGEN_H

#include <stddef.h>

enum { KEYGEN_TEXT_BYTES = 41 }; /* a key as text, with its NUL */

struct keygen_pair {
    char public_key[KEYGEN_TEXT_BYTES];
    char secret_key[KEYGEN_TEXT_BYTES];
};

/* A fresh pair; wipe it (secret_wipe) after use. -1 when this libzmq has no CURVE. */
int keygen_make(struct keygen_pair *pair);

/* The public key that belongs to a secret one. -1 when that is no key. */
int keygen_public(char public_key[static KEYGEN_TEXT_BYTES], const char *secret_key);

/* Writes the secret key and a newline to a new file of mode 0600, to disk; an existing file is an error and
 * stays as it is. -1 with a reason in `err`, and no file left. */
int keygen_save_secret(const char *path, const struct keygen_pair *pair, char *err, size_t err_size);

#endif
