/* SPDX-License-Identifier: MIT
 *
 * The table of configuration keys, made from config_keys.def, and the notation of their values. The loader
 * and the reference are its readers.
 */
#ifndef PROXYD_PROXYD_CONFIG_KEYS_H
#define PROXYD_PROXYD_CONFIG_KEYS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>

/* Where a key stands. */
enum config_section {
    CONFIG_ROOT,
    CONFIG_DAEMON,
    CONFIG_CHAIN,
    CONFIG_FRONTEND,
    CONFIG_VERIFY,
    CONFIG_BACKEND,
    CONFIG_WORKERS,
    CONFIG_QUEUE,
    CONFIG_SECTION_COUNT
};

enum config_type {
    CONFIG_TEXT,      /* char * */
    CONFIG_WORD,      /* int: the index in `words` */
    CONFIG_COUNT,     /* int64_t, as the next two */
    CONFIG_DURATION,  /* in ms */
    CONFIG_SIZE,      /* in bytes */
    CONFIG_TEXTS,     /* struct text_list */
    CONFIG_ENDPOINTS, /* struct endpoint_list */
    CONFIG_ENDPOINT,  /* struct endpoint_list, of one */
    CONFIG_GROUP,
    CONFIG_GROUPS
};

/* Bits of the chain kinds, for config_key.kinds. */
enum config_kinds {
    CONFIG_REP_REQ = 1,
    CONFIG_BUFFERED = 2,
    CONFIG_REP_PUB = 4,
    CONFIG_SUB_REQ = 8,
    CONFIG_SUB_PUB = 16,
    CONFIG_REP_WORKERS = 32, /* rep-req whose backend has workers */
    CONFIG_WS_PUB = 64,
    CONFIG_SUB = CONFIG_SUB_REQ | CONFIG_SUB_PUB | CONFIG_WS_PUB,
    CONFIG_PUB = CONFIG_REP_PUB | CONFIG_SUB_PUB | CONFIG_WS_PUB,
    CONFIG_REQ = CONFIG_REP_REQ | CONFIG_BUFFERED | CONFIG_SUB_REQ,
    CONFIG_ANY = 127
};

struct config_key {
    enum config_section section;
    const char *name;
    unsigned kinds; /* whose it is */
    enum config_type type;
    const char *words;         /* CONFIG_WORD: separated by blanks */
    const char *low, *high;    /* numbers, and the bytes of a text */
    bool is_off_allowed;       /* 0 besides the range */
    bool is_required;          /* then there is no default */
    const char *fallback;      /* the default; of CONFIG_TEXTS the only item; NULL = unset or no items */
    const char *other;         /* another default, */
    unsigned other_kinds;      /* for these kinds, */
    const char *other_dialect; /* or (kinds 0) for this dialect */
    size_t offset;     /* in struct daemon_conf or struct chain_conf; CONFIG_NOWHERE = not kept there */
    const char *later; /* words not available yet; "" = only the default is; NULL = all is */
    const char *help;
};

#define CONFIG_NOWHERE SIZE_MAX

/* The whole table; *count rows, static. */
const struct config_key *config_keys(size_t *count);

/* The row of that name in that section; NULL when there is none. */
const struct config_key *config_key_find(enum config_section section, const char *name);

/* The name in that section which `name` was most likely meant to be; NULL when none is near. */
const char *config_key_near(enum config_section section, const char *name);

/* "frontend" and so on, and "frontend." as it stands before a key's name in messages ("" outside of the
 * groups of a chain). */
const char *config_section_name(enum config_section section);
const char *config_section_prefix(enum config_section section);

/* The kinds as words, for example "SUB frontends". */
const char *config_kinds_text(unsigned kinds);

/* The default of `key` in a chain of these kinds (one bit, or 0) and that dialect (may be NULL). */
const char *config_key_default(const struct config_key *key, unsigned kind, const char *dialect);

/* Whether "always" is how 0 is written: sync without an interval. */
bool config_key_has_always(const struct config_key *key);

/* Reads a value of a numeric type or CONFIG_WORD: "250ms", "64MiB", "16", "drop-oldest"; durations in ms,
 * sizes in bytes, words as their index. False when it is not written like that or too large to be held. */
bool config_key_number(const struct config_key *key, const char *text, int64_t *number);

/* The reverse: writes `number` as a user would, in the largest unit that does not need a fraction. */
void config_key_text(const struct config_key *key, int64_t number, char *out, size_t size);

/* Whether a number, or the length of a text, lies in the key's range. */
bool config_key_is_in_range(const struct config_key *key, int64_t number);

/* Writes the range or the words of `key`: "one of text, json", "from 10ms to 24h, or 0 = off". */
void config_key_range(const struct config_key *key, char *out, size_t size);

/* Writes the type of `key` and its default: "duration, default "5s"". */
void config_key_kind(const struct config_key *key, char *out, size_t size);

/* Writes the sentences about its range, its other default, whose it is, and what is not yet available. */
void config_key_limits(const struct config_key *key, char *out, size_t size);

/* True when `word` is among `words`, which blanks separate. */
bool config_has_word(const char *words, const char *word);

/* Prints the reference of every key, readable on a terminal 80 wide. */
void config_keys_print(FILE *out);

#endif
