/* SPDX-License-Identifier: MIT
 *
 * CURVE key pairs; see keygen.h.
 */
#include "auth/keygen.h"

#include <errno.h>
#include <fcntl.h>
#include <stdbool.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>
#include <zmq.h>

int keygen_make(struct keygen_pair *pair)
{
    return zmq_curve_keypair(pair->public_key, pair->secret_key);
}

int keygen_public(char public_key[static KEYGEN_TEXT_BYTES], const char *secret_key)
{
    return strlen(secret_key) == KEYGEN_TEXT_BYTES - 1 ? zmq_curve_public(public_key, secret_key) : -1;
}

int keygen_save_secret(const char *path, const struct keygen_pair *pair, char *err, size_t err_size)
{
    int fd = open(path, O_WRONLY | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC, 0600);
    bool is_done = false;
    if (fd >= 0) {
        is_done = dprintf(fd, "%s\n", pair->secret_key) == KEYGEN_TEXT_BYTES && fsync(fd) == 0;
        if (!is_done)
            unlink(path);
    }
    if (!is_done)
        snprintf(err, err_size, "%s: %s", path, strerror(errno));
    if (fd >= 0)
        close(fd);
    return is_done ? 0 : -1;
}
