/* links: proxies/json_span.c */
/* SPDX-License-Identifier: MIT
 *
 * Any bytes as JSON, beside jansson: what jansson reads is read here, and its members and elements are found,
 * the last of several of one name; what is read here and not there is a number beyond jansson's range or
 * another of its own limits. A value's span is JSON again.
 */
#include "proxies/json_span.h"
#include "tests/fuzz/fuzz.h"

#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { JANSSON_FLAGS = JSON_DECODE_ANY | JSON_ALLOW_NUL };

/* jansson's own value of a span; NULL where there is none, or jansson cannot hold it. */
static json_t *parsed(struct json_span span, json_error_t *error)
{
    return span.at ? json_loadb(span.at, span.size, JANSSON_FLAGS, error) : NULL;
}

static void check_is(struct json_span span, const json_t *wanted)
{
    json_error_t error;
    json_t *value = parsed(span, &error);
    FUZZ_CHECK((value == NULL) == (wanted == NULL));
    FUZZ_CHECK(wanted == NULL || json_equal(value, wanted));
    if (json_is_string(value)) {
        char *text = malloc(span.size);
        size_t size = json_span_text(span, text);
        FUZZ_CHECK(size == json_string_length(value) && memcmp(text, json_string_value(value), size) == 0);
        free(text);
    }
    json_decref(value);
}

/* Every text that jansson refuses although it is JSON. */
static void check_refusal(struct json_span whole, const json_error_t *error)
{
    enum json_error_code code = json_error_code(error);
    bool is_surrogate = memmem(whole.at, whole.size, "\\uD", 3) || memmem(whole.at, whole.size, "\\ud", 3);
    FUZZ_CHECK(code == json_error_numeric_overflow || code == json_error_null_byte_in_key ||
               code == json_error_stack_overflow || is_surrogate);
}

static size_t check_elements(struct json_span array)
{
    size_t count = 0;
    struct json_span element = {0};
    while ((element = json_span_element(array, element)).at) {
        struct json_span again;
        FUZZ_CHECK(element.at > array.at && element.at + element.size < array.at + array.size);
        FUZZ_CHECK(json_span_read(element.at, element.size, &again));
        FUZZ_CHECK(again.at == element.at && again.size == element.size);
        count++;
    }
    return count;
}

static void check_values(struct json_span whole, json_t *value)
{
    struct json_span element = {0};
    for (size_t i = 0; i < json_array_size(value); i++) {
        element = json_span_element(whole, element);
        check_is(element, json_array_get(value, i));
    }
    FUZZ_CHECK(check_elements(whole) == json_array_size(value));
    const char *name;
    json_t *member;
    json_object_foreach(value, name, member)
    {
        if (strspn(name, "abcdefghijklmnopqrstuvwxyz") == strlen(name))
            check_is(json_span_member(whole, name), member);
    }
    check_is(json_span_member(whole, "id"), json_object_get(value, "id"));
    bool is_notification = json_object_get(value, "method") && !json_object_get(value, "id");
    FUZZ_CHECK(json_span_is_notification(whole) == is_notification);
}

FUZZ_TARGET(fuzz_json_span)
{
    struct json_span whole;
    json_error_t error;
    const char *text = (const char *)data;
    bool is_json = json_span_read(text, size, &whole);
    json_t *value = json_loadb(text, size, JANSSON_FLAGS, &error);
    FUZZ_CHECK(is_json || !value || memchr(text, '\0', size)); /* which ends a text for jansson's lexer */
    if (is_json) {
        FUZZ_CHECK(whole.at >= text && whole.at + whole.size <= text + size && whole.size > 0);
        check_elements(whole);
        FUZZ_CHECK((json_span_member(whole, "id").at != NULL) == (json_span_member_count(whole, "id") > 0));
    }
    if (is_json && value)
        check_values(whole, value);
    else if (is_json)
        check_refusal(whole, &error);
    json_decref(value);
    return 0;
}
