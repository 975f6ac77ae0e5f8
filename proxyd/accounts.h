/* SPDX-License-Identifier: MIT
 *
 * The commands of proxyctl that need no daemon because they make what one reads: entries of a users file, and
 * CURVE keys. They ask for passwords on the terminal, without echo, and complain on stderr.
 */
#ifndef PROXYD_PROXYD_ACCOUNTS_H
#define PROXYD_PROXYD_ACCOUNTS_H

#include <stdbool.h>

struct accounts_change {
    const char *path; /* of the users file */
    const char *user;
    const char *chains; /* patterns parted by commas; NULL = as they are, or all for a new user */
    bool is_removal;
    bool reads_stdin; /* the password; otherwise the terminal is asked */
};

/* Each carries the command out and returns the exit status of proxyctl. */

/* Adds, changes or deletes one entry. Of a user who is there already, `chains` alone change without a
 * password. */
int accounts_passwd(const struct accounts_change *change);

/* Makes a pair of keys: the secret one in a new file NAME.key, and a line for a file of client keys, with the
 * name behind the last slash of NAME, on standard output. */
int accounts_keygen(const char *name);

#endif
