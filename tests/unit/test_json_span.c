/* SPDX-License-Identifier: MIT */
/* links: proxies/json_span.c */
#include "proxies/json_span.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

static struct json_span read_all(const char *text)
{
    struct json_span value;
    assert_true(json_span_read(text, strlen(text), &value));
    return value;
}

static void assert_span(struct json_span span, const char *text)
{
    assert_non_null(span.at);
    assert_int_equal(span.size, strlen(text));
    assert_memory_equal(span.at, text, span.size);
}

static void gives_the_text_of_a_member_unchanged(void **state)
{
    (void)state;
    static const char *const ids[] = {
        "1",
        "-0",
        "1.0",
        "1e400",
        "-12345678901234567890123",
        "0.10E+01",
        "\"\"",
        "\"a\\u00e9\\/\\\"b\"",
        "\"\\ud800\"",
        "\"\xc3\xa4\"",
        "null",
        "true",
        "false",
        "{}",
        "[]",
        "[1, {\"id\": [2]}]",
        "{\"id\" :3}",
    };
    for (size_t i = 0; i < sizeof ids / sizeof *ids; i++) {
        char text[256];
        snprintf(text, sizeof text, " { \"method\":\"m\" ,\"id\"\t:\n%s \r,\"params\":[\"id\",{\"id\":0}]} ",
                 ids[i]);
        struct json_span object = read_all(text);
        assert_span(json_span_member(object, "id"), ids[i]);
        assert_span(json_span_member(object, "params"), "[\"id\",{\"id\":0}]");
        assert_null(json_span_member(object, "error").at);
    }
}

static void the_last_of_several_members_wins_however_its_name_is_written(void **state)
{
    (void)state;
    assert_span(json_span_member(read_all("{\"id\":1,\"id\":2}"), "id"), "2");
    assert_span(json_span_member(read_all("{\"id\":1,\"\\u0069\\u0064\":2}"), "id"), "2");
    assert_span(
        json_span_member(read_all("{\"\\u0049d\":1,\"idx\":2,\"i\":3,\"id\\u0000\":4,\"id\":5}"), "id"), "5");
    assert_span(json_span_member(read_all("{\"a\\/\\t\":1}"), "a/\t"), "1");
}

static void goes_through_the_elements_of_an_array(void **state)
{
    (void)state;
    struct json_span array = read_all("[ {\"a\":[1,2]} , \"],\" ,3\t]"), element = {0};
    assert_span(element = json_span_element(array, element), "{\"a\":[1,2]}");
    assert_span(element = json_span_element(array, element), "\"],\"");
    assert_span(element = json_span_element(array, element), "3");
    assert_null(json_span_element(array, element).at);
    assert_null(json_span_element(read_all("[ ]"), (struct json_span){0}).at);
}

static void only_containers_have_members_and_elements(void **state)
{
    (void)state;
    static const char *const others[] = {"\"id\"", "1", "null", "{\"a\":{\"id\":1}}", "[{\"id\":1}]", "{}"};
    for (size_t i = 0; i < sizeof others / sizeof *others; i++)
        assert_null(json_span_member(read_all(others[i]), "id").at);
    assert_null(json_span_member((struct json_span){0}, "id").at);
    assert_null(json_span_element(read_all("{\"a\":1}"), (struct json_span){0}).at);
    assert_null(json_span_element((struct json_span){0}, (struct json_span){0}).at);
}

static void counts_members_of_one_name(void **state)
{
    (void)state;
    struct json_span value;
    static const char text[] = "{\"id\":1,\"a\":{\"id\":2},\"\\u0069d\":3}";
    assert_true(json_span_read(text, strlen(text), &value));
    assert_int_equal(json_span_member_count(value, "id"), 2);
    assert_int_equal(json_span_member_count(value, "a"), 1);
    assert_int_equal(json_span_member_count(value, "b"), 0);
}

static void resolves_the_escapes_of_a_string(void **state)
{
    (void)state;
    static const struct {
        const char *json, *text;
    } pairs[] = {
        {"\"plain\"", "plain"},
        {"\"\\\"\\\\\\/\\b\\f\\n\\r\\t\"", "\"\\/\b\f\n\r\t"},
        {"\"caf\\u00e9\"", "caf\xc3\xa9"},
        {"\"caf\xc3\xa9\"", "caf\xc3\xa9"},
        {"\"\\u20ac\"", "\xe2\x82\xac"},
        {"\"\\ud83d\\ude00\"", "\xf0\x9f\x98\x80"},
        {"\"\\ud83d\"", "\xef\xbf\xbd"},
        {"\"\\ude00\\ud83dx\"", "\xef\xbf\xbd\xef\xbf\xbdx"},
        {"\"\\ud83d\\n\"", "\xef\xbf\xbd\n"},
        {"\"\"", ""},
    };
    for (size_t i = 0; i < sizeof pairs / sizeof *pairs; i++) {
        struct json_span value;
        char text[64];
        assert_true(json_span_read(pairs[i].json, strlen(pairs[i].json), &value));
        size_t size = json_span_text(value, text);
        assert_int_equal(size, strlen(pairs[i].text));
        assert_memory_equal(text, pairs[i].text, size);
    }
}

static void tells_a_notification(void **state)
{
    (void)state;
    assert_true(json_span_is_notification(read_all("{\"jsonrpc\":\"2.0\",\"method\":\"m\"}")));
    assert_false(json_span_is_notification(read_all("{\"jsonrpc\":\"2.0\",\"method\":\"m\",\"id\":null}")));
    assert_false(json_span_is_notification(read_all("{\"jsonrpc\":\"2.0\"}")));
    assert_false(json_span_is_notification(read_all("[{\"method\":\"m\"}]")));
}

static void refuses_what_is_no_json(void **state)
{
    (void)state;
    static const char *const texts[] = {
        "",
        " ",
        "{",
        "[",
        "}",
        "[1,]",
        "{\"a\":1,}",
        "{\"a\":}",
        "{\"a\"}",
        "{]",
        "[}",
        "[1 2]",
        "{} {}",
        "01",
        "1.",
        "-",
        "+1",
        "1e",
        ".5",
        "tru",
        "True",
        "NaN",
        "Infinity",
        "'a'",
        "\"a",
        "\"\n\"",
        "\"\\x\"",
        "\"\\u12g4\"",
        "\xef\xbb\xbf{}",
        "\"\xff\"",
        "\"\xc0\xaf\"",
        "\"\xed\xa0\x80\"",
        "\"\xf4\x90\x80\x80\"",
        "\"\xe2\x82\"",
        "{1:2}",
        "/**/1",
    };
    struct json_span value;
    for (size_t i = 0; i < sizeof texts / sizeof *texts; i++)
        assert_false(json_span_read(texts[i], strlen(texts[i]), &value));
    assert_false(json_span_read("{}\0", 3, &value));
    assert_false(json_span_read("\"a\0b\"", 5, &value));
}

static void reads_no_deeper_than_it_says_whatever_comes(void **state)
{
    (void)state;
    enum { MIB = 1 << 20 };
    struct json_span value;
    char *text = malloc(MIB);
    memset(text, '[', MIB);
    assert_false(json_span_read(text, MIB, &value));
    memset(text + JSON_SPAN_DEPTH, ']', JSON_SPAN_DEPTH);
    assert_true(json_span_read(text, (size_t)2 * JSON_SPAN_DEPTH, &value));
    memset(text, '[', MIB / 2);
    memset(text + MIB / 2, ']', MIB / 2);
    assert_false(json_span_read(text, MIB, &value));
    size_t over = MIB / 2 - JSON_SPAN_DEPTH - 1;
    assert_false(json_span_read(text + over, (size_t)2 * JSON_SPAN_DEPTH + 2, &value));
    assert_true(json_span_read(text + over + 1, (size_t)2 * JSON_SPAN_DEPTH, &value));
    free(text);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(gives_the_text_of_a_member_unchanged),
        cmocka_unit_test(the_last_of_several_members_wins_however_its_name_is_written),
        cmocka_unit_test(goes_through_the_elements_of_an_array),
        cmocka_unit_test(only_containers_have_members_and_elements),
        cmocka_unit_test(counts_members_of_one_name),
        cmocka_unit_test(resolves_the_escapes_of_a_string),
        cmocka_unit_test(tells_a_notification),
        cmocka_unit_test(refuses_what_is_no_json),
        cmocka_unit_test(reads_no_deeper_than_it_says_whatever_comes),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
