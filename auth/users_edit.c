/* SPDX-License-Identifier: MIT
 *
 * Changing one entry of a users file in place, for `proxyctl passwd`; see users_edit.h. Works on lines, so
 * that what it does not understand survives. The new file is written beside the old one and renamed over it.
 */
#include "auth/users_edit.h"

#include "auth/users.h"

#include <errno.h>
#include <fcntl.h>
#include <libgen.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

/* The file under edit: locked, so that editors follow one another. */
struct edit {
    const char *path;
    const struct users_change *change;
    char hash[SECRET_TEXT_BYTES]; /* of the new password */
    int lock_fd;
    struct stat status;
    char *text;
    size_t size;
    char *err;
    size_t err_size;
};

static int fail(const struct edit *edit, const char *reason)
{
    snprintf(edit->err, edit->err_size, "%s: %s", edit->path, reason);
    return -1;
}

/* Opens and locks the file that stands at the path once the lock is ours: whoever had it may have replaced
 * the file meanwhile. */
static int lock_file(struct edit *edit)
{
    int create = edit->change->password ? O_CREAT : 0;
    for (;;) {
        struct stat now;
        edit->lock_fd = open(edit->path, O_RDONLY | O_NOFOLLOW | O_NONBLOCK | O_CLOEXEC | create, 0600);
        if (edit->lock_fd < 0)
            return fail(edit, errno == ELOOP ? "is a symbolic link, which is not followed" : strerror(errno));
        if (flock(edit->lock_fd, LOCK_EX) < 0 || fstat(edit->lock_fd, &edit->status) < 0)
            return fail(edit, strerror(errno));
        if (lstat(edit->path, &now) == 0 && now.st_dev == edit->status.st_dev &&
            now.st_ino == edit->status.st_ino)
            return 0;
        close(edit->lock_fd);
    }
}

/* Finds the line of the user: its start and the start of the next one. False: there is none, and both are
 * the end of the text. */
static bool find_line(const struct edit *edit, size_t *start, size_t *end)
{
    size_t name_size = strlen(edit->change->name);
    for (*start = 0; *start < edit->size; *start = *end) {
        const char *line = edit->text + *start;
        const char *newline = memchr(line, '\n', edit->size - *start);
        *end = newline ? (size_t)(newline - edit->text) + 1 : edit->size;
        const char *name = line;
        while (name < edit->text + *end && (*name == ' ' || *name == '\t'))
            name++;
        if ((size_t)(edit->text + *end - name) > name_size && name[name_size] == ':' &&
            memcmp(name, edit->change->name, name_size) == 0)
            return true;
    }
    *end = *start;
    return false;
}

/* Points `*field` and `*size` at a field (1 hash, 2 chains) of a line that has one; false otherwise. */
static bool find_field(const char *line, size_t line_size, int number, const char **field, size_t *size)
{
    const char *at = line, *end = line + line_size;
    while (end > at && strchr(" \t\r\n", end[-1]))
        end--;
    for (; number > 0; number--) {
        const char *colon = memchr(at, ':', (size_t)(end - at));
        if (!colon)
            return false;
        at = colon + 1;
    }
    const char *colon = memchr(at, ':', (size_t)(end - at));
    *field = at;
    *size = (size_t)((colon ? colon : end) - at);
    return true;
}

/* The user's new line, allocated; NULL, with the reason told. `line` is the old one, or of size 0. */
static char *make_line(const struct edit *edit, const char *line, size_t line_size)
{
    const struct users_change *change = edit->change;
    const char *hash = edit->hash, *chains = change->chains;
    size_t hash_size = strlen(hash), chains_size = chains ? strlen(chains) : 0;
    if (!change->password && !find_field(line, line_size, 1, &hash, &hash_size)) {
        fail(edit, "there is no such user");
        return NULL;
    }
    if (!chains)
        find_field(line, line_size, 2, &chains, &chains_size);
    if (chains_size == 1 && *chains == '*')
        chains_size = 0;
    char *made;
    if (asprintf(&made, "%s:%.*s%s%.*s\n", change->name, (int)hash_size, hash, chains_size ? ":" : "",
                 (int)chains_size, chains ? chains : "") < 0) {
        fail(edit, "out of memory");
        return NULL;
    }
    return made;
}

static int write_all(int fd, const char *data, size_t size)
{
    while (size > 0) {
        ssize_t count = write(fd, data, size);
        if (count < 0 && errno != EINTR)
            return -1;
        if (count > 0) {
            data += count;
            size -= (size_t)count;
        }
    }
    return 0;
}

static int sync_directory(const char *directory)
{
    int fd = open(directory, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    int rc = fd < 0 ? -1 : fsync(fd);
    if (fd >= 0)
        close(fd);
    return rc;
}

/* Puts head, line and tail in place of the file. */
static int replace(const struct edit *edit, const char *line, size_t start, size_t end)
{
    char temporary[PATH_MAX], copy[PATH_MAX];
    if (snprintf(temporary, sizeof temporary, "%s.XXXXXX", edit->path) >= (int)sizeof temporary)
        return fail(edit, strerror(ENAMETOOLONG));
    int fd = mkostemp(temporary, O_CLOEXEC);
    if (fd < 0)
        return fail(edit, strerror(errno));
    bool lacks_newline = start == edit->size && start > 0 && edit->text[start - 1] != '\n';
    const struct stat *status = &edit->status;
    bool is_done = fchown(fd, status->st_uid, status->st_gid) == 0 &&
                   fchmod(fd, status->st_mode & 07777) == 0 && write_all(fd, edit->text, start) == 0 &&
                   write_all(fd, "\n", lacks_newline) == 0 && write_all(fd, line, strlen(line)) == 0 &&
                   write_all(fd, edit->text + end, edit->size - end) == 0 && fsync(fd) == 0 &&
                   rename(temporary, edit->path) == 0;
    int error = errno;
    close(fd);
    if (!is_done) {
        unlink(temporary);
        return fail(edit, strerror(error));
    }
    strcpy(copy, edit->path); /* dirname writes into it; it is shorter than `temporary` */
    return sync_directory(dirname(copy)) == 0 ? 0 : fail(edit, strerror(errno));
}

static int apply(struct edit *edit)
{
    edit->text = secret_read_file(edit->path, 0, &edit->size, edit->err, edit->err_size);
    if (!edit->text)
        return -1;
    size_t start, end;
    bool is_there = find_line(edit, &start, &end);
    if (edit->change->is_removal)
        return is_there ? replace(edit, "", start, end) : fail(edit, "there is no such user");
    char *line = make_line(edit, edit->text + start, end - start);
    if (!line)
        return -1;
    int rc = replace(edit, line, start, end);
    secret_free(line, strlen(line));
    return rc;
}

/* Refuses what could not be read back. */
static int check(const struct edit *edit)
{
    const struct users_change *change = edit->change;
    if (!users_name_is_valid(change->name, strlen(change->name)))
        return fail(edit, "a name is UTF-8 without control characters, colons or blanks around it");
    if (change->is_removal)
        return 0;
    if (!change->password && !change->chains)
        return fail(edit, "there is nothing to change");
    if (change->password && (change->password_size == 0 || change->password_size > SECRET_PASSWORD_MAX ||
                             memchr(change->password, '\0', change->password_size)))
        return fail(edit, "a password is 1 to 255 bytes, none of them NUL");
    if (change->chains && !users_chains_are_valid(change->chains))
        return fail(edit, "chains are names or patterns with * and ?, parted by commas");
    return 0;
}

int users_edit(const char *path, const struct users_change *change, char *err, size_t err_size)
{
    struct edit edit = {.path = path, .change = change, .lock_fd = -1, .err = err, .err_size = err_size};
    int rc = check(&edit);
    if (rc == 0 && change->password &&
        secret_hash_make(edit.hash, change->password, change->password_size, SECRET_MEMORY_KIB,
                         SECRET_PASSES))
        rc = fail(&edit, "the password cannot be hashed: out of memory");
    if (rc == 0)
        rc = lock_file(&edit);
    if (rc == 0)
        rc = apply(&edit);
    secret_free(edit.text, edit.size);
    if (edit.lock_fd >= 0)
        close(edit.lock_fd);
    return rc;
}
