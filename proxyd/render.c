/* SPDX-License-Identifier: MIT
 *
 * JSON -> tables; see render.h. Only prints.
 */
#include "proxyd/render.h"

#include <stdint.h>
#include <stdlib.h>
#include <string.h>

enum form { TEXT, NUMBER, RATE, DURATION, SHORT_TIME };

struct column {
    const char *title;
    const char *key; /* in a chain's status */
    enum form form;  /* all but texts are aligned to the right */
    bool is_rare;    /* shown only when it is not zero everywhere */
};

static const struct column status_columns[] = {
    {"CHAIN", "name", TEXT, .is_rare = false},
    {"KIND", "kind", TEXT, .is_rare = false},
    {"STATE", "state", TEXT, .is_rare = false},
    {"ACCEPTED", "accepted", NUMBER, .is_rare = false},
    {"DELIVERED", "delivered", NUMBER, .is_rare = false},
    {"FAILED", "failed", NUMBER, .is_rare = false},
    {"EXPIRED", "expired", NUMBER, .is_rare = true},
    {"DROPPED", "dropped", NUMBER, .is_rare = true},
    {"DEAD", "dead", NUMBER, .is_rare = true},
    {"QUEUED", "queued", NUMBER, .is_rare = false},
    {"INFLIGHT", "inflight", NUMBER, .is_rare = false},
    {"OLDEST", "oldest_ms", DURATION, .is_rare = false},
};

static const struct column top_columns[] = {
    {"CHAIN", "name", TEXT, .is_rare = false},           {"KIND", "kind", TEXT, .is_rare = false},
    {"STATE", "state", TEXT, .is_rare = false},          {"IN/S", "accepted_rate", RATE, .is_rare = false},
    {"OUT/S", "delivered_rate", RATE, .is_rare = false}, {"FAILED/S", "failed_rate", RATE, .is_rare = false},
    {"QUEUED", "queued", NUMBER, .is_rare = false},      {"OLDEST", "oldest_ms", DURATION, .is_rare = false},
    {"INFLIGHT", "inflight", NUMBER, .is_rare = false},  {"DEAD", "dead", NUMBER, .is_rare = true},
    {"P50", "p50_us", SHORT_TIME, .is_rare = true},      {"P99", "p99_us", SHORT_TIME, .is_rare = true},
};

enum {
    STATUS_COLUMNS = sizeof(status_columns) / sizeof(status_columns[0]),
    TOP_COLUMNS = sizeof(top_columns) / sizeof(top_columns[0]),
    COLUMNS_MAX = STATUS_COLUMNS > TOP_COLUMNS ? STATUS_COLUMNS : TOP_COLUMNS
};

/* Some columns, and how wide each must be; 0 = not shown. */
struct table {
    const struct column *columns;
    int count;
    int widths[COLUMNS_MAX];
};

/* Beside the sum; shown when not zero. */
static const char *const beside[] = {"retries",  "recreates", "redelivered", "orphaned",
                                     "restored", "stray",     "heartbeats",  "slow_subscriber"};

static const char *text_of(const json_t *value)
{
    const char *text = json_string_value(value);
    return text ? text : "-";
}

/* The number itself, or the sum of a map of reasons. */
static json_int_t count_of(const json_t *value)
{
    json_int_t sum = json_integer_value(value);
    const char *key;
    json_t *item;
    json_object_foreach((json_t *)value, key, item) sum += json_integer_value(item);
    return sum;
}

/* Two units at most, as people say it. */
static void duration_text(char *text, size_t size, json_int_t ms)
{
    json_int_t s = ms / 1000;
    if (ms < 1000)
        snprintf(text, size, "%lldms", (long long)ms);
    else if (s < 60)
        snprintf(text, size, "%lld.%llds", (long long)s, (long long)(ms % 1000 / 100));
    else if (s < 3600)
        snprintf(text, size, "%lldm%02llds", (long long)(s / 60), (long long)(s % 60));
    else if (s < 86400)
        snprintf(text, size, "%lldh%02lldm", (long long)(s / 3600), (long long)(s / 60 % 60));
    else
        snprintf(text, size, "%lldd%02lldh", (long long)(s / 86400), (long long)(s / 3600 % 24));
}

static void cell_text(char *text, size_t size, const struct column *column, const json_t *chain)
{
    const json_t *value = json_object_get(chain, column->key);
    if (column->form == TEXT)
        snprintf(text, size, "%s", text_of(value));
    else if (!json_is_number(value) && !json_is_object(value))
        snprintf(text, size, "-");
    else if (column->form == DURATION)
        duration_text(text, size, json_integer_value(value));
    else if (column->form == SHORT_TIME)
        snprintf(text, size, "%.3gms", (double)json_integer_value(value) / 1000);
    else if (column->form == RATE)
        snprintf(text, size, "%.*f", json_real_value(value) < 9.95 && json_real_value(value) > 0 ? 1 : 0,
                 json_real_value(value));
    else
        snprintf(text, size, "%lld", (long long)count_of(value));
}

/* Green, yellow or red for a state word. */
static const char *colour_of(const char *state)
{
    if (strcmp(state, "up") == 0 || strcmp(state, "live") == 0)
        return "\033[32m";
    return strcmp(state, "down") == 0 ? "\033[31m" : "\033[33m";
}

static void print_state(FILE *out, const char *state, int width, bool has_colour)
{
    fprintf(out, "%s%-*s%s", has_colour ? colour_of(state) : "", width, state, has_colour ? "\033[0m" : "");
}

/* "  failed: timeout 2, unavailable 1" */
static void print_reasons(FILE *out, const char *title, const json_t *counts)
{
    const char *separator = "", *key;
    json_t *item;
    if (json_object_size(counts) == 0)
        return;
    fprintf(out, "  %s: ", title);
    json_object_foreach((json_t *)counts, key, item)
    {
        fprintf(out, "%s%s %lld", separator, key, (long long)json_integer_value(item));
        separator = ", ";
    }
    fputc('\n', out);
}

static void print_beside(FILE *out, const json_t *chain)
{
    json_t *counts = json_object();
    for (size_t i = 0; i < sizeof(beside) / sizeof(beside[0]); i++) {
        json_t *value = json_object_get(chain, beside[i]);
        if (json_integer_value(value) != 0)
            json_object_set(counts, beside[i], value);
    }
    print_reasons(out, "also", counts);
    json_decref(counts);
}

/* Quantiles of the last minute or two. */
static void print_times(FILE *out, const json_t *chain)
{
    const json_t *p50 = json_object_get(chain, "p50_us"), *p99 = json_object_get(chain, "p99_us");
    if (json_is_integer(p50) && json_is_integer(p99))
        fprintf(out, "  lately: half within %.3g ms, 99 %% within %.3g ms\n",
                (double)json_integer_value(p50) / 1000, (double)json_integer_value(p99) / 1000);
}

static void print_upstreams(FILE *out, const json_t *upstreams, bool has_colour)
{
    size_t index;
    json_t *upstream;
    int width = 0;
    json_array_foreach((json_t *)upstreams, index, upstream)
    {
        int length = (int)strlen(text_of(json_object_get(upstream, "endpoint")));
        width = length > width ? length : width;
    }
    json_array_foreach((json_t *)upstreams, index, upstream)
    {
        const json_t *cause = json_object_get(upstream, "cause"), *peer = json_object_get(upstream, "peer");
        fprintf(out, "  %-*s  ", width, text_of(json_object_get(upstream, "endpoint")));
        print_state(out, text_of(json_object_get(upstream, "state")), 0, has_colour);
        if (json_is_string(cause))
            fprintf(out, ", %s", text_of(cause));
        if (json_object_get(upstream, "connections"))
            fprintf(out, ", %lld connected, %lld in flight",
                    (long long)json_integer_value(json_object_get(upstream, "connections")),
                    (long long)json_integer_value(json_object_get(upstream, "inflight")));
        if (json_is_string(peer))
            fprintf(out, ", %s", text_of(peer));
        fputc('\n', out);
    }
}

/* "  worker a_1  live, heard 2.1s ago, 3 in flight" */
static void print_workers(FILE *out, const json_t *workers, bool has_colour)
{
    size_t index;
    json_t *worker;
    json_array_foreach((json_t *)workers, index, worker)
    {
        char heard[32];
        duration_text(heard, sizeof(heard), json_integer_value(json_object_get(worker, "heard_ms")));
        fprintf(out, "  worker %s  ", text_of(json_object_get(worker, "id")));
        print_state(out, text_of(json_object_get(worker, "state")), 0, has_colour);
        fprintf(out, ", heard %s ago, %lld in flight\n", heard,
                (long long)json_integer_value(json_object_get(worker, "inflight")));
    }
}

static void measure(struct table *table, const json_t *chains)
{
    for (int i = 0; i < table->count; i++) {
        const struct column *column = &table->columns[i];
        bool is_shown = !column->is_rare;
        size_t width = strlen(column->title), index;
        json_t *chain;
        json_array_foreach((json_t *)chains, index, chain)
        {
            char text[128];
            cell_text(text, sizeof(text), column, chain);
            width = strlen(text) > width ? strlen(text) : width;
            is_shown = is_shown || count_of(json_object_get(chain, column->key)) != 0;
        }
        table->widths[i] = is_shown ? (int)width : 0;
    }
}

/* A chain's row; the titles where `chain` is NULL. */
static void print_row(FILE *out, const struct table *table, const json_t *chain, bool has_colour)
{
    const char *separator = "";
    for (int i = 0; i < table->count; i++) {
        const struct column *column = &table->columns[i];
        char text[128];
        if (table->widths[i] == 0)
            continue;
        if (chain)
            cell_text(text, sizeof(text), column, chain);
        else
            snprintf(text, sizeof(text), "%s", column->title);
        fputs(separator, out);
        if (strcmp(column->key, "state") == 0)
            print_state(out, text, table->widths[i], has_colour && chain);
        else
            fprintf(out, column->form == TEXT ? "%-*s" : "%*s", table->widths[i], text);
        separator = "  ";
    }
    fputc('\n', out);
}

static void print_chains(FILE *out, const json_t *chains, bool has_colour)
{
    struct table table = {status_columns, STATUS_COLUMNS, {0}};
    measure(&table, chains);
    print_row(out, &table, NULL, has_colour);
    size_t index;
    json_t *chain;
    json_array_foreach((json_t *)chains, index, chain)
    {
        print_row(out, &table, chain, has_colour);
        print_upstreams(out, json_object_get(chain, "upstreams"), has_colour);
        print_workers(out, json_object_get(chain, "workers"), has_colour);
        print_reasons(out, "failed", json_object_get(chain, "failed"));
        print_reasons(out, "dropped", json_object_get(chain, "dropped"));
        print_beside(out, chain);
    }
}

static void print_store(FILE *out, const json_t *store)
{
    if (!store)
        return;
    fprintf(out, "\nstore %s, %lld messages in %lld commits of %lld us, %lld KiB written, reserve %s\n",
            json_is_true(json_object_get(store, "usable")) ? "usable" : "OUT OF ORDER",
            (long long)json_integer_value(json_object_get(store, "messages")),
            (long long)json_integer_value(json_object_get(store, "commits")),
            (long long)json_integer_value(json_object_get(store, "commit_us")),
            (long long)json_integer_value(json_object_get(store, "bytes_written")) / 1024,
            json_is_true(json_object_get(store, "reserve")) ? "kept" : "used up");
}

/* Attempts to connect, by verdict. */
static void print_auth(FILE *out, const json_t *auth)
{
    const char *verdict, *separator = "\nauth ";
    json_t *count;
    json_object_foreach((json_t *)auth, verdict, count)
    {
        fprintf(out, "%s%s %lld", separator, verdict, (long long)json_integer_value(count));
        separator = ", ";
    }
    if (json_object_size(auth) > 0)
        fputc('\n', out);
}

static void print_title(FILE *out, const json_t *status)
{
    char uptime[32];
    duration_text(uptime, sizeof(uptime), json_integer_value(json_object_get(status, "uptime_ms")));
    fprintf(out, "proxyd %s, up %s", text_of(json_object_get(status, "version")), uptime);
}

void render_status(FILE *out, const json_t *status, bool has_colour)
{
    print_title(out, status);
    fputs("\n\n", out);
    print_chains(out, json_object_get(status, "chains"), has_colour);
    print_auth(out, json_object_get(status, "auth"));
    print_store(out, json_object_get(status, "store"));
}

/* ---- The page of proxyctl top ---- */

static bool is_up(const json_t *chain)
{
    return strcmp(text_of(json_object_get(chain, "state")), "up") == 0;
}

static json_t *find_chain(const json_t *status, const char *name)
{
    size_t index;
    json_t *chain;
    json_array_foreach(json_object_get(status, "chains"), index, chain)
    {
        if (strcmp(text_of(json_object_get(chain, "name")), name) == 0)
            return chain;
    }
    return NULL;
}

/* Adds what the chain's counters gained in a second; nothing where one went back: the chain began anew. */
static void add_rates(json_t *chain, const json_t *before, json_int_t elapsed_ms)
{
    static const char *const keys[][2] = {
        {"accepted", "accepted_rate"}, {"delivered", "delivered_rate"}, {"failed", "failed_rate"}};
    for (size_t i = 0; before && elapsed_ms > 0 && i < sizeof(keys) / sizeof(keys[0]); i++) {
        json_int_t gained =
            count_of(json_object_get(chain, keys[i][0])) - count_of(json_object_get(before, keys[i][0]));
        if (gained < 0)
            return;
        json_object_set_new(chain, keys[i][1], json_real((double)gained * 1000 / (double)elapsed_ms));
    }
}

/* Copies of the chains with their rates; first those that are not up. */
static json_t *chains_by_need(const json_t *status, const json_t *before, size_t *up_count)
{
    json_t *list = json_array(), *chain;
    json_int_t elapsed_ms = json_integer_value(json_object_get(status, "uptime_ms")) -
                            json_integer_value(json_object_get(before, "uptime_ms"));
    size_t index, troubled = 0;
    json_array_foreach(json_object_get(status, "chains"), index, chain)
    {
        json_t *copy = json_copy(chain);
        add_rates(copy, find_chain(before, text_of(json_object_get(chain, "name"))), elapsed_ms);
        if (is_up(chain))
            json_array_append_new(list, copy);
        else
            json_array_insert_new(list, troubled++, copy);
    }
    *up_count = json_array_size(list) - troubled;
    return list;
}

void render_top(FILE *out, const json_t *status, const json_t *before, bool has_colour)
{
    struct table table = {top_columns, TOP_COLUMNS, {0}};
    size_t index, up_count;
    json_t *chains = chains_by_need(status, before, &up_count), *chain;
    print_title(out, status);
    fprintf(out, ", %zu of %zu chains up\n", up_count, json_array_size(chains));
    print_auth(out, json_object_get(status, "auth"));
    print_store(out, json_object_get(status, "store"));
    fputc('\n', out);
    measure(&table, chains);
    print_row(out, &table, NULL, has_colour);
    json_array_foreach(chains, index, chain)
    {
        print_row(out, &table, chain, has_colour);
        if (!is_up(chain))
            print_upstreams(out, json_object_get(chain, "upstreams"), has_colour);
    }
    json_decref(chains);
}

void render_silence(FILE *out, const char *why, int64_t age_ms, bool has_colour)
{
    char age[32];
    duration_text(age, sizeof(age), age_ms);
    fprintf(out, "%sno answer%s%s%s: %s\n", has_colour ? colour_of("down") : "", age_ms < 0 ? "" : " for ",
            age_ms < 0 ? "" : age, has_colour ? "\033[0m" : "", why);
}

static void print_value(FILE *out, const json_t *value)
{
    if (json_array_size(value) > 0) {
        size_t index;
        json_t *item;
        json_array_foreach((json_t *)value, index, item)
            fprintf(out, "%s%s", index > 0 ? ", " : "", text_of(item)[0] ? text_of(item) : "\"\"");
    } else if (json_is_integer(value)) {
        fprintf(out, "%lld", (long long)json_integer_value(value));
    } else {
        fputs(text_of(value), out);
    }
    fputc('\n', out);
}

/* One group of the configuration: the plain keys, then the groups inside it. */
static void print_group(FILE *out, const char *title, const json_t *group)
{
    const char *key;
    json_t *value;
    fprintf(out, "%s\n", title);
    json_object_foreach((json_t *)group, key, value)
    {
        if (json_is_object(value))
            continue;
        fprintf(out, "  %-16s ", key);
        print_value(out, value);
    }
    json_object_foreach((json_t *)group, key, value)
    {
        if (json_is_object(value))
            print_group(out, key, value);
    }
}

void render_chain(FILE *out, const json_t *chain, bool has_colour)
{
    print_group(out, "chain", json_object_get(chain, "config"));
    fputc('\n', out);
    json_t *chains = json_array();
    json_array_append(chains, json_object_get(chain, "status"));
    print_chains(out, chains, has_colour);
    print_times(out, json_array_get(chains, 0));
    json_decref(chains);
}

void render_text(FILE *out, const void *data, size_t size)
{
    const unsigned char *bytes = data;
    json_t *string = json_stringn(data, size);
    bool is_text = string != NULL;
    json_decref(string);
    for (size_t i = 0; i < size; i++) {
        bool is_control = bytes[i] < 0x20 || bytes[i] == 0x7f;
        if (is_text && bytes[i] == 0xc2 && bytes[i + 1] < 0xa0) /* U+0080 to U+009F are controls too */
            fprintf(out, "\\x%02x\\x%02x", bytes[i], bytes[i + 1]), i++;
        else if (is_control || (bytes[i] >= 0x80 && !is_text))
            fprintf(out, "\\x%02x", bytes[i]);
        else if (bytes[i] == '\\')
            fputs("\\\\", out);
        else
            fputc(bytes[i], out);
    }
}

void render_messages(FILE *out, const json_t *messages)
{
    size_t index;
    json_t *message;
    fprintf(out, "%-20s  %-9s  %10s  %8s  %8s  %s\n", "ID", "STATE", "BYTES", "AGE", "ATTEMPTS", "REASON");
    json_array_foreach((json_t *)messages, index, message)
    {
        const json_t *reason = json_object_get(message, "reason");
        char age[32];
        duration_text(age, sizeof(age), json_integer_value(json_object_get(message, "age_ms")));
        fprintf(out, "%-20s  %-9s  %10lld  %8s  %8lld  %s\n", text_of(json_object_get(message, "id")),
                text_of(json_object_get(message, "state")),
                (long long)json_integer_value(json_object_get(message, "bytes")), age,
                (long long)json_integer_value(json_object_get(message, "attempts")),
                reason ? text_of(reason) : "");
    }
}

static int base64_value(char c)
{
    static const char digits[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    const char *at = c ? strchr(digits, c) : NULL;
    return at ? (int)(at - digits) : -1;
}

/* Writes the bytes to `out`, which has room for three quarters of the text; returns how many. */
static size_t decode_base64(const char *text, unsigned char *out)
{
    size_t size = 0;
    uint32_t bits = 0;
    for (int count = 0; base64_value(*text) >= 0; text++) {
        bits = bits << 6 | (uint32_t)base64_value(*text);
        if (count++ % 4 != 0)
            out[size++] = (unsigned char)(bits >> (6 - 2 * ((count - 1) % 4)));
    }
    return size;
}

void render_frames(FILE *out, const json_t *frames)
{
    size_t index;
    json_t *frame;
    json_array_foreach((json_t *)frames, index, frame)
    {
        const char *text = json_string_value(frame);
        unsigned char *bytes = text ? malloc(strlen(text) + 1) : NULL;
        if (bytes)
            render_text(out, bytes, decode_base64(text, bytes));
        fputc('\n', out);
        free(bytes);
    }
}

void render_reload(FILE *out, const json_t *result)
{
    static const struct {
        const char *key, *title;
    } rows[] = {
        {"added", "added"},
        {"changed", "changed"},
        {"removed", "removed"},
        {"kept", "kept in the store"},
        {"restart_needed", "needs a restart"},
    };
    for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
        const json_t *names = json_object_get(result, rows[i].key);
        for (size_t k = 0; k < json_array_size(names); k++) {
            const char *name = json_string_value(json_array_get(names, k));
            fprintf(out, "%s %s\n", rows[i].title, name ? name : "-");
        }
    }
    fprintf(out, "unchanged %" JSON_INTEGER_FORMAT ", %" JSON_INTEGER_FORMAT " ms\n",
            json_integer_value(json_object_get(result, "unchanged")),
            json_integer_value(json_object_get(result, "took_ms")));
}
