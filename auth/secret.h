/* SPDX-License-Identifier: MIT
 *
 * Secrets at rest and in memory: Argon2id hashes as crypto_pwhash_str writes them, files that must not be
 * readable by everybody, wiping, comparing in constant time. Nothing here keeps a password after the call.
 *
 *     $argon2id$v=19$m=19456,t=2,p=1$<salt, 22 characters of base64>$<tag, 43 characters>
 */
#ifndef PROXYD_AUTH_SECRET_H
#define PROXYD_AUTH_SECRET_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

enum {
    SECRET_TEXT_BYTES = 128, /* of an encoded hash, with its NUL */
    SECRET_SALT_BYTES = 16,
    SECRET_TAG_BYTES = 32,
    SECRET_MEMORY_KIB = 19 * 1024, /* the defaults: what OWASP recommends for Argon2id, about 20 ms */
    SECRET_PASSES = 2,
    SECRET_MEMORY_KIB_MIN = 8,
    SECRET_WORK_KIB_MAX = 256 * 1024, /* memory times passes of one check: seven times the default's time */
    SECRET_PASSWORD_MAX = 255,        /* bytes; what PLAIN carries */
};

struct secret_hash {
    uint32_t memory_kib, passes;
    uint8_t salt[SECRET_SALT_BYTES], tag[SECRET_TAG_BYTES];
};

enum secret_verdict { SECRET_EQUAL, SECRET_DIFFERENT, SECRET_NO_MEMORY };

/* Makes libsodium ready; idempotent, any thread. -1 when the system has no randomness to give. */
int secret_open(void);

/* Hashes a password with a fresh salt. -1 when memory is short or a cost is out of range. */
int secret_hash_make(char text[static SECRET_TEXT_BYTES], const char *password, size_t size,
                     uint32_t memory_kib, uint32_t passes);

/* Reads an encoded hash of `size` bytes. -1 with a reason in `err` when it is not one, or when checking it
 * would take more than `memory_limit_bytes` or SECRET_WORK_KIB_MAX. */
int secret_hash_parse(struct secret_hash *hash, const char *text, size_t size, size_t memory_limit_bytes,
                      char *err, size_t err_size);

/* Hashes the password and compares, in time that depends on the costs only. */
enum secret_verdict secret_hash_check(const struct secret_hash *hash, const char *password, size_t size);

/* A hash of the costs of `model` that no password matches (but by a chance of 2^-256). */
void secret_hash_dummy(struct secret_hash *hash, const struct secret_hash *model);

/* Overwrites memory in a way that the compiler keeps. */
void secret_wipe(void *data, size_t size);

/* Unpredictable bytes. */
void secret_random(void *data, size_t size);

/* Reads a small regular file, no symbolic link, whose mode has none of the `forbidden` bits. Returns its
 * content with a NUL behind it, to be given to secret_free; `*size` does not count the NUL. NULL with a
 * reason in `err`, which names the file. */
char *secret_read_file(const char *path, mode_t forbidden, size_t *size, char *err, size_t err_size);

/* The password or key that a file holds: like secret_read_file for files closed to other users, and one
 * trailing newline is left out. An empty file, a NUL in it or more than SECRET_PASSWORD_MAX bytes is an
 * error. */
char *secret_read_password(const char *path, size_t *size, char *err, size_t err_size);

/* Wipes and releases. NULL is fine. */
void secret_free(char *data, size_t size);

#endif
