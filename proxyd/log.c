/* SPDX-License-Identifier: MIT
 *
 * The log; see log.h. Owns a ring of finished lines, what it knows of repeats, and the thread that writes. A caller
 * holds the lock for one memcpy; the thread writes without it, and only what poll(2) says stderr takes at once, because
 * stderr may be shared and must not be made non-blocking. Whole lines leave together, so that they stay
 * whole beside another process that writes to the same pipe.
 */
#include "proxyd/log.h"

#include "buffer/clock.h"
#include "buffer/fnv.h"

#include <errno.h>
#include <limits.h>
#include <poll.h>
#include <pthread.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#define RING_BYTES     (256 * 1024)
#define LINE_BYTES     PIPE_BUF /* the most that a writable pipe takes at once */
#define LINE_RESERVE   32       /* to close a line that was cut: quote, mark, brace, newline */
#define CLOSE_LIMIT_MS 1000
#define REPEAT_SLOTS   64
#define REPEAT_BYTES   1024 /* events with more in their fields are never left out */

static const struct {
    const char *name;
    int priority; /* syslog's, as sd-daemon(3) wants it */
} levels[] = {
    [EVENT_ERROR] = {"error", 3},
    [EVENT_WARNING] = {"warning", 4},
    [EVENT_INFO] = {"info", 6},
    [EVENT_DEBUG] = {"debug", 7},
};

static struct {
    pthread_mutex_t lock;
    enum event_level level;
    enum log_format format;
    bool is_journal; /* stderr leads to the journal, which keeps time and priority by itself */
    bool is_open;
    pthread_t writer;
    int64_t close_ms; /* when the writer gives up on a stalled reader; INT64_MAX until the close */
    int wake_fd;      /* counts up when the ring stops being empty, and at the close */
    uint64_t dropped; /* events since the last log-dropped line */
    size_t head;      /* bytes ever put in; head - tail are waiting */
    size_t tail;      /* bytes ever taken out */
} shared = {.lock = PTHREAD_MUTEX_INITIALIZER, .level = EVENT_INFO};
static char ring[RING_BYTES];

/* An event that came lately. Under the lock, like the ring. */
static struct repeat {
    uint64_t key;
    int64_t until_ms;
    unsigned written;
    uint64_t left_out; /* since then; the last of them is kept: */
    enum event_level level;
    const char *token;
    size_t size;
    char fields[REPEAT_BYTES];
} repeats[REPEAT_SLOTS];

/* ---- One event as one line ---- */

struct line {
    size_t size;
    size_t fields_at;
    bool is_cut; /* a value did not fit; nothing more is added but the end */
    char bytes[LINE_BYTES];
};

static bool has_room(const struct line *line, size_t size)
{
    return size <= LINE_BYTES - LINE_RESERVE - line->size;
}

/* Only where there is room, which the reserve extends for what ends a line. */
static void put(struct line *line, const char *text)
{
    size_t size = strlen(text);
    memcpy(line->bytes + line->size, text, size);
    line->size += size;
}

/* The length of the UTF-8 character at `text`; 0 when there is none (overlong, surrogate, too large). */
static size_t utf8_length(const unsigned char *text)
{
    static const struct {
        unsigned char first_low, first_high, second_low, second_high;
        size_t length;
    } forms[] = {
        {0x00, 0x7f, 0x00, 0x00, 1}, {0xc2, 0xdf, 0x80, 0xbf, 2}, {0xe0, 0xe0, 0xa0, 0xbf, 3},
        {0xe1, 0xec, 0x80, 0xbf, 3}, {0xed, 0xed, 0x80, 0x9f, 3}, {0xee, 0xef, 0x80, 0xbf, 3},
        {0xf0, 0xf0, 0x90, 0xbf, 4}, {0xf1, 0xf3, 0x80, 0xbf, 4}, {0xf4, 0xf4, 0x80, 0x8f, 4},
    };
    for (size_t i = 0; i < sizeof(forms) / sizeof(forms[0]); i++) {
        if (text[0] < forms[i].first_low || text[0] > forms[i].first_high)
            continue;
        if (forms[i].length > 1 && (text[1] < forms[i].second_low || text[1] > forms[i].second_high))
            return 0;
        for (size_t k = 2; k < forms[i].length; k++)
            if ((text[k] & 0xc0) != 0x80)
                return 0;
        return forms[i].length;
    }
    return 0;
}

/* Writes the character at `at` so that it can stand in quotes and on a terminal; its length. U+0080 to U+009F
 * can be terminal commands. JSON has no way to write a byte that is no character, text has. */
static size_t escape(char out[8], const unsigned char *at, bool is_json)
{
    size_t length = utf8_length(at);
    bool is_control = length == 1 ? *at < 0x20 || *at == 0x7f : length == 2 && at[0] == 0xc2 && at[1] < 0xa0;
    if (length == 0)
        snprintf(out, 8, is_json ? "\\ufffd" : "\\x%02x", *at);
    else if (*at == '\n')
        memcpy(out, "\\n", 3);
    else if (*at == '"' || *at == '\\')
        snprintf(out, 8, "\\%c", *at);
    else if (is_control)
        snprintf(out, 8, "\\u%04x", at[length - 1]);
    else
        snprintf(out, 8, "%.*s", (int)length, (const char *)at);
    return length > 0 ? length : 1;
}

static void put_quoted(struct line *line, const char *text, bool is_json)
{
    const unsigned char *at = (const unsigned char *)text;
    put(line, "\"");
    while (*at != '\0' && !line->is_cut) {
        char escaped[8];
        at += escape(escaped, at, is_json);
        line->is_cut = !has_room(line, strlen(escaped));
        if (!line->is_cut)
            put(line, escaped);
    }
    put(line, "\"");
}

/* Whether a value can stand without quotes: printable ASCII that looks like nothing else in the line. */
static bool is_bare(const char *text)
{
    if (*text == '\0')
        return false;
    for (; *text != '\0'; text++)
        if (*text <= ' ' || *text > '~' || strchr("\"\\=", *text) != NULL)
            return false;
    return true;
}

static void put_field(struct line *line, const struct event_field *field, bool is_json)
{
    char number[24];
    line->is_cut = !has_room(line, strlen(field->key) + sizeof(number) + strlen(",\"\":\"\""));
    if (line->is_cut)
        return;
    put(line, is_json ? ",\"" : " ");
    put(line, field->key);
    put(line, is_json ? "\":" : "=");
    if (field->text == NULL) {
        snprintf(number, sizeof(number), "%lld", (long long)field->number);
        put(line, number);
    } else if (!is_json && has_room(line, strlen(field->text)) && is_bare(field->text))
        put(line, field->text);
    else
        put_quoted(line, field->text, is_json);
}

static void begin_line(struct line *line, enum event_level level, const char *token)
{
    bool is_json = shared.format == LOG_JSON;
    struct timespec now;
    struct tm utc;
    char time[40], head[200];
    clock_gettime(CLOCK_REALTIME, &now);
    gmtime_r(&now.tv_sec, &utc);
    size_t length = strftime(time, sizeof(time), "%Y-%m-%dT%H:%M:%S", &utc);
    snprintf(time + length, sizeof(time) - length, ".%03dZ", (int)(now.tv_nsec / 1000000));
    if (is_json)
        snprintf(head, sizeof(head), "{\"time\":\"%s\",\"level\":\"%s\",\"event\":\"%s\"", time,
                 levels[level].name, token);
    else if (shared.is_journal)
        snprintf(head, sizeof(head), "<%d>%s %s", levels[level].priority, levels[level].name, token);
    else
        snprintf(head, sizeof(head), "%s %s %s", time, levels[level].name, token);
    line->size = 0;
    line->is_cut = false;
    put(line, head);
    line->fields_at = line->size;
}

static void end_line(struct line *line)
{
    put(line, shared.format == LOG_JSON ? "}\n" : "\n");
}

static void format_line(struct line *line, enum event_level level, const char *token,
                        const struct event_field *fields, unsigned count)
{
    bool is_json = shared.format == LOG_JSON;
    begin_line(line, level, token);
    for (unsigned i = 0; i < count && !line->is_cut; i++)
        put_field(line, &fields[i], is_json);
    if (line->is_cut)
        put(line, is_json ? ",\"cut\":1" : " cut=1");
    end_line(line);
}

/* ---- The ring ---- */

/* False when it does not fit. Under the lock. */
static bool push(const struct line *line)
{
    if (line->size > RING_BYTES - (shared.head - shared.tail))
        return false;
    size_t at = shared.head % RING_BYTES;
    size_t first = line->size < RING_BYTES - at ? line->size : RING_BYTES - at;
    memcpy(ring + at, line->bytes, first);
    memcpy(ring, line->bytes + first, line->size - first);
    shared.head += line->size;
    return true;
}

/* Says how many events are missing at this place, once there is room to say it. Under the lock. */
static bool push_dropped(void)
{
    struct line line;
    if (shared.dropped == 0)
        return true;
    format_line(&line, EVENT_WARNING, "log-dropped", &EVENT_NUMBER("count", (int64_t)shared.dropped), 1);
    if (!push(&line))
        return false;
    shared.dropped = 0;
    return true;
}

/* ---- Repeats ---- */

/* What makes two events the same: the token and the texts; numbers may differ. */
static uint64_t key_of(const char *token, const struct event_field *fields, unsigned count)
{
    uint64_t key = FNV_OFFSET;
    for (unsigned i = 0; i <= count; i++) {
        const char *text = i == 0 ? token : fields[i - 1].text;
        key = fnv_add(key, text ? text : "", text ? strlen(text) + 1 : 1);
    }
    return key;
}

/* Writes the last of those that were left out, and how many they are; false when it does not fit. */
static bool push_left_out(struct repeat *repeat)
{
    struct line line;
    if (repeat->left_out == 0)
        return true;
    begin_line(&line, repeat->level, repeat->token);
    memcpy(line.bytes + line.size, repeat->fields, repeat->size);
    line.size += repeat->size;
    put_field(&line, &EVENT_NUMBER("repeats", (int64_t)repeat->left_out), shared.format == LOG_JSON);
    end_line(&line);
    if (!push(&line))
        return false;
    repeat->left_out = 0;
    return true;
}

/* Whether an event that is `line` need not be written now. */
static bool is_left_out(uint64_t key, enum event_level level, const char *token, const struct line *line)
{
    struct repeat *repeat = &repeats[key % REPEAT_SLOTS];
    int64_t now = clock_now_ms();
    size_t size = line->size - line->fields_at - (shared.format == LOG_JSON ? strlen("}\n") : strlen("\n"));
    if (repeat->key != key || now >= repeat->until_ms) {
        if (push_left_out(repeat))
            *repeat = (struct repeat){.key = key, .until_ms = now + LOG_REPEAT_MS};
    }
    if (repeat->key != key || size > REPEAT_BYTES || repeat->written++ < LOG_REPEATS)
        return false;
    repeat->level = level;
    repeat->token = token;
    repeat->size = size;
    memcpy(repeat->fields, line->bytes + line->fields_at, size);
    repeat->left_out++;
    return true;
}

/* Writes what was left out and is due, all of it at the end. When the next will be; INT64_MAX for never. */
static int64_t push_due(int64_t now, bool is_end)
{
    int64_t next_ms = INT64_MAX;
    for (struct repeat *repeat = repeats; repeat < repeats + REPEAT_SLOTS; repeat++) {
        if (repeat->left_out == 0)
            continue;
        if ((is_end || now >= repeat->until_ms) && push_left_out(repeat))
            repeat->key = 0;
        else if (repeat->until_ms < next_ms)
            next_ms = repeat->until_ms;
    }
    return next_ms;
}

/* ---- The writer ---- */

/* Copies whole waiting lines, at most LINE_BYTES, and leaves them in the ring; their size. */
static size_t peek(char *out)
{
    size_t waiting = shared.head - shared.tail;
    size_t size = waiting < LINE_BYTES ? waiting : LINE_BYTES;
    size_t at = shared.tail % RING_BYTES;
    size_t first = size < RING_BYTES - at ? size : RING_BYTES - at;
    memcpy(out, ring + at, first);
    memcpy(out + first, ring, size - first);
    while (size > 0 && out[size - 1] != '\n')
        size--;
    return size;
}

/* Writes once, what stderr takes without waiting; the number of bytes that are done with. */
static size_t write_some(const char *bytes, size_t size)
{
    ssize_t written = write(STDERR_FILENO, bytes, size);
    if (written >= 0)
        return (size_t)written;
    return errno == EAGAIN || errno == EINTR ? 0 : size; /* nobody reads any more: the lines are lost */
}

/* Sleeps until something is logged, the log is closed or (with `size` bytes to write) stderr takes some; then
 * writes. The number of bytes that are done with. */
static size_t wait_and_write(const char *bytes, size_t size, int64_t limit_ms)
{
    struct pollfd polled[] = {
        {.fd = shared.wake_fd, .events = POLLIN},
        {.fd = size > 0 ? STDERR_FILENO : -1, .events = POLLOUT},
    };
    poll(polled, 2, limit_ms == INT64_MAX ? -1 : limit_ms > 0 ? (int)limit_ms : 0);
    eventfd_read(shared.wake_fd, &(eventfd_t){0});
    return polled[1].revents != 0 ? write_some(bytes, size) : 0;
}

static void *run_writer(void *unused)
{
    char out[LINE_BYTES];
    size_t done = 0;
    for (;;) {
        pthread_mutex_lock(&shared.lock);
        shared.tail += done;
        if (shared.head == shared.tail)
            push_dropped();
        bool is_closing = shared.close_ms != INT64_MAX;
        int64_t now = clock_now_ms();
        int64_t due_ms = push_due(now, is_closing);
        size_t size = peek(out);
        int64_t until_ms = is_closing ? shared.close_ms : size > 0 ? INT64_MAX : due_ms;
        pthread_mutex_unlock(&shared.lock);
        if (is_closing && (until_ms <= now || size == 0))
            return unused;
        done = wait_and_write(out, size, until_ms == INT64_MAX ? INT64_MAX : until_ms - now);
    }
}

static bool is_stderr_the_journal(void)
{
    const char *stream = getenv("JOURNAL_STREAM");
    struct stat status;
    char expected[64];
    if (stream == NULL || fstat(STDERR_FILENO, &status) != 0)
        return false;
    snprintf(expected, sizeof(expected), "%llu:%llu", (unsigned long long)status.st_dev,
             (unsigned long long)status.st_ino);
    return strcmp(stream, expected) == 0;
}

int log_open(enum event_level level, enum log_format format)
{
    shared.level = level;
    shared.format = format;
    shared.is_journal = is_stderr_the_journal();
    shared.close_ms = INT64_MAX;
    shared.wake_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    if (shared.wake_fd < 0)
        return -1;
    shared.is_open = pthread_create(&shared.writer, NULL, run_writer, NULL) == 0;
    if (shared.is_open)
        return 0;
    close(shared.wake_fd);
    return -1;
}

void log_close(void)
{
    if (!shared.is_open)
        return;
    pthread_mutex_lock(&shared.lock);
    shared.close_ms = clock_now_ms() + CLOSE_LIMIT_MS;
    eventfd_write(shared.wake_fd, 1);
    pthread_mutex_unlock(&shared.lock);
    pthread_join(shared.writer, NULL);
    pthread_mutex_lock(&shared.lock);
    shared.is_open = false;
    shared.head = shared.tail = 0;
    memset(repeats, 0, sizeof(repeats));
    close(shared.wake_fd);
    pthread_mutex_unlock(&shared.lock);
}

void log_event(void *context, enum event_level level, const char *token, const struct event_field *fields,
               unsigned count)
{
    struct line line;
    (void)context;
    if (level > shared.level)
        return;
    format_line(&line, level, token, fields, count);
    uint64_t key = key_of(token, fields, count);
    pthread_mutex_lock(&shared.lock);
    bool is_open = shared.is_open, was_empty = shared.head == shared.tail;
    if (is_open && !is_left_out(key, level, token, &line) && !(push_dropped() && push(&line)))
        shared.dropped++;
    if (is_open && was_empty)
        eventfd_write(shared.wake_fd, 1);
    pthread_mutex_unlock(&shared.lock);
    if (!is_open)
        write_some(line.bytes, line.size);
}

struct event_sink log_sink(void)
{
    return (struct event_sink){.emit = log_event};
}
