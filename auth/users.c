/* SPDX-License-Identifier: MIT
 *
 * Users and keys files -> tree, and the decision user x chain; see users.h. The tree owns one copy of the
 * file's text, cut into C strings in place, and two sorted ways into it: by name and by key.
 */
#include "auth/users.h"

#include "auth/digest.h"

#include <inttypes.h>
#include <pthread.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <zmq.h>

enum { KEY_TEXT_LENGTH = 40, FINGERPRINT_DIGITS = 16 };

struct users {
    atomic_uint references;
    enum users_kind kind;
    char *text;
    size_t text_size;
    size_t count;
    struct user *items;         /* by name */
    const struct user **by_key; /* USERS_KEYS */
};

/* What reading one file needs to know. */
struct reading {
    struct users *users;
    size_t capacity;
    const char *path;
    unsigned line;
    size_t memory_limit_bytes;
    users_problem_fn *problem;
    void *context;
    unsigned problem_count;
};

__attribute__((format(printf, 3, 4))) static void tell(struct reading *reading, unsigned line,
                                                       const char *format, ...)
{
    char message[512], text[1024];
    va_list arguments;
    va_start(arguments, format);
    vsnprintf(message, sizeof message, format, arguments);
    va_end(arguments);
    snprintf(text, sizeof text, "%s:%u: %s", reading->path, line, message);
    reading->problem(reading->context, text);
    reading->problem_count++;
}

/* The length of the UTF-8 sequence at `at`, or 0: overlong forms, surrogates and stray bytes are none. */
static size_t utf8_length(const unsigned char *at, size_t size)
{
    static const uint32_t least[] = {0, 0, 0x80, 0x800, 0x10000};
    size_t length = 0;
    while (length < 5 && at[0] & (0x80u >> length))
        length++;
    if (length == 0)
        return 1;
    if (length == 1 || length > 4 || length > size)
        return 0;
    uint32_t point = at[0] & (0x7fu >> length);
    for (size_t i = 1; i < length; i++) {
        if ((at[i] & 0xc0) != 0x80)
            return 0;
        point = point << 6 | (at[i] & 0x3f);
    }
    bool is_character = point >= least[length] && point <= 0x10ffff && (point < 0xd800 || point > 0xdfff);
    return is_character ? length : 0;
}

bool users_name_is_valid(const char *name, size_t size)
{
    if (size == 0 || size > USERS_NAME_MAX || name[0] == '#' || name[0] == ' ' || name[size - 1] == ' ')
        return false;
    for (size_t i = 0; i < size;) {
        unsigned char byte = (unsigned char)name[i];
        size_t length = utf8_length((const unsigned char *)name + i, size - i);
        if (length == 0 || byte < 0x20 || byte == 0x7f || byte == ':')
            return false;
        i += length;
    }
    return true;
}

bool users_match(const char *pattern, size_t size, const char *text)
{
    const char *at = pattern, *end = pattern + size, *star = NULL, *retry = NULL;
    while (*text) {
        if (at < end && *at == '*') {
            star = ++at;
            retry = text;
        } else if (at < end && (*at == '?' || *at == *text)) {
            at++;
            text++;
        } else if (star) {
            at = star; /* let the last star eat one byte more */
            text = ++retry;
        } else {
            return false;
        }
    }
    while (at < end && *at == '*')
        at++;
    return at == end;
}

bool users_chains_are_valid(const char *chains)
{
    static const char allowed[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789_.-*?";
    for (const char *at = chains;; at++) {
        size_t length = strspn(at, allowed);
        at += length;
        if (length == 0 || (*at && *at != ','))
            return false;
        if (!*at)
            return true;
    }
}

static void set_fingerprint(struct user *user, const void *credential, size_t size)
{
    struct digest digest;
    uint8_t bytes[DIGEST_BYTES];
    digest_begin(&digest, NULL);
    digest_add(&digest, user->name, user->name_size);
    digest_add(&digest, credential, size);
    digest_end(&digest, bytes);
    memcpy(&user->fingerprint, bytes, sizeof user->fingerprint);
}

/* The hash behind a name; `*rest` becomes the chains behind it, or NULL. False, told: it is none. */
static bool read_hash(struct reading *reading, struct user *user, char *field, char **rest)
{
    char err[160];
    char *colon = strchr(field, ':');
    size_t size = colon ? (size_t)(colon - field) : strlen(field);
    if (secret_hash_parse(&user->hash, field, size, reading->memory_limit_bytes, err, sizeof err)) {
        tell(reading, reading->line, "user \"%s\": %s", user->name, err);
        return false;
    }
    set_fingerprint(user, field, size);
    secret_wipe(field, size);
    *rest = colon ? colon + 1 : NULL;
    return true;
}

static bool read_key(struct reading *reading, struct user *user, char *field, char **rest)
{
    size_t size = strlen(field);
    char behind = size > KEY_TEXT_LENGTH ? field[KEY_TEXT_LENGTH] : '\0';
    if (size >= KEY_TEXT_LENGTH)
        field[KEY_TEXT_LENGTH] = '\0';
    if (size < KEY_TEXT_LENGTH || (behind && behind != ':') || !zmq_z85_decode(user->key, field)) {
        tell(reading, reading->line, "user \"%s\": not a public key of 40 characters (Z85)", user->name);
        return false;
    }
    set_fingerprint(user, user->key, sizeof user->key);
    *rest = behind ? field + KEY_TEXT_LENGTH + 1 : NULL;
    return true;
}

/* One line, NUL-terminated and without blanks at either end. */
static void read_line(struct reading *reading, char *line)
{
    struct users *users = reading->users;
    if (!*line || *line == '#')
        return;
    char *colon = strchr(line, ':');
    if (!colon) {
        tell(reading, reading->line, "expected `name:%s[:chain,chain…]`",
             users->kind == USERS_KEYS ? "public-key" : "hash");
        return;
    }
    *colon = '\0';
    struct user user = {.name = line, .name_size = (size_t)(colon - line), .line = reading->line};
    char *chains;
    if (!users_name_is_valid(user.name, user.name_size)) {
        tell(reading, reading->line,
             "the name must be 1 to %d bytes of UTF-8 without control characters or blanks around it",
             USERS_NAME_MAX);
        return;
    }
    if (!(users->kind == USERS_KEYS ? read_key : read_hash)(reading, &user, colon + 1, &chains))
        return;
    if (chains && !users_chains_are_valid(chains)) {
        tell(reading, reading->line, "user \"%s\": the chains must be names or patterns parted by commas",
             user.name);
        return;
    }
    user.chains = chains;
    if (users->count == reading->capacity) {
        size_t capacity = reading->capacity ? reading->capacity * 2 : 16;
        struct user *items = realloc(users->items, capacity * sizeof *items);
        if (!items) {
            tell(reading, reading->line, "out of memory");
            return;
        }
        users->items = items;
        reading->capacity = capacity;
    }
    users->items[users->count++] = user;
}

static void read_lines(struct reading *reading)
{
    char *at = reading->users->text, *end = at + reading->users->text_size;
    while (at < end) {
        char *newline = memchr(at, '\n', (size_t)(end - at));
        char *line_end = newline ? newline : end;
        reading->line++;
        *line_end = '\0';
        if (strlen(at) != (size_t)(line_end - at)) {
            tell(reading, reading->line, "there is a NUL byte in this line");
        } else {
            at += strspn(at, " \t");
            while (line_end > at && strchr(" \t\r", line_end[-1]))
                *--line_end = '\0';
            read_line(reading, at);
        }
        at = newline ? newline + 1 : end;
    }
}

static int compare_names(const char *a, size_t a_size, const char *b, size_t b_size)
{
    int order = memcmp(a, b, a_size < b_size ? a_size : b_size);
    return order ? order : (a_size > b_size) - (a_size < b_size);
}

/* Of equal names the first in the file comes first. */
static int by_name(const void *a, const void *b)
{
    const struct user *x = a, *y = b;
    int order = compare_names(x->name, x->name_size, y->name, y->name_size);
    return order ? order : (x->line > y->line) - (x->line < y->line);
}

static int by_key(const void *a, const void *b)
{
    const struct user *x = *(const struct user *const *)a, *y = *(const struct user *const *)b;
    int order = memcmp(x->key, y->key, sizeof x->key);
    return order ? order : (x->line > y->line) - (x->line < y->line);
}

static void sort(struct reading *reading)
{
    struct users *users = reading->users;
    if (users->count == 0)
        return;
    qsort(users->items, users->count, sizeof *users->items, by_name);
    for (size_t i = 1; i < users->count; i++) {
        const struct user *user = &users->items[i], *before = user - 1;
        if (compare_names(user->name, user->name_size, before->name, before->name_size) == 0)
            tell(reading, user->line, "user \"%s\" stands in line %u already", user->name, before->line);
    }
    if (users->kind != USERS_KEYS)
        return;
    users->by_key = malloc(users->count * sizeof *users->by_key);
    if (!users->by_key) {
        tell(reading, reading->line, "out of memory");
        return;
    }
    for (size_t i = 0; i < users->count; i++)
        users->by_key[i] = &users->items[i];
    qsort(users->by_key, users->count, sizeof *users->by_key, by_key);
    for (size_t i = 1; i < users->count; i++) {
        const struct user *user = users->by_key[i], *before = users->by_key[i - 1];
        if (memcmp(user->key, before->key, sizeof user->key) == 0)
            tell(reading, user->line, "user \"%s\" has the key of \"%s\" in line %u", user->name,
                 before->name, before->line);
    }
}

/* Takes `text`, which has room for a NUL behind its end. */
static struct users *parse(const char *path, char *text, size_t size, enum users_kind kind,
                           size_t memory_limit_bytes, users_problem_fn *problem, void *context)
{
    struct users *users = calloc(1, sizeof *users);
    struct reading reading = {
        .users = users,
        .path = path,
        .memory_limit_bytes = memory_limit_bytes,
        .problem = problem,
        .context = context,
    };
    if (!users || secret_open()) {
        tell(&reading, 1, "out of memory");
        secret_free(text, size);
        free(users);
        return NULL;
    }
    users->references = 1;
    users->kind = kind;
    users->text = text;
    users->text_size = size;
    read_lines(&reading);
    sort(&reading);
    if (reading.problem_count > 0) {
        users_free(users);
        return NULL;
    }
    return users;
}

struct users *users_load(const char *path, enum users_kind kind, size_t memory_limit_bytes,
                         users_problem_fn *problem, void *context)
{
    char err[512];
    size_t size;
    char *text = secret_read_file(path, kind == USERS_KEYS ? S_IWOTH : S_IRWXO, &size, err, sizeof err);
    if (!text) {
        problem(context, err);
        return NULL;
    }
    return parse(path, text, size, kind, memory_limit_bytes, problem, context);
}

struct users *users_parse(const char *path, const char *text, size_t size, enum users_kind kind,
                          size_t memory_limit_bytes, users_problem_fn *problem, void *context)
{
    char *copy = malloc(size + 1);
    if (!copy) {
        problem(context, "out of memory");
        return NULL;
    }
    memcpy(copy, text, size);
    return parse(path, copy, size, kind, memory_limit_bytes, problem, context);
}

struct users *users_hold(struct users *users)
{
    if (users)
        atomic_fetch_add_explicit(&users->references, 1, memory_order_relaxed);
    return users;
}

void users_free(struct users *users)
{
    if (!users || atomic_fetch_sub_explicit(&users->references, 1, memory_order_acq_rel) != 1)
        return;
    if (users->items)
        secret_wipe(users->items, users->count * sizeof *users->items);
    free(users->items);
    free(users->by_key);
    secret_free(users->text, users->text_size);
    free(users);
}

size_t users_count(const struct users *users)
{
    return users->count;
}

const struct user *users_find(const struct users *users, const char *name, size_t size)
{
    size_t low = 0, high = users->count;
    while (low < high) {
        size_t middle = low + (high - low) / 2;
        const struct user *user = &users->items[middle];
        int order = compare_names(name, size, user->name, user->name_size);
        if (order == 0)
            return user;
        if (order < 0)
            high = middle;
        else
            low = middle + 1;
    }
    return NULL;
}

const struct user *users_find_key(const struct users *users, const uint8_t key[static USERS_KEY_BYTES])
{
    size_t low = 0, high = users->by_key ? users->count : 0;
    while (low < high) {
        size_t middle = low + (high - low) / 2;
        int order = memcmp(key, users->by_key[middle]->key, USERS_KEY_BYTES);
        if (order == 0)
            return users->by_key[middle];
        if (order < 0)
            high = middle;
        else
            low = middle + 1;
    }
    return NULL;
}

const struct user *users_any(const struct users *users, uint64_t number)
{
    return users->count ? &users->items[number % users->count] : NULL;
}

void users_write_id(const struct user *user, char id[static USERS_ID_BYTES])
{
    snprintf(id, USERS_ID_BYTES, "%s#%0*" PRIx64, user->name, FINGERPRINT_DIGITS, user->fingerprint);
}

static bool chains_match(const char *chains, const char *chain)
{
    for (const char *at = chains;; at++) {
        size_t size = strcspn(at, ",");
        if (users_match(at, size, chain))
            return true;
        at += size;
        if (!*at)
            return false;
    }
}

bool users_grants(const struct user *user, const char *chain, char *const *patterns, size_t pattern_count)
{
    if (user->chains && !chains_match(user->chains, chain))
        return false;
    for (size_t i = 0; i < pattern_count; i++)
        if (users_match(patterns[i], strlen(patterns[i]), user->name))
            return true;
    return false;
}

const char *users_decide(const struct users *users, const char *id, const char *chain, char *const *patterns,
                         size_t pattern_count)
{
    const char *mark = id ? strrchr(id, '#') : NULL;
    if (!mark || strlen(mark + 1) != FINGERPRINT_DIGITS)
        return NULL;
    const struct user *user = users_find(users, id, (size_t)(mark - id));
    if (!user || strtoull(mark + 1, NULL, 16) != user->fingerprint)
        return NULL;
    return users_grants(user, chain, patterns, pattern_count) ? user->name : NULL;
}

struct users_slot {
    pthread_mutex_t mutex;
    struct users *users;
    _Atomic uint64_t generation; /* from 1, so that a fresh view is never current */
};

struct users_slot *users_slot_new(struct users *users)
{
    struct users_slot *slot = calloc(1, sizeof *slot);
    if (!slot)
        return NULL;
    pthread_mutex_init(&slot->mutex, NULL);
    slot->users = users;
    slot->generation = 1;
    return slot;
}

void users_slot_free(struct users_slot *slot)
{
    if (!slot)
        return;
    users_free(slot->users);
    pthread_mutex_destroy(&slot->mutex);
    free(slot);
}

void users_slot_swap(struct users_slot *slot, struct users *users)
{
    pthread_mutex_lock(&slot->mutex);
    struct users *old = slot->users;
    slot->users = users;
    slot->generation++;
    pthread_mutex_unlock(&slot->mutex);
    users_free(old);
}

struct users *users_slot_hold(struct users_slot *slot)
{
    pthread_mutex_lock(&slot->mutex);
    struct users *users = users_hold(slot->users);
    pthread_mutex_unlock(&slot->mutex);
    return users;
}

const struct users *users_view_refresh(struct users_view *view)
{
    if (view->generation == atomic_load_explicit(&view->slot->generation, memory_order_acquire))
        return view->users;
    users_free(view->users);
    pthread_mutex_lock(&view->slot->mutex);
    view->users = users_hold(view->slot->users);
    view->generation = view->slot->generation;
    pthread_mutex_unlock(&view->slot->mutex);
    return view->users;
}

void users_view_close(struct users_view *view)
{
    users_free(view->users);
    view->users = NULL;
    view->generation = 0;
}
