/* SPDX-License-Identifier: MIT */
/* links: proxyd/log.c */
#include "proxyd/log.h"

#include <fcntl.h>
#include <jansson.h>
#include <pthread.h>
#include <regex.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include <cmocka.h>

/* While `begin` … `end` stderr is a pipe; a failing assertion would speak into it, so none stands between. */
static int saved_stderr, reader;
static char written[1 << 20];

static void begin(void)
{
    int ends[2];
    assert_int_equal(pipe2(ends, O_CLOEXEC), 0);
    saved_stderr = dup(STDERR_FILENO);
    dup2(ends[1], STDERR_FILENO);
    close(ends[1]);
    reader = ends[0];
}

static void *read_all(void *unused)
{
    size_t size = 0;
    for (ssize_t got; (got = read(reader, written + size, sizeof(written) - 1 - size)) > 0;)
        size += (size_t)got;
    close(reader);
    written[size] = '\0';
    return unused;
}

static void restore_stderr(void)
{
    dup2(saved_stderr, STDERR_FILENO);
    close(saved_stderr);
}

static const char *end(void)
{
    restore_stderr();
    read_all(NULL);
    return written;
}

/* What one event looks like. */
static const char *logged(enum log_format format, const struct event_field *fields, unsigned count)
{
    begin();
    int opened = log_open(EVENT_INFO, format);
    log_event(NULL, EVENT_WARNING, "upstream-lost", fields, count);
    log_close();
    end();
    assert_int_equal(opened, 0);
    return written;
}

static const char *logged_value(enum log_format format, const char *value)
{
    return logged(format, &EVENT_TEXT("value", value), 1);
}

static void expect_match(const char *text, const char *pattern)
{
    regex_t regex;
    assert_int_equal(regcomp(&regex, pattern, REG_EXTENDED | REG_NOSUB), 0);
    if (regexec(&regex, text, 0, NULL, 0) != 0)
        fail_msg("\"%s\" does not match %s", text, pattern);
    regfree(&regex);
}

static void expect_end(const char *text, const char *ending)
{
    size_t size = strlen(text), ending_size = strlen(ending);
    if (size < ending_size || strcmp(text + size - ending_size, ending) != 0)
        fail_msg("\"%s\" does not end with \"%s\"", text, ending);
}

static void text_line_has_time_level_token_and_fields(void **state)
{
    (void)state;
    const struct event_field fields[] = {EVENT_TEXT("chain", "calls"), EVENT_TEXT("endpoint", "tcp://a:6000"),
                                         EVENT_NUMBER("after_ms", -5000)};
    expect_match(logged(LOG_TEXT, fields, 3),
                 "^[0-9]{4}-[0-9]{2}-[0-9]{2}T[0-9]{2}:[0-9]{2}:[0-9]{2}\\.[0-9]{3}Z "
                 "warning upstream-lost chain=calls endpoint=tcp://a:6000 after_ms=-5000\n$");
}

static void text_quotes_only_what_could_be_misread(void **state)
{
    (void)state;
    expect_end(logged_value(LOG_TEXT, "plain-1.2/3"), " value=plain-1.2/3\n");
    expect_end(logged_value(LOG_TEXT, ""), " value=\"\"\n");
    expect_end(logged_value(LOG_TEXT, "two words"), " value=\"two words\"\n");
    expect_end(logged_value(LOG_TEXT, "a=b"), " value=\"a=b\"\n");
    expect_end(logged_value(LOG_TEXT, "say \"x\\y\""), " value=\"say \\\"x\\\\y\\\"\"\n");
}

static void no_value_can_forge_a_line_or_reach_the_terminal(void **state)
{
    (void)state;
    expect_end(logged_value(LOG_TEXT, "a\nb"), " value=\"a\\nb\"\n");
    expect_end(logged_value(LOG_TEXT, "\x1b[2J\x7f"), " value=\"\\u001b[2J\\u007f\"\n");
    expect_end(logged_value(LOG_TEXT, "\xc2\x9b"), " value=\"\\u009b\"\n");
    expect_end(logged_value(LOG_TEXT, "K\xc3\xb6ln"), " value=\"K\xc3\xb6ln\"\n");
    expect_end(logged_value(LOG_TEXT, "\xf0\x9f\x98\x80"), " value=\"\xf0\x9f\x98\x80\"\n");
}

static void bytes_that_are_no_utf8_are_shown_as_bytes(void **state)
{
    (void)state;
    expect_end(logged_value(LOG_TEXT, "\xff"), " value=\"\\xff\"\n");
    expect_end(logged_value(LOG_TEXT, "\xc3"), " value=\"\\xc3\"\n");
    expect_end(logged_value(LOG_TEXT, "\xc0\xaf"), " value=\"\\xc0\\xaf\"\n");          /* overlong */
    expect_end(logged_value(LOG_TEXT, "\xed\xa0\x80"), " value=\"\\xed\\xa0\\x80\"\n"); /* a surrogate */
    expect_end(logged_value(LOG_TEXT, "\xf4\x90\x80\x80"),
               " value=\"\\xf4\\x90\\x80\\x80\"\n"); /* too large */
}

static void json_line_parses_and_keeps_every_value(void **state)
{
    (void)state;
    const char *value = "a\"b\\c\nd\t\x1b K\xc3\xb6ln \xe2\x82\xac";
    const struct event_field fields[] = {EVENT_TEXT("value", value), EVENT_NUMBER("count", INT64_MIN)};
    const char *text, *level, *event, *found;
    json_int_t count;
    json_t *line = json_loads(logged(LOG_JSON, fields, 2), JSON_REJECT_DUPLICATES, NULL);
    assert_non_null(line);
    assert_int_equal(json_unpack(line, "{s:s,s:s,s:s,s:s,s:I !}", "time", &text, "level", &level, "event",
                                 &event, "value", &found, "count", &count),
                     0);
    expect_match(text, "^[0-9-]{10}T[0-9:]{8}\\.[0-9]{3}Z$");
    assert_string_equal(level, "warning");
    assert_string_equal(event, "upstream-lost");
    assert_string_equal(found, value);
    assert_true(count == INT64_MIN);
    json_decref(line);
}

static void json_replaces_bytes_that_are_no_utf8(void **state)
{
    (void)state;
    json_t *line = json_loads(logged_value(LOG_JSON, "a\xff\xc3"), 0, NULL);
    assert_non_null(line);
    assert_string_equal(json_string_value(json_object_get(line, "value")), "a\xef\xbf\xbd\xef\xbf\xbd");
    json_decref(line);
}

static void long_line_is_cut_and_says_so(void **state)
{
    (void)state;
    static char huge[20001];
    memset(huge, 'x', sizeof(huge) - 1);
    for (size_t start = 0; start < 8; start++) { /* every alignment of a two-byte character with the end */
        for (size_t i = start; i + 2 <= sizeof(huge) - 1; i += 2)
            memcpy(huge + i, "\xc3\xb6", 2);
        const struct event_field fields[] = {EVENT_TEXT("value", huge), EVENT_NUMBER("count", 1)};
        expect_end(logged(LOG_TEXT, fields, 2), "\" cut=1\n");
        assert_in_range(strlen(written), 4000, 4096);
        json_t *line = json_loads(logged(LOG_JSON, fields, 2), 0, NULL);
        assert_non_null(line);
        assert_in_range(strlen(written), 4000, 4096);
        assert_int_equal(json_integer_value(json_object_get(line, "cut")), 1);
        json_decref(line);
    }
}

static void many_fields_are_cut_between_fields(void **state)
{
    (void)state;
    struct event_field fields[400];
    for (size_t i = 0; i < 400; i++)
        fields[i] = EVENT_NUMBER("number", 1234567);
    expect_end(logged(LOG_TEXT, fields, 400), " number=1234567 cut=1\n");
    json_t *line = json_loads(logged(LOG_JSON, fields, 400), 0, NULL);
    assert_non_null(line);
    json_decref(line);
}

static void lesser_levels_are_silent(void **state)
{
    (void)state;
    begin();
    log_open(EVENT_WARNING, LOG_TEXT);
    log_event(NULL, EVENT_INFO, "unheard", NULL, 0);
    log_event(NULL, EVENT_ERROR, "heard", NULL, 0);
    log_close();
    expect_match(end(), "^[^ ]+ error heard\n$");
}

static void writes_directly_while_closed(void **state)
{
    (void)state;
    begin();
    struct event_sink sink = log_sink();
    EVENT(&sink, EVENT_ERROR, "bind-failed", EVENT_TEXT("endpoint", "tcp://*:1"));
    log_close();
    expect_end(end(), " error bind-failed endpoint=tcp://*:1\n");
}

static void journal_gets_priorities_and_no_time(void **state)
{
    (void)state;
    struct stat status;
    char stream[64];
    begin();
    fstat(STDERR_FILENO, &status);
    snprintf(stream, sizeof(stream), "%llu:%llu", (unsigned long long)status.st_dev,
             (unsigned long long)status.st_ino);
    setenv("JOURNAL_STREAM", stream, 1);
    log_open(EVENT_DEBUG, LOG_TEXT);
    log_event(NULL, EVENT_ERROR, "a", NULL, 0);
    log_event(NULL, EVENT_WARNING, "b", NULL, 0);
    log_event(NULL, EVENT_INFO, "c", NULL, 0);
    log_event(NULL, EVENT_DEBUG, "d", NULL, 0);
    log_close();
    assert_string_equal(end(), "<3>error a\n<4>warning b\n<6>info c\n<7>debug d\n");
    expect_match(logged(LOG_TEXT, NULL, 0), "^[0-9-]+T"); /* another stream than the one announced */
    unsetenv("JOURNAL_STREAM");
}

static int64_t now_ms(void)
{
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return now.tv_sec * 1000 + now.tv_nsec / 1000000;
}

/* The numbers of the "tick" lines rise by one, apart from gaps that a log-dropped line right there accounts
 * for. */
static void expect_every_tick_accounted_for(const char *text, int64_t count)
{
    int64_t next = 0;
    for (; *text != '\0'; text = strchr(text, '\n') + 1) {
        const char *tick = strstr(text, " info tick n="),
                   *dropped = strstr(text, " warning log-dropped count=");
        const char *newline = strchr(text, '\n');
        assert_non_null(newline);
        if (dropped != NULL && dropped < newline)
            next += strtoll(dropped + strlen(" warning log-dropped count="), NULL, 10);
        else {
            assert_non_null(tick);
            assert_int_equal(strtoll(tick + strlen(" info tick n="), NULL, 10), next);
            next++;
        }
    }
    assert_int_equal(next, count);
}

static void log_ticks(int64_t count)
{
    char padding[121] = "";
    memset(padding, 'x', 100);
    alarm(30); /* a caller that waits for the reader ends the test here */
    for (int64_t i = 0; i < count; i++) {
        snprintf(padding + 100, sizeof(padding) - 100, "%lld",
                 (long long)i); /* no repeat of the one before */
        log_event(NULL, EVENT_INFO, "tick",
                  (struct event_field[]){EVENT_NUMBER("n", i), EVENT_TEXT("padding", padding)}, 2);
    }
    alarm(0);
}

static void log_state(const char *chain, int64_t number)
{
    log_event(NULL, EVENT_INFO, "state",
              (struct event_field[]){EVENT_TEXT("chain", chain), EVENT_NUMBER("number", number)}, 2);
}

static unsigned count_of(const char *text, const char *part)
{
    unsigned count = 0;
    for (const char *at = text; (at = strstr(at, part)); at += strlen(part))
        count++;
    return count;
}

static void repeats_are_counted_and_the_last_is_written(void **state)
{
    static const enum log_format formats[] = {LOG_TEXT, LOG_JSON};
    static const char *const lasts[] = {
        " info state chain=a number=99 repeats=95\n",
        "\"event\":\"state\",\"chain\":\"a\",\"number\":99,\"repeats\":95}\n"};
    (void)state;
    for (int i = 0; i < 2; i++) {
        begin();
        log_open(EVENT_INFO, formats[i]);
        for (int number = 0; number < 100; number++)
            log_state("a", number);
        log_state("b", 100);
        log_close();
        end();
        assert_int_equal(count_of(written, "\n"), LOG_REPEATS + 2);
        assert_int_equal(count_of(written, lasts[i]), 1);
        assert_int_equal(count_of(written, "repeats"), 1);
    }
}

static void stalled_reader_stops_nobody_and_losses_are_counted(void **state)
{
    (void)state;
    pthread_t thread;
    begin();
    log_open(EVENT_INFO, LOG_TEXT);
    log_ticks(20000); /* about 3 MB, against a pipe of 64 KiB and a ring of 256 */
    pthread_create(&thread, NULL, read_all, NULL);
    log_close();
    restore_stderr();
    pthread_join(thread, NULL);
    assert_non_null(strstr(written, "log-dropped"));
    expect_every_tick_accounted_for(written, 20000);
}

static void close_gives_up_on_a_stalled_reader(void **state)
{
    (void)state;
    begin();
    log_open(EVENT_INFO, LOG_TEXT);
    log_ticks(20000);
    int64_t before_ms = now_ms();
    log_close();
    int64_t took_ms = now_ms() - before_ms;
    end();
    assert_in_range(took_ms, 900, 5000);
}

static void gone_reader_is_survived(void **state)
{
    (void)state;
    begin();
    log_open(EVENT_INFO, LOG_TEXT);
    close(reader);
    log_ticks(20000);
    log_close();
    reader = open("/dev/null", O_RDONLY | O_CLOEXEC);
    assert_string_equal(end(), "");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(text_line_has_time_level_token_and_fields),
        cmocka_unit_test(text_quotes_only_what_could_be_misread),
        cmocka_unit_test(no_value_can_forge_a_line_or_reach_the_terminal),
        cmocka_unit_test(bytes_that_are_no_utf8_are_shown_as_bytes),
        cmocka_unit_test(json_line_parses_and_keeps_every_value),
        cmocka_unit_test(json_replaces_bytes_that_are_no_utf8),
        cmocka_unit_test(long_line_is_cut_and_says_so),
        cmocka_unit_test(many_fields_are_cut_between_fields),
        cmocka_unit_test(lesser_levels_are_silent),
        cmocka_unit_test(writes_directly_while_closed),
        cmocka_unit_test(journal_gets_priorities_and_no_time),
        cmocka_unit_test(repeats_are_counted_and_the_last_is_written),
        cmocka_unit_test(stalled_reader_stops_nobody_and_losses_are_counted),
        cmocka_unit_test(close_gives_up_on_a_stalled_reader),
        cmocka_unit_test(gone_reader_is_survived),
    };
    signal(SIGPIPE, SIG_IGN);
    return cmocka_run_group_tests(tests, NULL, NULL);
}
