/* SPDX-License-Identifier: MIT
 *
 * Argon2id by libsodium; see secret.h. The encoded form is taken apart here and hashed with crypto_pwhash,
 * because crypto_pwhash_str_verify cannot tell a wrong password from a lack of memory, and because costs
 * must be known before they are paid.
 */
#include "auth/secret.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <sodium.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

enum { FILE_BYTES_MAX = 64 * 1024 * 1024 };

int secret_open(void)
{
    return sodium_init() < 0 ? -1 : 0;
}

int secret_hash_make(char text[static SECRET_TEXT_BYTES], const char *password, size_t size,
                     uint32_t memory_kib, uint32_t passes)
{
    _Static_assert(SECRET_TEXT_BYTES >= crypto_pwhash_STRBYTES, "an encoded hash fits");
    if (secret_open() || memory_kib < SECRET_MEMORY_KIB_MIN || passes < 1)
        return -1;
    return crypto_pwhash_argon2id_str(text, password, size, passes, (size_t)memory_kib * 1024);
}

/* Moves `*at` behind `word` if it stands there. */
static bool skip(const char **at, const char *end, const char *word)
{
    size_t size = strlen(word);
    if ((size_t)(end - *at) < size || memcmp(*at, word, size) != 0)
        return false;
    *at += size;
    return true;
}

static bool take_number(const char **at, const char *end, uint32_t *number)
{
    const char *start = *at;
    uint64_t value = 0;
    for (; *at < end && **at >= '0' && **at <= '9' && value <= UINT32_MAX; (*at)++)
        value = value * 10 + (uint64_t)(**at - '0');
    *number = (uint32_t)value;
    return *at > start && *start != '0' && value <= UINT32_MAX;
}

static bool take_base64(const char **at, const char *end, uint8_t *bytes, size_t size)
{
    size_t length = (size * 8 + 5) / 6, decoded;
    if ((size_t)(end - *at) < length ||
        sodium_base642bin(bytes, size, *at, length, NULL, &decoded, NULL,
                          sodium_base64_VARIANT_ORIGINAL_NO_PADDING) != 0 ||
        decoded != size)
        return false;
    *at += length;
    return true;
}

int secret_hash_parse(struct secret_hash *hash, const char *text, size_t size, size_t memory_limit_bytes,
                      char *err, size_t err_size)
{
    const char *at = text, *end = text + size;
    if (!skip(&at, end, "$argon2id$v=19$m=") || !take_number(&at, end, &hash->memory_kib) ||
        !skip(&at, end, ",t=") || !take_number(&at, end, &hash->passes) || !skip(&at, end, ",p=1$") ||
        !take_base64(&at, end, hash->salt, sizeof hash->salt) || !skip(&at, end, "$") ||
        !take_base64(&at, end, hash->tag, sizeof hash->tag) || at != end) {
        snprintf(err, err_size, "not an Argon2id hash as `proxyctl passwd` writes it");
        return -1;
    }
    if (hash->memory_kib < SECRET_MEMORY_KIB_MIN) {
        snprintf(err, err_size, "the hash's memory of %" PRIu32 " KiB is below the least, %d",
                 hash->memory_kib, SECRET_MEMORY_KIB_MIN);
        return -1;
    }
    if (hash->memory_kib > memory_limit_bytes / 1024) {
        snprintf(err, err_size, "the hash's memory of %" PRIu32 " KiB is above auth_memory, %zu KiB",
                 hash->memory_kib, memory_limit_bytes / 1024);
        return -1;
    }
    if ((uint64_t)hash->memory_kib * hash->passes > SECRET_WORK_KIB_MAX) {
        snprintf(err, err_size,
                 "the hash's work (m=%" PRIu32 " KiB times t=%" PRIu32 ") is above the limit of %d KiB",
                 hash->memory_kib, hash->passes, SECRET_WORK_KIB_MAX);
        return -1;
    }
    return 0;
}

enum secret_verdict secret_hash_check(const struct secret_hash *hash, const char *password, size_t size)
{
    uint8_t tag[SECRET_TAG_BYTES];
    if (crypto_pwhash(tag, sizeof tag, password, size, hash->salt, hash->passes,
                      (size_t)hash->memory_kib * 1024, crypto_pwhash_ALG_ARGON2ID13) != 0)
        return SECRET_NO_MEMORY; /* the only failure left: the costs were checked when the hash was read */
    bool is_equal = sodium_memcmp(tag, hash->tag, sizeof tag) == 0;
    secret_wipe(tag, sizeof tag);
    return is_equal ? SECRET_EQUAL : SECRET_DIFFERENT;
}

void secret_hash_dummy(struct secret_hash *hash, const struct secret_hash *model)
{
    hash->memory_kib = model->memory_kib;
    hash->passes = model->passes;
    secret_random(hash->salt, sizeof hash->salt);
    secret_random(hash->tag, sizeof hash->tag);
}

void secret_wipe(void *data, size_t size)
{
    sodium_memzero(data, size);
}

void secret_random(void *data, size_t size)
{
    randombytes_buf(data, size);
}

void secret_free(char *data, size_t size)
{
    if (!data)
        return;
    secret_wipe(data, size);
    free(data);
}

/* Everything from `fd` into `data`, at most `size` bytes. -1 with errno. */
static ssize_t read_all(int fd, char *data, size_t size)
{
    size_t done = 0;
    while (done < size) {
        ssize_t count = read(fd, data + done, size - done);
        if (count < 0 && errno == EINTR)
            continue;
        if (count < 0)
            return -1;
        if (count == 0)
            break;
        done += (size_t)count;
    }
    return (ssize_t)done;
}

char *secret_read_file(const char *path, mode_t forbidden, size_t *size, char *err, size_t err_size)
{
    /* O_NONBLOCK: a FIFO at this path must not hold us up; fstat refuses it. */
    int fd = open(path, O_RDONLY | O_NOFOLLOW | O_NONBLOCK | O_CLOEXEC);
    struct stat status;
    char *data = NULL;
    if (fd < 0 || fstat(fd, &status) < 0) {
        snprintf(err, err_size, "%s: %s", path,
                 errno == ELOOP ? "is a symbolic link, which is not followed" : strerror(errno));
    } else if (!S_ISREG(status.st_mode)) {
        snprintf(err, err_size, "%s: is not a regular file", path);
    } else if (status.st_mode & forbidden) {
        snprintf(err, err_size, "%s: mode %04o lets others in; chmod %04o it", path,
                 (unsigned)(status.st_mode & 07777), (unsigned)(status.st_mode & 07777 & ~forbidden));
    } else if (status.st_size > FILE_BYTES_MAX) {
        snprintf(err, err_size, "%s: is larger than %d bytes", path, FILE_BYTES_MAX);
    } else if (!(data = malloc((size_t)status.st_size + 1))) {
        snprintf(err, err_size, "%s: out of memory", path);
    } else {
        ssize_t count = read_all(fd, data, (size_t)status.st_size);
        if (count < 0) {
            snprintf(err, err_size, "%s: %s", path, strerror(errno));
            secret_free(data, (size_t)status.st_size);
            data = NULL;
        } else {
            data[count] = '\0';
            *size = (size_t)count;
        }
    }
    if (fd >= 0)
        close(fd);
    return data;
}

char *secret_read_password(const char *path, size_t *size, char *err, size_t err_size)
{
    char *data = secret_read_file(path, S_IRWXO, size, err, err_size);
    if (!data)
        return NULL;
    size_t whole = *size;
    if (*size > 0 && data[*size - 1] == '\n')
        data[--*size] = '\0';
    const char *problem = *size == 0                          ? "is empty"
                          : *size > SECRET_PASSWORD_MAX       ? "holds more than 255 bytes"
                          : memchr(data, '\0', *size) != NULL ? "holds a NUL byte"
                                                              : NULL;
    if (!problem)
        return data;
    snprintf(err, err_size, "%s: %s", path, problem);
    secret_free(data, whole);
    return NULL;
}
