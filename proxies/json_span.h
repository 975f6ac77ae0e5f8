/* SPDX-License-Identifier: MIT
 *
 * Where a value stands in somebody else's JSON (RFC 8259), so that its own text can be given back or replaced
 * byte by byte: 1.0, 1e400 and 12345678901234567890 stay what they are, and so do a string's escapes.
 */
#ifndef PROXYD_PROXIES_JSON_SPAN_H
#define PROXYD_PROXIES_JSON_SPAN_H

#include <stdbool.h>
#include <stddef.h>

/* Deeper text is not read; the same bound as jansson's. */
#define JSON_SPAN_DEPTH 2048

/* The text of one value, without space around it, inside the caller's buffer. Its first byte says what it is:
 * '{', '[', '"', 't', 'f', 'n', or a number's. */
struct json_span {
    const char *at; /* NULL = there is no value */
    size_t size;
};

/* Finds the one JSON value that the `size` bytes at `data` are. False when they are not, in valid UTF-8, or
 * deeper than JSON_SPAN_DEPTH. Linear time, no memory, no recursion. */
bool json_span_read(const void *data, size_t size, struct json_span *value);

/* The value of the member `name` (ASCII) of `object`; the last one where there are several, as jansson and
 * Python have it. None when there is no such member, or `object` is something else. Like `array` below,
 * `object` is a value that json_span_read found, or one inside it. */
struct json_span json_span_member(struct json_span object, const char *name);

/* How many members of `object` have that name: more than one, and readers disagree on which counts. */
size_t json_span_member_count(struct json_span object, const char *name);

/* The element of `array` after `previous`, the first one after none; none at the end, or where `array` is
 * something else. */
struct json_span json_span_element(struct json_span array, struct json_span previous);

/* The characters of `string`, its escapes resolved, written as UTF-8 to `out`, which has room for string.size bytes;
 * half a surrogate pair becomes U+FFFD. Returns how many bytes. */
size_t json_span_text(struct json_span string, char *out);

/* Whether `request` is a notification of JSON-RPC 2.0: an object with a method and without an id. */
bool json_span_is_notification(struct json_span request);

#endif
