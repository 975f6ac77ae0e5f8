/* SPDX-License-Identifier: MIT
 *
 * Spans of JSON; see json_span.h. jansson, which proxyd uses for JSON elsewhere, gives values and not their
 * text: it refuses a whole text for one number beyond its range, and writes 1.0 and "\/" in its own way. So
 * the grammar is read here once, strictly, and spans are then found in what is known to be valid; a fuzz
 * target holds both against jansson.
 */
#include "proxies/json_span.h"

#include <stdint.h>
#include <string.h>

struct scan {
    const char *at, *end;
};

/* The brackets that are open. */
struct nest {
    size_t depth;
    uint8_t objects[JSON_SPAN_DEPTH / 8]; /* a bit for each: an object, not an array */
};

static bool is_space(char c)
{
    return c == ' ' || c == '\t' || c == '\n' || c == '\r';
}

static bool is_digit(char c)
{
    return c >= '0' && c <= '9';
}

/* The byte at hand; 0, which begins nothing, at the end. */
static char peek(const struct scan *scan)
{
    return scan->at < scan->end ? *scan->at : '\0';
}

static bool take(struct scan *scan, char c)
{
    bool is_there = peek(scan) == c;
    scan->at += is_there;
    return is_there;
}

static char skip_space(struct scan *scan)
{
    while (is_space(peek(scan)))
        scan->at++;
    return peek(scan);
}

static int hex_digit(char c)
{
    return is_digit(c)            ? c - '0'
           : c >= 'a' && c <= 'f' ? c - 'a' + 10
           : c >= 'A' && c <= 'F' ? c - 'A' + 10
                                  : -1;
}

/* ---- the grammar ---- */

/* One character beyond ASCII, of RFC 3629, which has no overlong forms, surrogates, or anything beyond U+10FFFF. */
static bool read_utf8(struct scan *scan)
{
    uint8_t lead = (uint8_t)peek(scan);
    int following = lead >= 0xc2 && lead <= 0xdf   ? 1
                    : (lead & 0xf0) == 0xe0        ? 2
                    : lead >= 0xf0 && lead <= 0xf4 ? 3
                                                   : 0;
    uint8_t low = lead == 0xe0 ? 0xa0 : lead == 0xf0 ? 0x90 : 0x80;
    uint8_t high = lead == 0xed ? 0x9f : lead == 0xf4 ? 0x8f : 0xbf;
    if (following == 0)
        return false;
    for (scan->at++; following > 0; following--, scan->at++, low = 0x80, high = 0xbf) {
        uint8_t byte = (uint8_t)peek(scan);
        if (byte < low || byte > high)
            return false;
    }
    return true;
}

static bool read_escape(struct scan *scan)
{
    char c = peek(scan);
    if (c == '\0' || !strchr("\"\\/bfnrtu", c))
        return false;
    scan->at++;
    for (int i = 0; c == 'u' && i < 4; i++, scan->at++) {
        if (hex_digit(peek(scan)) < 0)
            return false;
    }
    return true;
}

/* Most bytes of most texts: printable ASCII in a string. */
static void pass_plain(struct scan *scan)
{
    const char *at = scan->at;
    while (at < scan->end && (uint8_t)*at - 0x20U < 0x60U && *at != '"' && *at != '\\')
        at++;
    scan->at = at;
}

static bool read_string(struct scan *scan)
{
    if (!take(scan, '"'))
        return false;
    while (true) {
        pass_plain(scan);
        if (take(scan, '"'))
            return true;
        if (take(scan, '\\') ? !read_escape(scan) : !read_utf8(scan))
            return false;
    }
}

static bool read_digits(struct scan *scan)
{
    const char *first = scan->at;
    while (is_digit(peek(scan)))
        scan->at++;
    return scan->at > first;
}

static bool read_number(struct scan *scan)
{
    take(scan, '-');
    if (!take(scan, '0') && !read_digits(scan))
        return false;
    if (take(scan, '.') && !read_digits(scan))
        return false;
    if (!take(scan, 'e') && !take(scan, 'E'))
        return true;
    if (!take(scan, '+'))
        take(scan, '-');
    return read_digits(scan);
}

static bool read_word(struct scan *scan, const char *word)
{
    size_t size = strlen(word);
    if ((size_t)(scan->end - scan->at) < size || memcmp(scan->at, word, size) != 0)
        return false;
    scan->at += size;
    return true;
}

static bool read_scalar(struct scan *scan)
{
    switch (peek(scan)) {
    case '"':
        return read_string(scan);
    case 't':
        return read_word(scan, "true");
    case 'f':
        return read_word(scan, "false");
    case 'n':
        return read_word(scan, "null");
    default:
        return read_number(scan);
    }
}

/* Up to where a member's value begins. */
static bool read_name(struct scan *scan)
{
    skip_space(scan);
    if (!read_string(scan))
        return false;
    skip_space(scan);
    return take(scan, ':');
}

/* An opening bracket, and what stands before the first value; `is_empty` where there is none. */
static bool read_opening(struct scan *scan, struct nest *nest, bool *is_empty)
{
    if (nest->depth == JSON_SPAN_DEPTH)
        return false;
    uint8_t bit = (uint8_t)(1U << nest->depth % 8), *byte = &nest->objects[nest->depth / 8];
    bool is_object = *scan->at++ == '{';
    *byte = (uint8_t)(is_object ? *byte | bit : *byte & ~bit);
    nest->depth++;
    *is_empty = skip_space(scan) == (is_object ? '}' : ']');
    return *is_empty || !is_object || read_name(scan);
}

/* What may stand behind a value: closing brackets, then a comma (and a name) or the end of it all. */
static bool read_closings(struct scan *scan, struct nest *nest)
{
    for (; nest->depth > 0; nest->depth--) {
        size_t level = nest->depth - 1;
        bool is_object = nest->objects[level / 8] >> level % 8 & 1;
        skip_space(scan);
        if (take(scan, ','))
            return !is_object || read_name(scan);
        if (!take(scan, is_object ? '}' : ']'))
            return false;
    }
    return true;
}

static bool read_value(struct scan *scan)
{
    struct nest nest = {0};
    do {
        char c = skip_space(scan);
        bool is_container = c == '{' || c == '[', is_empty = false;
        if (is_container ? !read_opening(scan, &nest, &is_empty) : !read_scalar(scan))
            return false;
        if ((!is_container || is_empty) && !read_closings(scan, &nest))
            return false;
    } while (nest.depth > 0);
    return true;
}

bool json_span_read(const void *data, size_t size, struct json_span *value)
{
    struct scan scan = {.at = data, .end = (const char *)data + size};
    skip_space(&scan);
    *value = (struct json_span){.at = scan.at};
    if (!read_value(&scan))
        return false;
    value->size = (size_t)(scan.at - value->at);
    skip_space(&scan);
    return scan.at == scan.end;
}

/* ---- inside of what is known to be valid ---- */

/* The inside of `container`, which begins with `bracket`; nothing where it does not. */
static struct scan open_container(struct json_span container, char bracket)
{
    bool is_one = container.at && *container.at == bracket;
    return is_one ? (struct scan){container.at + 1, container.at + container.size - 1} : (struct scan){0};
}

static bool is_escaped(const char *quote)
{
    const char *at = quote;
    while (at[-1] == '\\')
        at--;
    return (quote - at) % 2 != 0;
}

static struct json_span pass_string(struct scan *scan)
{
    const char *first = scan->at, *quote = first;
    do
        quote = memchr(quote + 1, '"', (size_t)(scan->end - quote - 1));
    while (is_escaped(quote));
    scan->at = quote + 1;
    return (struct json_span){first, (size_t)(scan->at - first)};
}

static struct json_span pass_value(struct scan *scan)
{
    const char *first = scan->at;
    size_t depth = 0;
    do {
        char c = *scan->at;
        if (c == '"') {
            pass_string(scan);
            continue;
        }
        depth += c == '{' || c == '[';
        depth -= c == '}' || c == ']';
        scan->at++;
    } while (scan->at < scan->end && (depth > 0 || (!is_space(*scan->at) && *scan->at != ',')));
    return (struct json_span){first, (size_t)(scan->at - first)};
}

/* A character of a string, its escape resolved. Beyond ASCII it is none that a name has. */
static unsigned next_character(const char **at)
{
    static const char escapes[] = "\"\"\\\\//b\bf\fn\nr\rt\t";
    uint8_t byte = (uint8_t) * (*at)++;
    if (byte != '\\')
        return byte;
    char c = *(*at)++;
    if (c != 'u')
        return (uint8_t)strchr(escapes, c)[1];
    unsigned unit = 0;
    for (int i = 0; i < 4; i++)
        unit = unit << 4 | (unsigned)hex_digit(*(*at)++);
    return unit;
}

static bool is_name(struct json_span string, const char *name)
{
    const char *at = string.at + 1, *end = string.at + string.size - 1;
    while (at < end && *name && next_character(&at) == (unsigned)*name)
        name++;
    return at == end && *name == '\0';
}

/* To the next member or element; false at the end of the container. */
static bool find_next(struct scan *scan)
{
    if (skip_space(scan) == ',') {
        scan->at++;
        skip_space(scan);
    }
    return scan->at < scan->end;
}

/* The last member of that name, and how many there are. */
static struct json_span find_members(struct json_span object, const char *name, size_t *count)
{
    struct json_span found = {0};
    struct scan scan = open_container(object, '{');
    *count = 0;
    while (find_next(&scan)) {
        bool is_wanted = is_name(pass_string(&scan), name);
        skip_space(&scan);
        scan.at++; /* the colon */
        skip_space(&scan);
        struct json_span value = pass_value(&scan);
        if (!is_wanted)
            continue;
        found = value;
        ++*count;
    }
    return found;
}

struct json_span json_span_member(struct json_span object, const char *name)
{
    size_t count;
    return find_members(object, name, &count);
}

size_t json_span_member_count(struct json_span object, const char *name)
{
    size_t count;
    find_members(object, name, &count);
    return count;
}

struct json_span json_span_element(struct json_span array, struct json_span previous)
{
    struct scan scan = open_container(array, '[');
    if (previous.at)
        scan.at = previous.at + previous.size;
    return find_next(&scan) ? pass_value(&scan) : (struct json_span){0};
}

static bool is_surrogate(unsigned unit, unsigned first)
{
    return (unit & 0xfc00) == first;
}

static size_t write_utf8(unsigned code, char *out)
{
    if (code < 0x80) {
        out[0] = (char)code;
        return 1;
    }
    size_t following = code < 0x800 ? 1 : code < 0x10000 ? 2 : 3;
    static const unsigned leads[] = {0, 0xc0, 0xe0, 0xf0};
    out[0] = (char)(leads[following] | code >> 6 * following);
    for (size_t i = 1; i <= following; i++)
        out[i] = (char)(0x80 | (code >> 6 * (following - i) & 0x3f));
    return following + 1;
}

size_t json_span_text(struct json_span string, char *out)
{
    const char *at = string.at + 1, *end = string.at + string.size - 1;
    size_t size = 0;
    while (at < end) {
        if (*at != '\\') {
            out[size++] = *at++;
            continue;
        }
        unsigned code = next_character(&at);
        if (is_surrogate(code, 0xd800) && end - at >= 6 && at[0] == '\\' && at[1] == 'u') {
            const char *second = at;
            unsigned low = next_character(&second);
            if (is_surrogate(low, 0xdc00)) {
                code = 0x10000 + ((code & 0x3ff) << 10 | (low & 0x3ff));
                at = second;
            }
        }
        bool is_half = is_surrogate(code, 0xd800) || is_surrogate(code, 0xdc00);
        size += write_utf8(is_half ? 0xfffd : code, out + size);
    }
    return size;
}

bool json_span_is_notification(struct json_span request)
{
    return !json_span_member(request, "id").at && json_span_member(request, "method").at;
}
