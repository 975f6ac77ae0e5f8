/* SPDX-License-Identifier: MIT
 *
 * The scanner behind config_source.h. It copies token by token and starts a new line of text whenever a token
 * comes from another line of a file, so that one list of places says where every line came from. It looks
 * only as deep as it must: what is a text, a number, a comment or an include; grammar is libconfig's.
 */
#include "proxyd/config_source.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#define SOURCE_MAX_BYTES (4 * 1024 * 1024) /* all files together */
#define INCLUDE_MAX      10
#define NESTING_MAX      32

#define NAME_FIRST "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ*_"
#define DIGITS     "0123456789"
#define BOM        "\xEF\xBB\xBF" /* of UTF-8, which some editors put before a text */

struct scan {
    struct config_source *source;
    FILE *out;
    size_t read_bytes; /* of all files */
    int include_depth;
    int nesting;
    bool has_gap;    /* something was skipped since the last token */
    bool after_text; /* the last token was a text */
    struct config_place place;
    const char *at; /* the next byte; the file ends with a NUL at `end` */
    const char *end;
    char *err;
    size_t err_size;
};

static int scan_file(struct scan *scan, const char *path);

__attribute__((format(printf, 2, 3))) static int failed(struct scan *scan, const char *format, ...)
{
    va_list arguments;
    int size = snprintf(scan->err, scan->err_size, "%s:%d: daemon: ", scan->place.file, scan->place.line);
    if (size < 0 || (size_t)size >= scan->err_size)
        return -1;
    va_start(arguments, format);
    vsnprintf(scan->err + size, scan->err_size - (size_t)size, format, arguments);
    va_end(arguments);
    return -1;
}

/* ---- Files ---- */

/* The whole file with a NUL behind it; NULL with errno. Nothing but a regular file is opened for long: a
 * directory has no bytes, a pipe or a device may have no end. */
static char *read_bytes(const char *path, size_t limit, size_t *size)
{
    struct stat status;
    char *bytes = NULL;
    int fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK | O_NOCTTY);
    if (fd < 0)
        return NULL;
    if (fstat(fd, &status) != 0)
        goto out;
    errno = S_ISDIR(status.st_mode) ? EISDIR : S_ISREG(status.st_mode) ? 0 : EINVAL;
    if (errno == 0 && (uint64_t)status.st_size > limit)
        errno = EFBIG;
    if (errno != 0 || (bytes = malloc((size_t)status.st_size + 1)) == NULL)
        goto out;
    *size = 0;
    for (ssize_t got; *size < (size_t)status.st_size; *size += (size_t)got) {
        got = read(fd, bytes + *size, (size_t)status.st_size - *size);
        if (got < 0) {
            free(bytes);
            bytes = NULL;
        }
        if (got <= 0)
            break;
    }
    if (bytes != NULL)
        bytes[*size] = '\0';
out:;
    int error = errno;
    close(fd);
    errno = error;
    return bytes;
}

/* `name` as seen from the folder of `file`. NULL when memory is short. */
static char *beside(const char *file, const char *name)
{
    char *path = NULL;
    const char *slash = strrchr(file, '/');
    int folder = slash != NULL && name[0] != '/' ? (int)(slash - file + 1) : 0;
    return asprintf(&path, "%.*s%s", folder, file, name) < 0 ? NULL : path;
}

/* ---- Output ---- */

static int add_place(struct scan *scan)
{
    struct config_source *source = scan->source;
    size_t count = source->place_count;
    if ((count & (count - 1)) == 0) { /* the room is the next power of two */
        void *places = realloc(source->places, (count > 0 ? 2 * count : 1) * sizeof(*source->places));
        if (places == NULL)
            return failed(scan, "out of memory");
        source->places = places;
    }
    source->places[source->place_count++] = scan->place;
    return 0;
}

/* libconfig gives a text the line of the token behind it, because another text could follow and join it:
 * what closes or separates stays on the line of its text. */
static int emit(struct scan *scan, size_t size)
{
    const struct config_place *last = &scan->source->places[scan->source->place_count - 1];
    bool is_attached = scan->after_text && strchr("])},;", *scan->at) != NULL;
    if (!is_attached && (last->file != scan->place.file || last->line != scan->place.line)) {
        fputc('\n', scan->out);
        if (add_place(scan) != 0)
            return -1;
    } else if (scan->has_gap)
        fputc(' ', scan->out);
    fwrite(scan->at, 1, size, scan->out);
    scan->after_text = *scan->at == '"';
    scan->has_gap = false;
    scan->at += size;
    return 0;
}

/* ---- Tokens ---- */

/* Leaves a multi-line comment behind. */
static int skip_comment(struct scan *scan)
{
    const char *end = strstr(scan->at + 2, "*/");
    if (end == NULL)
        return failed(scan, "this comment has no end");
    for (; scan->at < end + 2; scan->at++)
        if (*scan->at == '\n')
            scan->place.line++;
    return 0;
}

/* Leaves blanks and comments behind; `*starts_line` tells whether a line began on the way. */
static int skip_gap(struct scan *scan, bool *starts_line)
{
    for (;;) {
        const char *at = scan->at;
        if (*at == '\n') {
            scan->place.line++;
            *starts_line = true;
            scan->at++;
        } else if (*at != '\0' && strchr(" \t\r\f", *at) != NULL)
            scan->at++;
        else if (*at == '#' || (at[0] == '/' && at[1] == '/'))
            scan->at += strcspn(at, "\n");
        else if (at[0] == '/' && at[1] == '*') {
            if (skip_comment(scan) != 0)
                return -1;
        } else
            return 0;
        scan->has_gap = true;
    }
}

/* The length of the text at `at` with its quotes; 0 after a problem. */
static size_t text_size(struct scan *scan)
{
    const char *at = scan->at + 1;
    for (; *at != '"'; at++) {
        if (*at == '\\' && (at[1] == 'x' || at[1] == 'X') && at[2] == '0' && at[3] == '0')
            return failed(scan, "a text cannot hold a NUL byte (\\x00)"), 0;
        if (*at == '\\' && at[1] != '\0')
            at++;
        if (*at == '\0' || *at == '\n')
            return failed(scan, "this text has no closing quote on its line"), 0;
    }
    return (size_t)(at + 1 - scan->at);
}

/* libconfig takes a number for 32 bits wide unless it ends with L. */
static int scan_number(struct scan *scan)
{
    size_t size = strspn(scan->at, DIGITS NAME_FIRST ".");
    bool is_hex = scan->at[0] == '0' && (scan->at[1] == 'x' || scan->at[1] == 'X');
    size_t digits = is_hex ? 2 + strspn(scan->at + 2, DIGITS "abcdefABCDEF") : strspn(scan->at, DIGITS);
    errno = 0;
    bool is_wide = digits == size && (strtoull(scan->at, NULL, is_hex ? 16 : 10) > INT32_MAX || errno != 0);
    if (emit(scan, size) != 0)
        return -1;
    if (is_wide)
        fputc('L', scan->out);
    return 0;
}

/* The name in the quotes at `at`, which it leaves behind; NULL after a problem. */
static char *include_name(struct scan *scan)
{
    size_t size = text_size(scan), used = 0;
    char *name = size > 0 ? malloc(size) : NULL;
    if (name == NULL)
        return size > 0 ? failed(scan, "out of memory"), NULL : NULL;
    for (const char *at = scan->at + 1; at < scan->at + size - 1; at++) {
        if (*at == '\\' && (at[1] == '\\' || at[1] == '"'))
            at++;
        name[used++] = *at;
    }
    name[used] = '\0';
    scan->at += size;
    return name;
}

static bool is_include(const char *at)
{
    size_t word = strlen("@include");
    return strncmp(at, "@include", word) == 0 && strspn(at + word, " \t") > 0 &&
           at[word + strspn(at + word, " \t")] == '"';
}

/* Scans another file in the place of the line `@include "name"`. */
static int include(struct scan *scan)
{
    const struct config_place place = scan->place;
    scan->at += strcspn(scan->at, "\"");
    char *name = include_name(scan);
    char *path = name != NULL ? beside(place.file, name) : NULL;
    const char *at = scan->at, *end = scan->end;
    free(name);
    if (path == NULL)
        return -1;
    int result = scan_file(scan, path);
    free(path);
    scan->place = place;
    scan->at = at;
    scan->end = end;
    scan->has_gap = true;
    return result;
}

static int scan_token(struct scan *scan, bool starts_line)
{
    char first = *scan->at;
    if (first == '\0')
        return failed(scan, "there is a NUL byte");
    if (first == '@' && starts_line && is_include(scan->at))
        return include(scan);
    if (first == '"') {
        size_t size = text_size(scan);
        return size > 0 ? emit(scan, size) : -1;
    }
    if (strchr(NAME_FIRST, first) != NULL)
        return emit(scan, strspn(scan->at, NAME_FIRST DIGITS "-"));
    if (strchr(DIGITS ".", first) != NULL)
        return scan_number(scan);
    if (strchr("([{", first) != NULL && ++scan->nesting > NESTING_MAX)
        return failed(scan, "more than %d brackets are open", NESTING_MAX);
    if (strchr(")]}", first) != NULL)
        scan->nesting--;
    return emit(scan, 1);
}

/* Keeps `path` with the source, so that places can point at it. */
static const char *add_file(struct config_source *source, const char *path)
{
    void *files = realloc(source->files, (source->file_count + 1) * sizeof(*source->files));
    char *copy = strdup(path);
    if (files != NULL)
        source->files = files;
    if (files == NULL || copy == NULL) {
        free(copy);
        return NULL;
    }
    return source->files[source->file_count++] = copy;
}

/* Says why `path` cannot be read: beside the line that includes it, or by itself. */
static int unreadable(struct scan *scan, const char *path)
{
    const char *reason = errno == EFBIG    ? "all files together are larger than 4 MiB"
                         : errno == EINVAL ? "this is not a regular file"
                                           : strerror(errno);
    if (scan->include_depth > 0)
        return failed(scan, "cannot include \"%s\": %s", path, reason);
    snprintf(scan->err, scan->err_size, "%s: %s", path, reason);
    return -1;
}

static int scan_file(struct scan *scan, const char *path)
{
    size_t size;
    bool starts_line = true;
    if (scan->include_depth > INCLUDE_MAX)
        return failed(scan, "includes are more than %d deep", INCLUDE_MAX);
    char *bytes = read_bytes(path, SOURCE_MAX_BYTES - scan->read_bytes, &size);
    if (bytes == NULL)
        return unreadable(scan, path);
    scan->read_bytes += size;
    scan->place = (struct config_place){.file = add_file(scan->source, path), .line = 1};
    scan->at = bytes + (strncmp(bytes, BOM, strlen(BOM)) == 0 ? strlen(BOM) : 0);
    scan->end = bytes + size;
    scan->include_depth++;
    int result = scan->place.file == NULL ? -1 : scan->source->place_count == 0 ? add_place(scan) : 0;
    while (result == 0 && (result = skip_gap(scan, &starts_line)) == 0 && scan->at < scan->end) {
        result = scan_token(scan, starts_line);
        starts_line = false;
    }
    scan->include_depth--;
    explicit_bzero(bytes, size);
    free(bytes);
    return result;
}

int config_source_read(struct config_source *source, const char *path, char *err, size_t err_size)
{
    struct scan scan = {.source = source, .err = err, .err_size = err_size};
    *source = (struct config_source){0};
    snprintf(err, err_size, "%s: out of memory", path);
    scan.out = open_memstream(&source->text, &source->size);
    if (scan.out == NULL)
        return -1;
    int result = scan_file(&scan, path);
    fputc('\n', scan.out);
    return fclose(scan.out) == 0 ? result : -1;
}

struct config_place config_source_place(const struct config_source *source, int line)
{
    size_t index = line > 0 ? (size_t)line - 1 : 0;
    return source->places[index < source->place_count ? index : source->place_count - 1];
}

void config_source_close(struct config_source *source)
{
    if (source->text != NULL)
        explicit_bzero(source->text, source->size);
    for (size_t i = 0; i < source->file_count; i++)
        free(source->files[i]);
    free(source->text);
    free(source->files);
    free(source->places);
    *source = (struct config_source){0};
}
