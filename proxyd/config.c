/* SPDX-License-Identifier: MIT
 *
 * The loader; see config.h. It walks the table of keys over libconfig's tree, so that a new key is a row in
 * config_keys.def; only what joins several keys (names, credentials, places bound twice) has code here. It
 * goes on after a problem, to find all of them. It never prints, and no problem ever quotes a password.
 */
#include "proxyd/config.h"

#include "auth/address.h"
#include "auth/keygen.h"
#include "auth/secret.h"
#include "auth/users.h"
#include "proxies/dialect.h"
#include "proxies/door.h"
#include "proxies/kinds.h"
#include "proxies/websocket.h"
#include "proxyd/config_keys.h"
#include "proxyd/config_source.h"

#include <errno.h>
#include <fcntl.h>
#include <grp.h>
#include <libconfig.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>
#include <zmq.h>

#define PROBLEM_MAX_BYTES 4000

/* What a disk store may hold when nothing is said. */
#define DISK_MAX_MESSAGES 1000000
#define DISK_MAX_BYTES    (INT64_C(1) << 30)

/* An endpoint that a chain binds (or the control socket: chain NULL), and where that is written. */
struct bound {
    const struct endpoint *endpoint;
    const struct chain_conf *chain;
    int line;
};

struct loader {
    struct config *config;
    struct config_problems *problems;
    struct config_source source;
    int *lines; /* of each problem, in the source's text */
    bool is_memory_short;
    char owner[80];                /* whom problems are about: `daemon` or `chain "NAME"` */
    unsigned kind;                 /* of the chain being loaded, one bit of config_kinds; 0 = not known */
    const struct dialect *dialect; /* likewise; NULL = not known */
    struct chain_conf *chain;
    bool needs_state_dir; /* some queue is on disk */
    bool needs_users;     /* some side says auth = "plain" */
    struct endpoint control, http;
    struct bound *bound;
    size_t bound_count;
};

/* ---- Problems ---- */

/* Control characters would let a file rule the terminal that shows its problems. */
static void tame(char *text)
{
    for (; *text != '\0'; text++)
        if ((unsigned char)*text < 0x20 || *text == 0x7f)
            *text = '?';
}

/* Keeps `text` (which is taken) in the order of the file. */
static void keep_problem(struct loader *loader, int line, char *text)
{
    struct config_problems *problems = loader->problems;
    char **texts = text ? realloc(problems->lines, (problems->count + 1) * sizeof(*texts)) : NULL;
    if (texts)
        problems->lines = texts;
    int *lines = texts ? realloc(loader->lines, (problems->count + 1) * sizeof(*lines)) : NULL;
    if (!lines) {
        loader->is_memory_short = true;
        free(text);
        return;
    }
    loader->lines = lines;
    size_t at = problems->count++;
    for (; at > 0 && lines[at - 1] > line; at--) {
        lines[at] = lines[at - 1];
        texts[at] = texts[at - 1];
    }
    lines[at] = line;
    texts[at] = text;
}

/* `FILE:LINE: OWNER: KEY message`, where `line` counts in the source's text and the key may be NULL. */
static void add_problem(struct loader *loader, int line, const struct config_key *key, const char *format,
                        va_list arguments)
{
    char message[PROBLEM_MAX_BYTES];
    struct config_place place = config_source_place(&loader->source, line);
    char *text = NULL;
    vsnprintf(message, sizeof(message), format, arguments);
    tame(message);
    if (asprintf(&text, "%s:%d: %s: %s%s%s", place.file, place.line, loader->owner,
                 key ? config_section_prefix(key->section) : "", key ? key->name : "", message) < 0)
        text = NULL;
    keep_problem(loader, line, text);
}

__attribute__((format(printf, 3, 4))) static void problem(struct loader *loader, int line, const char *format,
                                                          ...)
{
    va_list arguments;
    va_start(arguments, format);
    add_problem(loader, line, NULL, format, arguments);
    va_end(arguments);
}

/* Begins with the name of the key, so that `format` begins with what stands behind it: " must be", ": ". */
__attribute__((format(printf, 4, 5))) static void
key_problem(struct loader *loader, int line, const struct config_key *key, const char *format, ...)
{
    va_list arguments;
    va_start(arguments, format);
    add_problem(loader, line, key, format, arguments);
    va_end(arguments);
}

/* The first line for what is not written anywhere. */
static int line_of(const config_setting_t *setting)
{
    return setting ? (int)config_setting_source_line(setting) : 1;
}

static const config_setting_t *member(const config_setting_t *group, const char *name)
{
    return group ? config_setting_get_member(group, name) : NULL;
}

/* ---- Values ---- */

/* What a key wants, for people. */
static const char *const wanted[] = {
    [CONFIG_TEXT] = "a text \"...\"",
    [CONFIG_COUNT] = "a whole number",
    [CONFIG_DURATION] = "a duration with its unit, such as \"250ms\", \"5s\", \"10m\", \"24h\", \"7d\"",
    [CONFIG_SIZE] = "a size with its unit, such as \"512B\", \"64KiB\", \"64MiB\", \"1GiB\"",
    [CONFIG_TEXTS] = "a list of texts [ \"...\", \"...\" ]",
    [CONFIG_ENDPOINT] = "a text \"...\"",
    [CONFIG_ENDPOINTS] = "a list of texts [ \"...\", \"...\" ]",
    [CONFIG_GROUP] = "a group { ... }",
    [CONFIG_GROUPS] = "a list of groups ( { ... }, { ... } )",
};

static void wrong_type(struct loader *loader, const struct config_key *key, const config_setting_t *setting)
{
    key_problem(loader, line_of(setting), key, " must be %s%s", wanted[key->type],
                config_key_has_always(key) ? ", or \"always\"" : "");
}

static bool is_integer(const config_setting_t *setting)
{
    int type = config_setting_type(setting);
    return type == CONFIG_TYPE_INT || type == CONFIG_TYPE_INT64;
}

/* The text of a setting; NULL when it is none. */
static const char *text_of(const config_setting_t *setting)
{
    return config_setting_type(setting) == CONFIG_TYPE_STRING ? config_setting_get_string(setting) : NULL;
}

static bool is_list(const config_setting_t *setting)
{
    return config_setting_is_list(setting) || config_setting_is_array(setting);
}

static bool check_range(struct loader *loader, const struct config_key *key, const config_setting_t *setting,
                        int64_t number)
{
    char range[200];
    if (config_key_is_in_range(key, number))
        return true;
    config_key_range(key, range, sizeof(range));
    key_problem(loader, line_of(setting), key, " must %s %s", key->type == CONFIG_TEXT ? "have" : "be",
                range);
    return false;
}

static void not_available(struct loader *loader, const struct config_key *key,
                          const config_setting_t *setting)
{
    if (key->later[0] != '\0')
        key_problem(loader, line_of(setting), key, " = \"%s\" is not yet available", text_of(setting));
    else /* without the value, which could be a secret */
        key_problem(loader, line_of(setting), key, " is not yet available");
}

static const char *default_of(const struct loader *loader, const struct config_key *key)
{
    return config_key_default(key, loader->kind, loader->dialect ? loader->dialect->name : NULL);
}

/* Where `base`, a daemon_conf or a chain_conf, keeps the value of `key`. */
static void *field_of(const struct config_key *key, void *base)
{
    return (char *)base + key->offset;
}

static char *keep_text(struct loader *loader, const char *text)
{
    char *copy = strdup(text);
    loader->is_memory_short |= !copy;
    return copy;
}

static void *keep_items(struct loader *loader, size_t count, size_t size)
{
    void *items = calloc(count > 0 ? count : 1, size);
    loader->is_memory_short |= !items;
    return items;
}

static void free_value(const struct config_key *key, void *base)
{
    void *field = field_of(key, base);
    if (key->type == CONFIG_TEXT && *(char **)field) {
        explicit_bzero(*(char **)field, strlen(*(char **)field)); /* some are passwords */
        free(*(char **)field);
        *(char **)field = NULL;
    } else if (key->type == CONFIG_TEXTS) {
        struct text_list *texts = field;
        for (size_t i = 0; i < texts->count; i++)
            free(texts->items[i]);
        free(texts->items);
        *texts = (struct text_list){0};
    } else if (key->type == CONFIG_ENDPOINTS || key->type == CONFIG_ENDPOINT) {
        struct endpoint_list *endpoints = field;
        for (size_t i = 0; i < endpoints->count; i++)
            endpoint_close(&endpoints->items[i]);
        free(endpoints->items);
        *endpoints = (struct endpoint_list){0};
    }
}

static void store_number(const struct config_key *key, void *base, int64_t number)
{
    if (key->type == CONFIG_WORD)
        *(int *)field_of(key, base) = (int)number;
    else
        *(int64_t *)field_of(key, base) = number;
}

static void store_text(struct loader *loader, const struct config_key *key, void *base, const char *text)
{
    free_value(key, base);
    *(char **)field_of(key, base) = keep_text(loader, text);
}

/* `count` texts, the elements of `setting` or (NULL) the one `only`. */
static void store_texts(struct loader *loader, const struct config_key *key, void *base,
                        const config_setting_t *setting, const char *only)
{
    struct text_list *texts = field_of(key, base);
    int count = setting ? config_setting_length(setting) : 1;
    free_value(key, base);
    texts->items = keep_items(loader, (size_t)count, sizeof(*texts->items));
    for (int i = 0; texts->items && i < count; i++)
        texts->items[texts->count++] =
            keep_text(loader, setting ? config_setting_get_string_elem(setting, i) : only);
}

static void store_default(struct loader *loader, const struct config_key *key, void *base)
{
    const char *text = default_of(loader, key);
    int64_t number;
    if (key->offset == CONFIG_NOWHERE || !text)
        return;
    if (key->type == CONFIG_TEXT)
        store_text(loader, key, base, text);
    else if (key->type == CONFIG_TEXTS)
        store_texts(loader, key, base, NULL, text);
    else if (config_key_number(key, text, &number))
        store_number(key, base, number);
}

static void load_text(struct loader *loader, const struct config_key *key, const config_setting_t *setting,
                      void *base)
{
    const char *text = text_of(setting), *preset = default_of(loader, key);
    if (!text)
        wrong_type(loader, key, setting);
    else if (!check_range(loader, key, setting, (int64_t)strlen(text)))
        return;
    else if (key->later && (key->later[0] ? config_has_word(key->later, text) : strcmp(text, preset) != 0))
        not_available(loader, key, setting);
    else if (key->offset != CONFIG_NOWHERE)
        store_text(loader, key, base, text);
}

/* Whether a setting is written as `key` wants it. A bare 0 switches off what has a unit, too. */
static bool read_number(const struct config_key *key, const config_setting_t *setting, int64_t *number)
{
    const char *text = text_of(setting);
    *number = is_integer(setting) ? config_setting_get_int64(setting) : 0;
    if (key->type == CONFIG_COUNT)
        return is_integer(setting);
    return text ? config_key_number(key, text, number)
                : is_integer(setting) && key->type != CONFIG_WORD && *number == 0;
}

/* Words, counts, durations and sizes. */
static void load_number(struct loader *loader, const struct config_key *key, const config_setting_t *setting,
                        void *base)
{
    int64_t number, preset;
    char words[200];
    if (!read_number(key, setting, &number)) {
        config_key_range(key, words, sizeof(words));
        if (key->type == CONFIG_WORD)
            key_problem(loader, line_of(setting), key, " must be %s", words);
        else
            wrong_type(loader, key, setting);
        return;
    }
    if (!check_range(loader, key, setting, number))
        return;
    bool is_preset = config_key_number(key, default_of(loader, key), &preset) && number == preset;
    if (key->later && (key->later[0] ? config_has_word(key->later, text_of(setting)) : !is_preset))
        not_available(loader, key, setting);
    else if (key->offset != CONFIG_NOWHERE)
        store_number(key, base, number);
}

/* Whether `setting` is a list of nothing but texts. */
static bool check_texts(struct loader *loader, const struct config_key *key, const config_setting_t *setting)
{
    bool is_good = is_list(setting);
    if (!is_good)
        wrong_type(loader, key, setting);
    for (int i = 0; is_good && i < config_setting_length(setting); i++) {
        const config_setting_t *element = config_setting_get_elem(setting, (unsigned)i);
        if (text_of(element))
            continue;
        wrong_type(loader, key, element);
        is_good = false;
    }
    return is_good;
}

static void load_texts(struct loader *loader, const struct config_key *key, const config_setting_t *setting,
                       void *base)
{
    const char *preset = default_of(loader, key);
    if (!check_texts(loader, key, setting))
        return;
    int count = config_setting_length(setting);
    bool is_preset =
        preset ? count == 1 && strcmp(config_setting_get_string_elem(setting, 0), preset) == 0 : count == 0;
    if (key->later && !is_preset)
        not_available(loader, key, setting);
    else if (preset && count == 0)
        key_problem(loader, line_of(setting), key, " is empty");
    else if (count > 0 && key->offset != CONFIG_NOWHERE)
        store_texts(loader, key, base, setting, NULL);
}

/* A bound ipc path needs its folder, which nobody else makes. */
static bool check_folder(struct loader *loader, const struct config_key *key, int line,
                         const struct endpoint *endpoint)
{
    const char *path = strstr(endpoint->address, "://") + 3, *slash = strrchr(path, '/');
    struct stat status;
    char folder[sizeof(((struct sockaddr_un *)NULL)->sun_path)] = "/";
    if (endpoint->transport != TRANSPORT_IPC || !endpoint->is_bind || path[0] == '@' || !slash)
        return true;
    if (slash > path)
        snprintf(folder, sizeof(folder), "%.*s", (int)(slash - path), path);
    errno = 0;
    if (stat(folder, &status) == 0 && S_ISDIR(status.st_mode))
        return true;
    key_problem(loader, line, key, ": endpoint \"%s\": %s: %s", endpoint->text, folder,
                strerror(errno ? errno : ENOTDIR));
    return false;
}

/* Remembers who binds what, and says so when somebody already does. */
static void claim(struct loader *loader, const struct config_key *key, int line,
                  const struct endpoint *endpoint)
{
    for (size_t i = 0; endpoint->is_bind && i < loader->bound_count; i++) {
        const struct bound *other = &loader->bound[i];
        struct config_place place = config_source_place(&loader->source, other->line);
        if (!endpoint_collides(other->endpoint, endpoint))
            continue;
        if (other->chain)
            key_problem(loader, line, key, ": endpoint \"%s\" is bound already by chain \"%s\" (%s:%d)",
                        endpoint->text, other->chain->name ? other->chain->name : "", place.file, place.line);
        else
            key_problem(loader, line, key, ": endpoint \"%s\" is %s", endpoint->text,
                        endpoint->transport == TRANSPORT_IPC ? "the control socket" : "where http listens");
        return;
    }
    void *bound = realloc(loader->bound, (loader->bound_count + 1) * sizeof(*loader->bound));
    loader->is_memory_short |= !bound;
    if (!bound)
        return;
    loader->bound = bound;
    loader->bound[loader->bound_count++] =
        (struct bound){.endpoint = endpoint, .chain = loader->chain, .line = line};
}

/* Whether an endpoint of `key` binds when it has no prefix. Of a chain whose kind is not known everything is
 * read as if, because more can be bound than connected to. */
static bool binds(const struct loader *loader, const struct config_key *key)
{
    if (loader->kind == 0)
        return true;
    switch (key->section) {
    case CONFIG_VERIFY:
        return false;
    case CONFIG_FRONTEND:
        return !(loader->kind & CONFIG_SUB);
    default:
        return !(loader->kind & CONFIG_REQ);
    }
}

/* Where a WebSocket server may stand, and where nothing else; and whether we can talk to one at all. */
static void check_websocket(struct loader *loader, const struct config_key *key, int line,
                            const struct endpoint *endpoint)
{
    char err[1000];
    bool is_one = endpoint_is_websocket(endpoint);
    bool hears = key->section == CONFIG_FRONTEND && (loader->kind & CONFIG_WS_PUB);
    bool may_be = hears || (key->section == CONFIG_BACKEND && (loader->kind & CONFIG_REQ));
    if (loader->kind != 0 && is_one && !may_be)
        key_problem(loader, line, key,
                    ": \"%s\": WebSocket servers belong to REQ backends and ws-pub frontends",
                    endpoint->text);
    else if (hears && !is_one)
        key_problem(loader, line, key, ": \"%s\": a ws-pub chain hears WebSocket servers, ws:// or wss://",
                    endpoint->text);
    else if (is_one && websockets_check(err, sizeof(err)) != 0)
        key_problem(loader, line, key, ": \"%s\": %s", endpoint->text, err);
}

/* Adds what `text` says to the list, which has room for it. */
static void add_endpoint(struct loader *loader, const struct config_key *key, const config_setting_t *text,
                         struct endpoint_list *endpoints)
{
    char err[1000];
    struct endpoint *endpoint = &endpoints->items[endpoints->count];
    if (endpoint_parse(endpoint, text_of(text), binds(loader, key), err, sizeof(err)) != 0) {
        key_problem(loader, line_of(text), key, ": %s", err);
        return;
    }
    endpoints->count++;
    check_websocket(loader, key, line_of(text), endpoint);
    if (loader->kind != 0 && check_folder(loader, key, line_of(text), endpoint))
        claim(loader, key, line_of(text), endpoint);
}

static void load_endpoints(struct loader *loader, const struct config_key *key,
                           const config_setting_t *setting, void *base)
{
    if (!check_texts(loader, key, setting))
        return;
    int count = config_setting_length(setting);
    if (key->later && count > 0)
        not_available(loader, key, setting);
    else if (key->is_required && count == 0)
        key_problem(loader, line_of(setting), key, " is empty");
    if (key->offset == CONFIG_NOWHERE || count == 0)
        return;
    struct endpoint_list *endpoints = field_of(key, base);
    endpoints->items = keep_items(loader, (size_t)count, sizeof(*endpoints->items));
    for (int i = 0; endpoints->items && i < count; i++)
        add_endpoint(loader, key, config_setting_get_elem(setting, (unsigned)i), endpoints);
}

static void load_endpoint(struct loader *loader, const struct config_key *key,
                          const config_setting_t *setting, void *base)
{
    struct endpoint_list *endpoints = field_of(key, base);
    if (!text_of(setting)) {
        wrong_type(loader, key, setting);
        return;
    }
    endpoints->items = keep_items(loader, 1, sizeof(*endpoints->items));
    if (endpoints->items)
        add_endpoint(loader, key, setting, endpoints);
}

/* ---- Groups ---- */

/* Finds names that no key has. */
static void check_names(struct loader *loader, enum config_section section, const config_setting_t *group)
{
    const char *prefix = config_section_prefix(section);
    for (int i = 0; i < config_setting_length(group); i++) {
        const config_setting_t *setting = config_setting_get_elem(group, (unsigned)i);
        const char *name = config_setting_name(setting), *near = NULL;
        int other = CONFIG_ROOT;
        if (config_key_find(section, name))
            continue;
        while (other < CONFIG_SECTION_COUNT && !config_key_find((enum config_section)other, name))
            other++;
        if (other < CONFIG_SECTION_COUNT)
            problem(loader, line_of(setting), "unknown key \"%s%s\"; it belongs to %s", prefix, name,
                    config_section_name((enum config_section)other));
        else if ((near = config_key_near(section, name)) != NULL)
            problem(loader, line_of(setting), "unknown key \"%s%s\"; did you mean \"%s\"?", prefix, name,
                    near);
        else
            problem(loader, line_of(setting), "unknown key \"%s%s\"", prefix, name);
    }
}

static void load_value(struct loader *loader, const struct config_key *key, const config_setting_t *setting,
                       void *base)
{
    if (key->type == CONFIG_TEXT)
        load_text(loader, key, setting, base);
    else if (key->type == CONFIG_TEXTS)
        load_texts(loader, key, setting, base);
    else if (key->type == CONFIG_ENDPOINTS)
        load_endpoints(loader, key, setting, base);
    else if (key->type == CONFIG_ENDPOINT)
        load_endpoint(loader, key, setting, base);
    else if (key->type == CONFIG_GROUP || key->type == CONFIG_GROUPS) {
        if (key->type == CONFIG_GROUP ? !config_setting_is_group(setting) : !config_setting_is_list(setting))
            wrong_type(loader, key, setting);
    } else
        load_number(loader, key, setting, base);
}

static void load_key(struct loader *loader, const struct config_key *key, const config_setting_t *group,
                     void *base)
{
    const config_setting_t *setting = member(group, key->name);
    store_default(loader, key, base);
    if (!setting && key->is_required)
        key_problem(loader, line_of(group), key, " is missing");
    else if (setting && loader->kind != 0 && !(key->kinds & loader->kind))
        key_problem(loader, line_of(setting), key, " belongs to %s only%s", config_kinds_text(key->kinds),
                    key->later ? ", and is not yet available" : "");
    else if (setting)
        load_value(loader, key, setting, base);
}

/* Every key of a section, from `group` or (NULL: it is not there, and need not be) by default. */
static void load_section(struct loader *loader, enum config_section section, const config_setting_t *group,
                         void *base)
{
    size_t count;
    const struct config_key *keys = config_keys(&count);
    if (group)
        check_names(loader, section, group);
    for (size_t i = 0; i < count; i++)
        if (keys[i].section == section)
            load_key(loader, &keys[i], group, base);
}

/* The group `name` inside `parent`; NULL when there is none (a problem, if it must be, by the parent's own
 * row) or it is no group (likewise). */
static const config_setting_t *group_in(const config_setting_t *parent, const char *name)
{
    const config_setting_t *group = member(parent, name);
    return group && config_setting_is_group(group) ? group : NULL;
}

/* ---- What joins several keys ---- */

/* What a file holds that keeps a secret, or NULL after a problem. */
static char *load_secret(struct loader *loader, const struct config_key *key, const config_setting_t *setting)
{
    char err[1000];
    size_t size;
    char *secret = text_of(setting) ? secret_read_password(text_of(setting), &size, err, sizeof(err)) : NULL;
    if (text_of(setting) && !secret)
        key_problem(loader, line_of(setting), key, ": %s", err);
    return secret;
}

static void free_secret(char **secret)
{
    secret_free(*secret, *secret ? strlen(*secret) : 0);
    *secret = NULL;
}

/* What a side shows to peers that it connects to means nothing to those who connect to it. */
static void check_connects(struct loader *loader, enum config_section section, const config_setting_t *shown,
                           const struct endpoint_list *endpoints)
{
    for (size_t i = 0; shown && loader->kind != 0 && i < endpoints->count; i++)
        if (endpoints->items[i].is_bind)
            problem(loader, line_of(shown), "%s%s is shown to peers that we connect to; \"%s\" is bound",
                    config_section_prefix(section), config_setting_name(shown), endpoints->items[i].text);
}

/* A user name and one password, or neither, and only where a socket connects. */
static void check_password(struct loader *loader, enum config_section section, const config_setting_t *group,
                           struct credentials *credentials, const struct endpoint_list *endpoints)
{
    const char *prefix = config_section_prefix(section);
    const config_setting_t *username = member(group, "username"), *password = member(group, "password");
    const config_setting_t *file = member(group, "password_file");
    if (password && file)
        problem(loader, line_of(file), "%spassword_file is given, and %spassword too", prefix, prefix);
    else if (username && !password && !file)
        problem(loader, line_of(username), "%susername has no password or password_file beside it", prefix);
    else if (!username && (password || file))
        problem(loader, line_of(password ? password : file), "%s%s has no username beside it", prefix,
                config_setting_name(password ? password : file));
    else if (file)
        credentials->password = load_secret(loader, config_key_find(section, "password_file"), file);
    check_connects(loader, section, username, endpoints);
    if (password && text_of(password)) /* libconfig frees without wiping */
        explicit_bzero((char *)text_of(password), strlen(text_of(password)));
}

static bool is_curve_key(const char *text)
{
    uint8_t key[USERS_KEY_BYTES];
    return strlen(text) == KEYGEN_TEXT_BYTES - 1 && zmq_z85_decode(key, text);
}

/* Our own key, for whichever of the two uses there is for it. */
static void load_curve_key(struct loader *loader, const struct config_key *key,
                           const config_setting_t *setting, struct credentials *credentials,
                           struct access_conf *access)
{
    char public_key[KEYGEN_TEXT_BYTES];
    char *secret = load_secret(loader, key, setting);
    if (!secret)
        return;
    if (!is_curve_key(secret) || keygen_public(public_key, secret) != 0) {
        key_problem(loader, line_of(setting), key, ": %s: is no CURVE key, which has 40 characters of Z85",
                    text_of(setting));
    } else if (credentials->curve_server_key) {
        credentials->curve_secret_key = keep_text(loader, secret);
        credentials->curve_public_key = keep_text(loader, public_key);
    } else {
        access->curve_secret_key = keep_text(loader, secret);
    }
    free_secret(&secret);
}

/* Keys for both directions: towards peers that we connect to, and towards those that connect to us. */
static void check_curve(struct loader *loader, enum config_section section, const config_setting_t *group,
                        struct credentials *credentials, struct access_conf *access,
                        const struct endpoint_list *endpoints)
{
    const char *prefix = config_section_prefix(section);
    const config_setting_t *file = member(group, "curve_secret_key_file"), *auth = member(group, "auth");
    const config_setting_t *server = credentials->curve_server_key ? member(group, "curve_server_key") : NULL;
    const config_setting_t *keys = member(group, "curve_keys");
    const config_setting_t *username = member(group, "username");
    bool is_server = access->auth == DOOR_CURVE;
    if (server && username)
        problem(loader, line_of(server), "%scurve_server_key is given, and %susername too", prefix, prefix);
    if (server && !is_curve_key(credentials->curve_server_key))
        problem(loader, line_of(server), "%scurve_server_key is no CURVE key, which has 40 characters of Z85",
                prefix);
    if (server && !file)
        problem(loader, line_of(server), "%scurve_server_key has no curve_secret_key_file beside it", prefix);
    else if (is_server && !file)
        problem(loader, line_of(auth), "%sauth = \"curve\" has no curve_secret_key_file beside it", prefix);
    else if (file && !server && !is_server)
        problem(loader, line_of(file),
                "%scurve_secret_key_file has no auth = \"curve\" or curve_server_key beside it", prefix);
    else if (file)
        load_curve_key(loader, config_key_find(section, "curve_secret_key_file"), file, credentials, access);
    if (is_server && !keys)
        problem(loader, line_of(auth), "%sauth = \"curve\" has no curve_keys beside it", prefix);
    check_connects(loader, section, server, endpoints);
}

/* Those whom nobody can ask: connections of our own, and inproc. */
static void check_asked(struct loader *loader, const config_setting_t *group, enum config_section section,
                        const struct access_conf *access, const struct endpoint_list *endpoints)
{
    static const char *const askers[] = {"auth", "allow", "deny"};
    const char *prefix = config_section_prefix(section);
    const config_setting_t *asker = NULL;
    for (size_t i = 0; i < sizeof(askers) / sizeof(askers[0]) && !asker; i++)
        if (i > 0 || access->auth != DOOR_NULL)
            asker = member(group, askers[i]);
    for (size_t i = 0; asker && loader->kind != 0 && i < endpoints->count; i++) {
        const struct endpoint *endpoint = &endpoints->items[i];
        if (!endpoint->is_bind)
            problem(loader, line_of(asker), "%s%s is for peers that connect to us; we connect to \"%s\"",
                    prefix, config_setting_name(asker), endpoint->text);
        else if (endpoint->transport == TRANSPORT_INPROC && access->auth != DOOR_NULL)
            problem(loader, line_of(asker), "%sauth: \"%s\" never asks who connects", prefix, endpoint->text);
    }
}

static void check_ranges(struct loader *loader, const struct config_key *key, const config_setting_t *setting,
                         const struct text_list *ranges)
{
    struct address_range range;
    char err[200];
    for (size_t i = 0; i < ranges->count; i++)
        if (address_range_parse(&range, ranges->items[i], err, sizeof(err)) != 0)
            key_problem(loader, line_of(config_setting_get_elem(setting, (unsigned)i)), key, ": %s", err);
}

static void check_patterns(struct loader *loader, const struct config_key *key,
                           const config_setting_t *setting, const struct text_list *patterns)
{
    for (size_t i = 0; setting && i < patterns->count; i++)
        if (!users_name_is_valid(patterns->items[i], strlen(patterns->items[i])))
            key_problem(loader, line_of(config_setting_get_elem(setting, (unsigned)i)), key,
                        ": \"%s\" is no pattern of user names", patterns->items[i]);
}

/* A file of users or keys has problems of its own, with places in it. */
struct file_of_users {
    struct loader *loader;
    const struct config_key *key;
    const config_setting_t *setting;
};

static void tell_users_problem(void *context, const char *text)
{
    const struct file_of_users *file = context;
    key_problem(file->loader, line_of(file->setting), file->key, ": %s", text);
}

static void check_users(struct loader *loader, const struct config_key *key, const config_setting_t *setting,
                        const char *path, enum users_kind kind)
{
    struct file_of_users file = {.loader = loader, .key = key, .setting = setting};
    users_free(
        users_load(path, kind, (size_t)loader->config->daemon.auth_memory_bytes, tell_users_problem, &file));
}

static void check_access(struct loader *loader, enum config_section section, const config_setting_t *group,
                         struct access_conf *access)
{
    const char *prefix = config_section_prefix(section);
    const config_setting_t *users = member(group, "users"), *keys = member(group, "curve_keys");
    const config_setting_t *burst = member(group, "burst");
    bool is_everybody = access->users.count == 1 && strcmp(access->users.items[0], "*") == 0;
    if (users && !is_everybody && access->auth == DOOR_NULL)
        problem(loader, line_of(users), "%susers has no auth = \"plain\" or \"curve\" beside it", prefix);
    if (keys && access->auth != DOOR_CURVE)
        problem(loader, line_of(keys), "%scurve_keys has no auth = \"curve\" beside it", prefix);
    else if (access->curve_keys)
        check_users(loader, config_key_find(section, "curve_keys"), keys, access->curve_keys, USERS_KEYS);
    if (access->burst > 0 && access->rate == 0)
        problem(loader, line_of(burst), "%sburst has no rate beside it", prefix);
    check_patterns(loader, config_key_find(section, "users"), users, &access->users);
    check_ranges(loader, config_key_find(section, "allow"), member(group, "allow"), &access->allow);
    check_ranges(loader, config_key_find(section, "deny"), member(group, "deny"), &access->deny);
    loader->needs_users |= access->auth == DOOR_PLAIN;
}

/* What is said about TLS is for a wss:// endpoint, and what about CURVE for none. */
static void check_tls(struct loader *loader, enum config_section section, const config_setting_t *group,
                      struct credentials *credentials, const struct endpoint_list *endpoints)
{
    const char *prefix = config_section_prefix(section);
    struct stat found;
    const config_setting_t *ca_file = credentials->tls_ca_file ? member(group, "tls_ca_file") : NULL;
    bool has_tls = false;
    for (size_t i = 0; i < endpoints->count; i++) {
        has_tls |= endpoints->items[i].transport == TRANSPORT_WSS;
        if (credentials->curve_server_key && endpoint_is_websocket(&endpoints->items[i]))
            problem(loader, line_of(member(group, "curve_server_key")),
                    "%scurve_server_key: \"%s\" is no ZeroMQ endpoint; wss:// encrypts", prefix,
                    endpoints->items[i].text);
    }
    if (ca_file && !has_tls)
        problem(loader, line_of(ca_file), "%stls_ca_file has no wss:// endpoint beside it", prefix);
    else if (ca_file &&
             (access(credentials->tls_ca_file, R_OK) != 0 || stat(credentials->tls_ca_file, &found) != 0))
        problem(loader, line_of(ca_file), "%stls_ca_file: %s: %s", prefix, credentials->tls_ca_file,
                strerror(errno));
    else if (ca_file && !S_ISREG(found.st_mode))
        problem(loader, line_of(ca_file), "%stls_ca_file: %s: is not a regular file", prefix,
                credentials->tls_ca_file);
    else if (ca_file)
        credentials->tls_ca_changed_ns = found.st_ctim.tv_sec * INT64_C(1000000000) + found.st_ctim.tv_nsec;
}

/* The one that is not written gives way to the one that is. */
static void check_backoff(struct loader *loader, enum config_section section, const config_setting_t *group,
                          int64_t *backoff_ms, int64_t *backoff_max_ms)
{
    const char *prefix = config_section_prefix(section);
    const config_setting_t *first = member(group, "backoff"), *most = member(group, "backoff_max");
    if (*backoff_ms <= *backoff_max_ms)
        return;
    if (first && most)
        problem(loader, line_of(first), "%sbackoff is longer than %sbackoff_max", prefix, prefix);
    else if (first)
        *backoff_max_ms = *backoff_ms;
    else
        *backoff_ms = *backoff_max_ms;
}

static void check_frontend(struct loader *loader, const config_setting_t *group, struct chain_conf *chain)
{
    struct frontend_conf *frontend = &chain->frontend;
    const config_setting_t *max_message = member(group, "max_message");
    check_backoff(loader, CONFIG_FRONTEND, group, &frontend->backoff_ms, &frontend->backoff_max_ms);
    if (loader->kind == 0 || (loader->kind & CONFIG_SUB))
        check_password(loader, CONFIG_FRONTEND, group, &frontend->credentials, &frontend->endpoints);
    check_curve(loader, CONFIG_FRONTEND, group, &frontend->credentials, &frontend->access,
                &frontend->endpoints);
    check_tls(loader, CONFIG_FRONTEND, group, &frontend->credentials, &frontend->endpoints);
    if (loader->kind == CONFIG_WS_PUB && !member(group, "subscribe"))
        problem(loader, line_of(group), "frontend.subscribe is missing");
    check_access(loader, CONFIG_FRONTEND, group, &frontend->access);
    check_asked(loader, group, CONFIG_FRONTEND, &frontend->access, &frontend->endpoints);
    check_asked(loader, group, CONFIG_FRONTEND, &frontend->access, &frontend->tickets);
    if (max_message && chain->queue.max_bytes > 0 && frontend->max_message_bytes > chain->queue.max_bytes)
        problem(loader, line_of(max_message), "frontend.max_message is larger than queue.max_bytes");
}

static void check_backend(struct loader *loader, const config_setting_t *group, struct chain_conf *chain)
{
    struct backend_conf *backend = &chain->backend;
    check_backoff(loader, CONFIG_BACKEND, group, &backend->backoff_ms, &backend->backoff_max_ms);
    check_password(loader, CONFIG_BACKEND, group, &backend->credentials, &backend->endpoints);
    check_curve(loader, CONFIG_BACKEND, group, &backend->credentials, &backend->access, &backend->endpoints);
    check_tls(loader, CONFIG_BACKEND, group, &backend->credentials, &backend->endpoints);
    if (loader->kind == 0 || (loader->kind & (CONFIG_PUB | CONFIG_REP_WORKERS))) {
        check_access(loader, CONFIG_BACKEND, group, &backend->access);
        check_asked(loader, group, CONFIG_BACKEND, &backend->access, &backend->endpoints);
    }
    if (backend->heartbeat_ms > 0 && loader->dialect && !loader->dialect->heartbeat)
        problem(loader, line_of(member(group, "heartbeat")),
                "backend.heartbeat: the dialect %s has no heartbeat", loader->dialect->name);
    if (backend->balance == BALANCE_ALL && backend->endpoints.count > BALANCE_ALL_MAX)
        problem(loader, line_of(member(group, "balance")),
                "backend.balance: \"all\" goes with at most %d endpoints", BALANCE_ALL_MAX);
}

static void load_verify(struct loader *loader, const config_setting_t *group, struct chain_conf *chain)
{
    struct verify_conf *verify = &chain->frontend.verify;
    if (!group || !(loader->kind & CONFIG_SUB))
        return;
    load_section(loader, CONFIG_VERIFY, group, chain);
    check_password(loader, CONFIG_VERIFY, group, &verify->credentials, &verify->endpoint);
}

/* Workers connect to us, and are asked who they are. */
static void check_workers_connect(struct loader *loader, const struct config_key *key,
                                  const config_setting_t *group, const struct endpoint_list *endpoints)
{
    for (size_t i = 0; i < endpoints->count; i++)
        if (!endpoints->items[i].is_bind || endpoints->items[i].transport == TRANSPORT_INPROC)
            key_problem(loader, line_of(member(group, key->name)), key,
                        ": workers connect to us, over tcp or ipc; not so \"%s\"", endpoints->items[i].text);
}

static void load_workers(struct loader *loader, const config_setting_t *backend, struct chain_conf *chain)
{
    const config_setting_t *group = group_in(backend, "workers");
    if (!group || !(loader->kind & CONFIG_REP_WORKERS))
        return;
    load_section(loader, CONFIG_WORKERS, group, chain);
    check_workers_connect(loader, config_key_find(CONFIG_BACKEND, "endpoints"), backend,
                          &chain->backend.endpoints);
    check_workers_connect(loader, config_key_find(CONFIG_WORKERS, "heartbeat"), group,
                          &chain->backend.workers.heartbeat);
}

/* A disk holds more than memory does. */
static void check_queue(struct loader *loader, const config_setting_t *group, struct chain_conf *chain)
{
    const config_setting_t *store = member(group, "store");
    struct queue_conf *queue = &chain->queue;
    if (queue->store != STORE_DISK)
        return;
    if (loader->kind != 0 && !(loader->kind & (CONFIG_BUFFERED | CONFIG_SUB_REQ))) {
        key_problem(loader, line_of(store), config_key_find(CONFIG_QUEUE, "store"),
                    " = \"disk\" belongs to %s only", config_kinds_text(CONFIG_BUFFERED | CONFIG_SUB_REQ));
        return;
    }
    if (!member(group, "max_messages"))
        queue->max_messages = DISK_MAX_MESSAGES;
    if (!member(group, "max_bytes"))
        queue->max_bytes = DISK_MAX_BYTES;
    loader->needs_state_dir = true;
}

/* ---- Chains ---- */

unsigned config_kind(const struct kind *kind)
{
    if (kind_has_workers(kind))
        return CONFIG_REP_WORKERS;
    if (kind->hears_websockets)
        return CONFIG_WS_PUB;
    if (!kind_has_req_back(kind))
        return kind_has_rep_front(kind) ? CONFIG_REP_PUB : CONFIG_SUB_PUB;
    if (!kind_has_rep_front(kind))
        return CONFIG_SUB_REQ;
    return kind->answer == ANSWER_STORED ? CONFIG_BUFFERED : CONFIG_REP_REQ;
}

static bool has_only_name_characters(const char *name)
{
    return name[strspn(name, "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789_.-")] == '\0';
}

/* Kind and dialect decide what every other key means. */
static void find_kind_and_dialect(struct loader *loader, const config_setting_t *group,
                                  struct chain_conf *chain)
{
    const config_setting_t *kind = member(group, "kind"), *dialect = member(group, "dialect");
    const char *kind_name = kind ? text_of(kind) : NULL;
    const char *dialect_name =
        dialect ? text_of(dialect) : config_key_find(CONFIG_CHAIN, "dialect")->fallback;
    chain->kind = kind_name ? kind_find(kind_name) : NULL;
    if (chain->kind && member(group_in(group, "backend"), "workers") && kind_with_workers(chain->kind))
        chain->kind = kind_with_workers(chain->kind);
    chain->dialect = dialect_name ? dialect_find(dialect_name) : NULL;
    loader->kind = chain->kind ? config_kind(chain->kind) : 0;
    loader->dialect = chain->dialect;
    if (kind_name && !chain->kind)
        problem(loader, line_of(kind), "unknown kind \"%s\"; known: %s", kind_name, kind_names());
    if (dialect_name && !chain->dialect)
        problem(loader, line_of(dialect), "unknown dialect \"%s\"; known: %s", dialect_name, dialect_names());
}

/* Names the chain that problems are about, and checks that no earlier one is called the same. */
static void introduce(struct loader *loader, const config_setting_t *chains, int index)
{
    const config_setting_t *group = config_setting_get_elem(chains, (unsigned)index),
                           *name = member(group, "name");
    const char *text = name ? text_of(name) : NULL;
    snprintf(loader->owner, sizeof(loader->owner), "chain \"#%d\"", index + 1);
    if (text && !has_only_name_characters(text))
        problem(loader, line_of(name), "name must be letters, digits, \"_\", \".\" and \"-\"");
    else if (text && config_key_is_in_range(config_key_find(CONFIG_CHAIN, "name"), (int64_t)strlen(text)))
        snprintf(loader->owner, sizeof(loader->owner), "chain \"%s\"", text);
    for (int i = 0; text && i < index; i++) {
        const config_setting_t *other = config_setting_get_elem(chains, (unsigned)i);
        const config_setting_t *taken = config_setting_is_group(other) ? member(other, "name") : NULL;
        if (!taken || !text_of(taken) || strcmp(text_of(taken), text) != 0)
            continue;
        struct config_place place = config_source_place(&loader->source, line_of(taken));
        problem(loader, line_of(name), "name is taken already (%s:%d)", place.file, place.line);
        return;
    }
}

static void load_chain(struct loader *loader, const config_setting_t *chains, int index)
{
    struct chain_conf *chain = loader->config->chains[index];
    const config_setting_t *group = config_setting_get_elem(chains, (unsigned)index);
    if (!config_setting_is_group(group)) {
        snprintf(loader->owner, sizeof(loader->owner), "chain \"#%d\"", index + 1);
        problem(loader, line_of(group), "a chain must be %s", wanted[CONFIG_GROUP]);
        return;
    }
    const config_setting_t *frontend = group_in(group, "frontend"), *backend = group_in(group, "backend");
    loader->chain = chain;
    introduce(loader, chains, index);
    find_kind_and_dialect(loader, group, chain);
    load_section(loader, CONFIG_CHAIN, group, chain);
    load_section(loader, CONFIG_QUEUE, group_in(group, "queue"), chain);
    check_queue(loader, group_in(group, "queue"), chain);
    if (frontend) {
        load_section(loader, CONFIG_FRONTEND, frontend, chain);
        check_frontend(loader, frontend, chain);
        load_verify(loader, group_in(frontend, "verify"), chain);
    }
    if (backend) {
        load_section(loader, CONFIG_BACKEND, backend, chain);
        check_backend(loader, backend, chain);
        load_workers(loader, backend, chain);
    }
}

static char *keep_place(struct loader *loader, const config_setting_t *setting)
{
    struct config_place place = config_source_place(&loader->source, line_of(setting));
    char *text;
    if (asprintf(&text, "%s:%d", place.file, place.line) >= 0)
        return text;
    loader->is_memory_short = true;
    return NULL;
}

static void load_chains(struct loader *loader, const config_setting_t *root)
{
    const config_setting_t *chains = member(root, "chains");
    if (!chains || !config_setting_is_list(chains))
        return; /* which the root's own rows have said */
    size_t count = (size_t)config_setting_length(chains);
    if (count == 0)
        problem(loader, line_of(chains), "there are no chains");
    struct config *config = loader->config;
    config->chains = keep_items(loader, count, sizeof(*config->chains));
    config->places = keep_items(loader, count, sizeof(*config->places));
    for (size_t i = 0; config->chains && config->places && i < count; i++) {
        config->chains[i] = keep_items(loader, 1, sizeof(**config->chains));
        if (!config->chains[i])
            return;
        config->places[i] = keep_place(loader, config_setting_get_elem(chains, (unsigned)i));
        config->chain_count++;
        load_chain(loader, chains, (int)i);
    }
}

/* ---- The daemon and the file ---- */

static void check_control(struct loader *loader, const config_setting_t *group)
{
    const config_setting_t *setting = member(group, "control");
    const char *control = loader->config->daemon.control;
    char err[1000];
    if (!control || *control == '\0')
        return;
    if (endpoint_parse(&loader->control, control, true, err, sizeof(err)) != 0)
        problem(loader, line_of(setting), "control: %s", err);
    else if (loader->control.transport != TRANSPORT_IPC || !loader->control.is_bind ||
             loader->control.address[strlen("ipc://")] == '@') /* abstract: open to everybody */
        problem(loader, line_of(setting),
                "control must be an ipc endpoint, which file modes protect, or \"\"");
    else
        claim(loader, config_key_find(CONFIG_DAEMON, "control"), setting ? line_of(setting) : 0,
              &loader->control);
}

static bool is_address(const char *host)
{
    struct address address;
    address_parse(&address, host, strlen(host));
    return address.family != ADDRESS_NONE || strcmp(host, "*") == 0 || strcmp(host, "localhost") == 0;
}

/* An address of this machine and a port: names would have to be looked up, and may mean several. */
static void check_http(struct loader *loader, const config_setting_t *group)
{
    const config_setting_t *setting = member(group, "http");
    const struct config_key *key = config_key_find(CONFIG_DAEMON, "http");
    const char *http = loader->config->daemon.http;
    char text[300], err[1000];
    if (!http || *http == '\0')
        return;
    snprintf(text, sizeof(text), "tcp://%s", http);
    if (endpoint_parse(&loader->http, text, true, err, sizeof(err)) != 0 || loader->http.port == 0 ||
        !is_address(loader->http.host))
        key_problem(loader, line_of(setting), key,
                    " must be an address and a port, such as 127.0.0.1:9633, [::1]:9633 or *:9633");
    else
        claim(loader, key, line_of(setting), &loader->http);
}

static void check_control_group(struct loader *loader, const config_setting_t *group)
{
    const char *name = loader->config->daemon.control_group;
    if (name && *name != '\0' && !getgrnam(name))
        problem(loader, line_of(member(group, "control_group")), "control_group: there is no group \"%s\"",
                name);
}

/* Disk stores live there. */
static void check_state_dir(struct loader *loader, const config_setting_t *group)
{
    const char *path = loader->config->daemon.state_dir;
    struct stat status;
    if (!loader->needs_state_dir || !path)
        return;
    errno = 0;
    if (stat(path, &status) == 0 && S_ISDIR(status.st_mode) && access(path, W_OK | X_OK) == 0)
        return;
    const config_setting_t *setting = member(group, "state_dir");
    snprintf(loader->owner, sizeof(loader->owner), "daemon");
    key_problem(loader, line_of(setting), config_key_find(CONFIG_DAEMON, "state_dir"), ": %s: %s", path,
                strerror(errno ? errno : ENOTDIR));
}

static void check_users_file(struct loader *loader, const config_setting_t *group)
{
    const char *path = loader->config->daemon.users;
    if (!loader->needs_users || !path)
        return;
    snprintf(loader->owner, sizeof(loader->owner), "daemon");
    check_users(loader, config_key_find(CONFIG_DAEMON, "users"), member(group, "users"), path,
                USERS_PASSWORDS);
}

/* The file as libconfig's tree; NULL after a problem. */
static const config_setting_t *read_tree(struct loader *loader, config_t *tree)
{
    char err[PROBLEM_MAX_BYTES];
    if (config_source_read(&loader->source, loader->config->path, err, sizeof(err)) != 0) {
        tame(err);
        keep_problem(loader, 0, strdup(err));
        return NULL;
    }
    if (config_read_string(tree, loader->source.text) != CONFIG_TRUE) {
        problem(loader, config_error_line(tree), "%s", config_error_text(tree));
        return NULL;
    }
    return config_root_setting(tree);
}

static void load_file(struct loader *loader, bool daemon_only)
{
    config_t tree;
    config_init(&tree);
    const config_setting_t *root = read_tree(loader, &tree);
    const config_setting_t *daemon = root ? group_in(root, "daemon") : NULL;
    if (root && !daemon_only)
        load_section(loader, CONFIG_ROOT, root, NULL);
    if (root)
        load_section(loader, CONFIG_DAEMON, daemon, &loader->config->daemon);
    if (root && !daemon_only) {
        check_control(loader, daemon);
        check_control_group(loader, daemon);
        check_http(loader, daemon);
        load_chains(loader, root);
        check_state_dir(loader, daemon);
        check_users_file(loader, daemon);
    }
    config_destroy(&tree);
}

static struct config *load(const char *path, bool daemon_only, struct config_problems *problems)
{
    struct loader loader = {.problems = problems, .owner = "daemon"};
    *problems = (struct config_problems){0};
    loader.config = calloc(1, sizeof(*loader.config));
    if (loader.config)
        loader.config->path = keep_text(&loader, path);
    if (loader.config && loader.config->path)
        load_file(&loader, daemon_only);
    if (!loader.config || loader.is_memory_short)
        keep_problem(&loader, 0, strdup("out of memory"));
    config_source_close(&loader.source);
    endpoint_close(&loader.control);
    endpoint_close(&loader.http);
    free(loader.bound);
    free(loader.lines);
    if (problems->count == 0 && !loader.is_memory_short)
        return loader.config;
    config_free(loader.config);
    return NULL;
}

struct config *config_load(const char *path, struct config_problems *problems)
{
    return load(path, false, problems);
}

struct config *config_load_daemon(const char *path, struct config_problems *problems)
{
    return load(path, true, problems);
}

/* What came from files, and so has no row. */
static void free_keys(struct credentials *credentials, struct access_conf *access)
{
    free_secret(&credentials->curve_public_key);
    free_secret(&credentials->curve_secret_key);
    free_secret(&access->curve_secret_key);
}

static void free_section_values(bool is_daemon, void *base)
{
    size_t count;
    const struct config_key *keys = config_keys(&count);
    for (size_t i = 0; i < count; i++)
        if (keys[i].offset != CONFIG_NOWHERE && (keys[i].section == CONFIG_DAEMON) == is_daemon)
            free_value(&keys[i], base);
}

void config_free(struct config *config)
{
    if (!config)
        return;
    free_section_values(true, &config->daemon);
    for (size_t i = 0; i < config->chain_count; i++) {
        struct chain_conf *chain = config->chains[i];
        free_section_values(false, chain);
        free_keys(&chain->frontend.credentials, &chain->frontend.access);
        free_keys(&chain->backend.credentials, &chain->backend.access);
        free(chain);
        free(config->places[i]);
    }
    free(config->chains);
    free(config->places);
    free(config->path);
    free(config);
}

static bool shows_secret(const struct credentials *credentials)
{
    return credentials->password || credentials->curve_secret_key;
}

bool config_has_secrets(const struct config *config)
{
    for (size_t i = 0; i < config->chain_count; i++) {
        const struct chain_conf *chain = config->chains[i];
        if (chain->frontend.access.auth != DOOR_NULL || chain->backend.access.auth != DOOR_NULL ||
            shows_secret(&chain->frontend.credentials) || shows_secret(&chain->frontend.verify.credentials) ||
            shows_secret(&chain->backend.credentials))
            return true;
    }
    return false;
}

void config_problems_close(struct config_problems *problems)
{
    for (size_t i = 0; i < problems->count; i++)
        free(problems->lines[i]);
    free(problems->lines);
    *problems = (struct config_problems){0};
}
