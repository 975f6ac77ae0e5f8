/* SPDX-License-Identifier: MIT
 *
 * Changing one entry of a users file in place: what `proxyctl passwd` does. The daemon never does.
 */
#ifndef PROXYD_AUTH_USERS_EDIT_H
#define PROXYD_AUTH_USERS_EDIT_H

#include <stdbool.h>
#include <stddef.h>

struct users_change {
    const char *name;
    const char *password; /* NULL: keep */
    size_t password_size;
    const char *chains; /* "a,b-*"; "*" for all; NULL: keep, or all for a new user */
    bool is_removal;
};

/* Adds, changes or deletes one entry of a users file and keeps everything else, byte for byte: comments,
 * order, mode, owner. A missing file is created with mode 0600 when there is a password to put in it. The
 * file is replaced whole or not at all, and is on disk when this returns. Two edits at a time follow one
 * another. -1 with a reason in `err`. */
int users_edit(const char *path, const struct users_change *change, char *err, size_t err_size);

#endif
