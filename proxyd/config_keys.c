/* SPDX-License-Identifier: MIT
 *
 * The table itself, the notation of values, and the reference that `proxyd --print-keys` prints. Pure: reads
 * no file and knows no chain.
 */
#include "proxyd/config_keys.h"

#include "proxies/conf.h"
#include "proxyd/conf.h"

#include <ctype.h>
#include <inttypes.h>
#include <stdarg.h>
#include <string.h>

#define ANY      CONFIG_ANY
#define SUB      CONFIG_SUB
#define PUB      CONFIG_PUB
#define REQ      CONFIG_REQ
#define REP_REQ  CONFIG_REP_REQ
#define SUB_REQ  CONFIG_SUB_REQ
#define BUFFERED CONFIG_BUFFERED
#define WORKERS  CONFIG_REP_WORKERS
#define WS_PUB   CONFIG_WS_PUB

#define TEXT(shortest, longest)     .type = CONFIG_TEXT, .low = shortest, .high = longest
#define WORD(list)                  .type = CONFIG_WORD, .words = list
#define COUNT(least, most)          .type = CONFIG_COUNT, .low = least, .high = most
#define DURATION(shortest, longest) .type = CONFIG_DURATION, .low = shortest, .high = longest
#define SIZE(least, most)           .type = CONFIG_SIZE, .low = least, .high = most
#define OR_OFF(...)                 __VA_ARGS__, .is_off_allowed = true
#define TEXTS                       .type = CONFIG_TEXTS
#define ENDPOINTS                   .type = CONFIG_ENDPOINTS
#define ENDPOINT                    .type = CONFIG_ENDPOINT
#define GROUP                       .type = CONFIG_GROUP
#define GROUPS                      .type = CONFIG_GROUPS

#define REQUIRED              .is_required = true
#define UNSET                 .is_required = false
#define DEFAULT(value)        .fallback = value
#define SAME                  .other = NULL
#define KIND(which, value)    .other = value, .other_kinds = which
#define DIALECT(which, value) .other = value, .other_dialect = which
#define AT(type, member)      .offset = offsetof(struct type, member)
#define NOWHERE               .offset = CONFIG_NOWHERE
#define NOW                   .later = NULL
#define LATER                 .later = ""
#define LATER_VALUES(values)  .later = values

#define KEY(where, key, whose, values, preset, preset_too, field, when, text)                                \
    {.section = CONFIG_##where,                                                                              \
     .name = key,                                                                                            \
     .kinds = whose,                                                                                         \
     values,                                                                                                 \
     preset,                                                                                                 \
     preset_too,                                                                                             \
     field,                                                                                                  \
     when,                                                                                                   \
     .help = text},

static const struct config_key keys[] = {
#include "proxyd/config_keys.def"
};

#define KEY_COUNT (sizeof(keys) / sizeof(keys[0]))

static const struct {
    const char *name;
    const char *prefix; /* of its keys in messages, which name the daemon or the chain anyway */
    const char *title;
} sections[CONFIG_SECTION_COUNT] = {
    [CONFIG_ROOT] = {"the top of the file", "", "The file"},
    [CONFIG_DAEMON] = {"daemon", "", "daemon = { ... }"},
    [CONFIG_CHAIN] = {"a chain", "", "A chain: chains = ( { ... }, ... )"},
    [CONFIG_FRONTEND] = {"frontend", "frontend.", "Its frontend = { ... }"},
    [CONFIG_VERIFY] = {"frontend.verify", "frontend.verify.", "Of a SUB frontend: verify = { ... }"},
    [CONFIG_BACKEND] = {"backend", "backend.", "Its backend = { ... }"},
    [CONFIG_WORKERS] = {"backend.workers", "backend.workers.", "Of a rep-req backend: workers = { ... }"},
    [CONFIG_QUEUE] = {"queue", "queue.", "Its queue = { ... }"},
};

static const struct {
    unsigned kinds;
    const char *text;
} kinds_texts[] = {
    {SUB, "SUB frontends"},
    {REQ, "REQ backends without workers"},
    {REQ | WORKERS, "REQ backends"},
    {PUB, "PUB backends"},
    {PUB | WORKERS, "PUB backends and those with workers"},
    {REP_REQ | WORKERS, "rep-req chains"},
    {WORKERS, "rep-req chains"},
    {BUFFERED, "buffered chains"},
    {BUFFERED | SUB_REQ, "buffered and sub-req chains"},
    {WS_PUB, "ws-pub chains"},
};

const struct config_key *config_keys(size_t *count)
{
    *count = KEY_COUNT;
    return keys;
}

const struct config_key *config_key_find(enum config_section section, const char *name)
{
    for (size_t i = 0; i < KEY_COUNT; i++)
        if (keys[i].section == section && strcmp(keys[i].name, name) == 0)
            return &keys[i];
    return NULL;
}

const char *config_section_name(enum config_section section)
{
    return sections[section].name;
}

const char *config_section_prefix(enum config_section section)
{
    return sections[section].prefix;
}

const char *config_kinds_text(unsigned kinds)
{
    for (size_t i = 0; i < sizeof(kinds_texts) / sizeof(kinds_texts[0]); i++)
        if (kinds_texts[i].kinds == kinds)
            return kinds_texts[i].text;
    return "all chains";
}

const char *config_key_default(const struct config_key *key, unsigned kind, const char *dialect)
{
    bool is_other = (key->other_kinds & kind) != 0 || (key->other_dialect != NULL && dialect != NULL &&
                                                       strcmp(key->other_dialect, dialect) == 0);
    return is_other ? key->other : key->fallback;
}

/* ---- A name that is nearly right ---- */

#define NAME_MAX_BYTES 40

static unsigned least(unsigned a, unsigned b)
{
    return a < b ? a : b;
}

/* How many letters must be added, removed, changed or swapped with the next to make `a` into `b`. */
static unsigned distance(const char *a, const char *b)
{
    unsigned rows[3][NAME_MAX_BYTES + 1];
    unsigned *before = rows[0], *last = rows[1], *row = rows[2];
    size_t a_size = strlen(a), b_size = strlen(b);
    if (a_size > NAME_MAX_BYTES || b_size > NAME_MAX_BYTES)
        return NAME_MAX_BYTES;
    for (size_t k = 0; k <= b_size; k++)
        row[k] = (unsigned)k;
    for (size_t i = 1; i <= a_size; i++) {
        unsigned *oldest = before;
        before = last;
        last = row;
        row = oldest;
        row[0] = (unsigned)i;
        for (size_t k = 1; k <= b_size; k++) {
            row[k] = least(least(last[k], row[k - 1]) + 1, last[k - 1] + (a[i - 1] != b[k - 1]));
            if (i > 1 && k > 1 && a[i - 1] == b[k - 2] && a[i - 2] == b[k - 1])
                row[k] = least(row[k], before[k - 2] + 1);
        }
    }
    return row[b_size];
}

const char *config_key_near(enum config_section section, const char *name)
{
    const char *nearest = NULL;
    unsigned limit = strlen(name) < 5 ? 1 : 2, best = limit + 1;
    for (size_t i = 0; i < KEY_COUNT; i++) {
        unsigned far = keys[i].section == section ? distance(name, keys[i].name) : best;
        if (far < best) {
            best = far;
            nearest = keys[i].name;
        }
    }
    return nearest;
}

/* ---- The notation of values ---- */

struct unit {
    const char *name;
    int64_t factor;
};

static const struct unit plain[] = {{"", 1}, {NULL, 0}};
static const struct unit durations[] = {{"ms", 1},      {"s", 1000},         {"m", 60 * 1000},
                                        {"h", 3600000}, {"d", 24 * 3600000}, {NULL, 0}};
static const struct unit sizes[] = {{"B", 1},           {"KiB", 1LL << 10}, {"MiB", 1LL << 20},
                                    {"GiB", 1LL << 30}, {"TiB", 1LL << 40}, {NULL, 0}};

static const struct unit *units_of(const struct config_key *key)
{
    return key->type == CONFIG_DURATION ? durations : key->type == CONFIG_SIZE ? sizes : plain;
}

/* Digits and one of `units`; 0 needs none. */
static bool parse_units(const char *text, const struct unit *units, int64_t *number)
{
    int64_t value = 0;
    size_t digits = strspn(text, "0123456789");
    if (digits == 0)
        return false;
    for (size_t i = 0; i < digits; i++)
        if (__builtin_mul_overflow(value, 10, &value) || __builtin_add_overflow(value, text[i] - '0', &value))
            return false;
    *number = value;
    if (value == 0 && text[digits] == '\0')
        return true;
    for (; units->name != NULL; units++)
        if (strcmp(text + digits, units->name) == 0)
            return !__builtin_mul_overflow(value, units->factor, number);
    return false;
}

/* The index of `word` among `words`; -1 when it is not there. */
static int word_index(const char *words, const char *word)
{
    size_t size = strlen(word);
    for (int index = 0; size > 0 && *words != '\0'; index++) {
        size_t length = strcspn(words, " ");
        if (length == size && memcmp(words, word, size) == 0)
            return index;
        words += length + (words[length] == ' ');
    }
    return -1;
}

bool config_has_word(const char *words, const char *word)
{
    return word_index(words, word) >= 0;
}

bool config_key_has_always(const struct config_key *key)
{
    return key->type == CONFIG_DURATION && key->fallback && strcmp(key->fallback, "always") == 0;
}

bool config_key_number(const struct config_key *key, const char *text, int64_t *number)
{
    if (key->type == CONFIG_WORD) {
        *number = word_index(key->words, text);
        return *number >= 0;
    }
    if (config_key_has_always(key) && strcmp(text, "always") == 0) {
        *number = 0;
        return true;
    }
    return parse_units(text, units_of(key), number);
}

void config_key_text(const struct config_key *key, int64_t number, char *out, size_t size)
{
    if (key->type == CONFIG_WORD) {
        const char *word = key->words;
        for (; number > 0; number--)
            word += strcspn(word, " ") + 1;
        snprintf(out, size, "%.*s", (int)strcspn(word, " "), word);
        return;
    }
    if (number == 0 && config_key_has_always(key)) {
        snprintf(out, size, "always");
        return;
    }
    const struct unit *unit = units_of(key);
    while (number != 0 && unit[1].name != NULL && number % unit[1].factor == 0)
        unit++;
    snprintf(out, size, "%" PRId64 "%s", number / unit->factor, number == 0 ? "" : unit->name);
}

bool config_key_is_in_range(const struct config_key *key, int64_t number)
{
    int64_t low, high;
    if (key->low == NULL || (key->is_off_allowed && number == 0))
        return true;
    return config_key_number(key, key->low, &low) && config_key_number(key, key->high, &high) &&
           number >= low && number <= high;
}

/* "a b" as "a, b". */
static void list_words(const char *words, char *out, size_t size)
{
    size_t used = 0;
    for (; *words != '\0' && used + 3 < size; words++) {
        if (*words == ' ')
            out[used++] = ',';
        out[used++] = *words;
    }
    out[used] = '\0';
}

void config_key_range(const struct config_key *key, char *out, size_t size)
{
    if (key->type == CONFIG_WORD) {
        size_t used = (size_t)snprintf(out, size, "one of ");
        list_words(key->words, out + used, size - used);
    } else
        snprintf(out, size, "from %s to %s%s", key->low, key->high,
                 key->type == CONFIG_TEXT     ? " bytes"
                 : config_key_has_always(key) ? ", or 0 = always"
                 : key->is_off_allowed        ? ", or 0 = off"
                                              : "");
}

/* ---- The reference ---- */

#define TERMINAL_WIDTH 80
#define NAME_WIDTH     28

static const char *const type_names[] = {
    [CONFIG_TEXT] = "text",
    [CONFIG_WORD] = "word",
    [CONFIG_COUNT] = "number",
    [CONFIG_DURATION] = "duration",
    [CONFIG_SIZE] = "size",
    [CONFIG_TEXTS] = "list of texts",
    [CONFIG_ENDPOINTS] = "list of endpoints",
    [CONFIG_ENDPOINT] = "endpoint",
    [CONFIG_GROUP] = "group",
    [CONFIG_GROUPS] = "list of groups",
};

static bool is_list(const struct config_key *key)
{
    return key->type == CONFIG_TEXTS || key->type == CONFIG_ENDPOINTS;
}

/* A value as it would stand in a file. */
static const char *quoted(const struct config_key *key, const char *value, char *out, size_t size)
{
    bool is_bare =
        key->type == CONFIG_COUNT || (key->type != CONFIG_TEXT && value && strcmp(value, "0") == 0);
    snprintf(out, size, !value ? "[ ]" : is_list(key) ? "[ \"%s\" ]" : is_bare ? "%s" : "\"%s\"", value);
    return out;
}

/* Adds a sentence to the line that has come to `column`, and breaks it where the terminal ends. */
__attribute__((format(printf, 3, 4))) static void say(FILE *out, int *column, const char *format, ...)
{
    char sentence[500];
    va_list arguments;
    va_start(arguments, format);
    vsnprintf(sentence, sizeof(sentence), format, arguments);
    va_end(arguments);
    for (const char *word = sentence; *word != '\0';) {
        int size = (int)strcspn(word, " ");
        if (*column + 1 + size >= TERMINAL_WIDTH)
            *column = fprintf(out, "\n     ") - 1;
        *column += fprintf(out, " %.*s", size, word);
        word += size + (word[size] == ' ');
    }
}

/* Adds a sentence to the `used` bytes of `out`. */
__attribute__((format(printf, 4, 5))) static void add(char *out, size_t size, size_t *used,
                                                      const char *format, ...)
{
    va_list arguments;
    va_start(arguments, format);
    if (*used > 0)
        *used += (size_t)snprintf(out + *used, size - *used, " ");
    *used += (size_t)vsnprintf(out + *used, size - *used, format, arguments);
    *used = *used < size ? *used : size - 1;
    va_end(arguments);
}

void config_key_kind(const struct config_key *key, char *out, size_t size)
{
    char value[100];
    if (key->is_required)
        snprintf(out, size, "%s, required", type_names[key->type]);
    else if (key->fallback == NULL && !is_list(key))
        snprintf(out, size, "%s, optional", type_names[key->type]);
    else
        snprintf(out, size, "%s, default %s", type_names[key->type],
                 quoted(key, key->fallback, value, sizeof(value)));
}

void config_key_limits(const struct config_key *key, char *out, size_t size)
{
    char text[200];
    size_t used = 0;
    out[0] = '\0';
    if (key->type == CONFIG_WORD || (key->type != CONFIG_TEXT && key->low != NULL)) {
        config_key_range(key, text, sizeof(text));
        add(out, size, &used, "%c%s.", toupper((unsigned char)text[0]), text + 1);
    }
    if (key->other != NULL)
        add(out, size, &used, "The default of %s is %s.",
            key->other_dialect != NULL ? key->other_dialect : config_kinds_text(key->other_kinds),
            quoted(key, key->other, text, sizeof(text)));
    if (key->kinds != CONFIG_ANY)
        add(out, size, &used, "Only %s.", config_kinds_text(key->kinds));
    if (key->later != NULL) {
        list_words(key->later, text, sizeof(text));
        add(out, size, &used, *text != '\0' ? "Not yet available: %s." : "Not yet available.", text);
    }
}

static void print_key(FILE *out, const struct config_key *key)
{
    char text[400];
    int column = TERMINAL_WIDTH;
    config_key_kind(key, text, sizeof(text));
    fprintf(out, "  %-*s %s", NAME_WIDTH, key->name, text);
    say(out, &column, "%s.", key->help);
    config_key_limits(key, text, sizeof(text));
    say(out, &column, "%s", text);
    fprintf(out, "\n");
}

void config_keys_print(FILE *out)
{
    fputs("Durations are written \"250ms\", \"5s\", \"10m\", \"24h\", \"7d\"; sizes \"512B\", \"512KiB\",\n"
          "\"64MiB\", \"1GiB\", \"1TiB\". 0 switches a limit off. A line @include \"FILE\" stands\n"
          "for what is in that file.\n",
          out);
    for (size_t i = 0; i < KEY_COUNT; i++) {
        if (i == 0 || keys[i].section != keys[i - 1].section)
            fprintf(out, "\n%s\n\n", sections[keys[i].section].title);
        print_key(out, &keys[i]);
    }
}
