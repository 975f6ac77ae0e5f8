/* SPDX-License-Identifier: MIT
 *
 * proxyctl top; see top.h. What stands on a page is render.c's; here are the terminal, the clock and the keys.
 * Signals are read from a descriptor, so that there is one place where it ends.
 */
#include "proxyd/top.h"

#include "buffer/clock.h"
#include "proxyd/render.h"

#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/signalfd.h>
#include <termios.h>
#include <unistd.h>

struct top {
    const struct top_conf *conf;
    bool is_screen; /* standard output is a terminal */
    bool has_keys;  /* and standard input, too */
    struct termios found;
    int signals;
    json_t *status, *before; /* the last two answers; `before` NULL where rates cannot be told */
    int64_t answered_ms;     /* when `status` came */
    char why[300];           /* there is no answer now; "" = there is */
};

/* ---- The terminal ---- */

static void say(const char *text)
{
    fputs(text, stdout);
    fflush(stdout);
}

/* The alternate screen without a cursor, and keys as they are pressed. */
static void enter_screen(struct top *top)
{
    if (top->has_keys) {
        struct termios keys = top->found;
        keys.c_lflag &= ~(tcflag_t)(ICANON | ECHO);
        tcsetattr(STDIN_FILENO, TCSADRAIN, &keys);
    }
    if (top->is_screen)
        say("\033[?1049h\033[?25l");
}

static void leave_screen(struct top *top)
{
    if (top->is_screen)
        say("\033[?25h\033[?1049l");
    if (top->has_keys)
        tcsetattr(STDIN_FILENO, TCSADRAIN, &top->found);
}

/* One line, no more of it than `width` columns; what sets a colour takes none. */
static void print_cut(const char *line, size_t size, int width)
{
    int column = 0;
    for (const char *end = line + size; line < end; line++) {
        const char *colour_end = *line == '\033' ? memchr(line, 'm', (size_t)(end - line)) : NULL;
        if (colour_end) {
            fwrite(line, 1, (size_t)(colour_end - line) + 1, stdout);
            line = colour_end;
        } else if (((unsigned char)*line & 0xc0) == 0x80 ? column <= width : ++column <= width) {
            putchar(*line);
        }
    }
    if (column < width) /* or else it would erase the last character */
        fputs("\033[K", stdout);
}

/* The page on the screen; where it has more lines than that, the last one says so. */
static void print_screen(const char *page)
{
    struct winsize size;
    if (ioctl(STDOUT_FILENO, TIOCGWINSZ, &size) != 0 || size.ws_row == 0 || size.ws_col == 0)
        size = (struct winsize){.ws_row = 24, .ws_col = 80};
    int lines = 0;
    for (const char *at = page; *at != '\0'; at++)
        lines += *at == '\n';
    int shown = lines <= size.ws_row ? lines : size.ws_row - 1;
    fputs("\033[H", stdout);
    for (int i = 0; i < shown; i++) {
        size_t length = strcspn(page, "\n");
        fputs(i > 0 ? "\n" : "", stdout);
        print_cut(page, length, size.ws_col);
        page += length + 1;
    }
    if (shown < lines) {
        char more[40];
        snprintf(more, sizeof(more), "... %d more lines", lines - shown);
        fputs(shown > 0 ? "\n" : "", stdout);
        print_cut(more, strlen(more), size.ws_col);
    }
    fputs("\033[J", stdout);
}

/* ---- Pages ---- */

static void ask(struct top *top)
{
    json_t *status = top->conf->ask(top->conf->context, top->why, sizeof(top->why));
    json_decref(top->before);
    top->before = NULL;
    if (!status)
        return; /* and the last answer stands, without rates */
    top->why[0] = '\0';
    top->before = top->status;
    top->status = status;
    top->answered_ms = clock_now_ms();
}

static void draw(const struct top *top)
{
    char *page = NULL;
    size_t size = 0;
    FILE *out = open_memstream(&page, &size);
    if (!out)
        return;
    if (top->why[0])
        render_silence(out, top->why, top->status ? clock_now_ms() - top->answered_ms : -1,
                       top->conf->has_colour);
    if (top->status)
        render_top(out, top->status, top->before, top->conf->has_colour);
    if (!top->is_screen)
        fputc('\n', out);
    if (fclose(out) == 0 && top->is_screen)
        print_screen(page);
    else if (page)
        fputs(page, stdout);
    fflush(stdout);
    free(page);
}

/* ---- The loop ---- */

/* Stops as Ctrl-Z asks, with the terminal as it was found. */
static void suspend(struct top *top)
{
    leave_screen(top);
    raise(SIGSTOP);
    enter_screen(top);
}

/* False when a signal asks for the end. */
static bool heed_signal(struct top *top)
{
    struct signalfd_siginfo info;
    if (read(top->signals, &info, sizeof(info)) != sizeof(info))
        return true;
    if (info.ssi_signo == SIGTSTP)
        suspend(top);
    else if (info.ssi_signo != SIGWINCH)
        return false;
    draw(top);
    return true;
}

/* False when a key asks for the end, or there is nobody left to press one. */
static bool heed_keys(void)
{
    char keys[64];
    ssize_t count = read(STDIN_FILENO, keys, sizeof(keys));
    return count > 0 && !memchr(keys, 'q', (size_t)count);
}

/* Waits until the next page is due; false when there is to be none. */
static bool wait_until(struct top *top, int64_t due_ms)
{
    for (;;) {
        struct pollfd polled[] = {
            {.fd = top->signals, .events = POLLIN},
            {.fd = top->has_keys ? STDIN_FILENO : -1, .events = POLLIN},
        };
        int64_t now_ms = clock_now_ms();
        int ready = poll(polled, 2, due_ms > now_ms ? (int)(due_ms - now_ms) : 0);
        if (ready == 0)
            return true;
        if (polled[0].revents && !heed_signal(top))
            return false;
        if (polled[1].revents && !heed_keys())
            return false;
    }
}

static int open_signals(void)
{
    static const int numbers[] = {SIGINT, SIGTERM, SIGHUP, SIGQUIT, SIGTSTP, SIGWINCH};
    sigset_t set;
    sigemptyset(&set);
    for (size_t i = 0; i < sizeof(numbers) / sizeof(numbers[0]); i++)
        sigaddset(&set, numbers[i]);
    sigprocmask(SIG_BLOCK, &set, NULL);
    return signalfd(-1, &set, SFD_CLOEXEC);
}

int top_run(const struct top_conf *conf)
{
    struct top top = {.conf = conf, .signals = open_signals(), .is_screen = isatty(STDOUT_FILENO)};
    if (top.signals < 0) {
        perror("proxyctl: top");
        return EXIT_FAILURE;
    }
    top.has_keys = top.is_screen && tcgetattr(STDIN_FILENO, &top.found) == 0;
    enter_screen(&top);
    int64_t due_ms, pages = 0;
    do {
        due_ms = clock_now_ms() + conf->interval_ms;
        ask(&top);
        draw(&top);
        pages++;
    } while (!ferror(stdout) && pages != conf->count && wait_until(&top, due_ms));
    leave_screen(&top);
    json_decref(top.status);
    json_decref(top.before);
    close(top.signals);
    return top.why[0] || ferror(stdout) ? EXIT_FAILURE : EXIT_SUCCESS;
}
