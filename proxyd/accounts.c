/* SPDX-License-Identifier: MIT
 *
 * passwd and keygen; see accounts.h. What the files are is auth's business; here are the terminal, the pipe
 * and the words. Passwords are wiped as soon as they are used, and never printed.
 */
#include "proxyd/accounts.h"

#include "auth/keygen.h"
#include "auth/secret.h"
#include "auth/users.h"
#include "auth/users_edit.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <termios.h>
#include <unistd.h>

enum { STATUS_USAGE = 2, PATH_BYTES = 4096 };

/* One byte for the newline, one to see that there are too many. */
struct password {
    char bytes[SECRET_PASSWORD_MAX + 2];
    size_t size;
};

static int complain(const char *what, const char *text)
{
    fprintf(stderr, "proxyctl: %s: %s\n", what, text);
    return EXIT_FAILURE;
}

/* Up to the end or, with `is_line`, the first newline; one newline at the end is left out. */
static int read_password(int fd, bool is_line, struct password *password)
{
    password->size = 0;
    while (password->size < sizeof(password->bytes)) {
        char *at = password->bytes + password->size;
        ssize_t count = read(fd, at, is_line ? 1 : sizeof(password->bytes) - password->size);
        if (count < 0)
            return -1;
        password->size += (size_t)count;
        if (count == 0 || (is_line && *at == '\n'))
            break;
    }
    if (password->size > 0 && password->bytes[password->size - 1] == '\n')
        password->size--;
    return 0;
}

/* Ends the wait that it interrupts, and nothing else. */
static void on_signal(int number)
{
    (void)number;
}

/* On the terminal, which shows the question and nothing else. Ctrl-C ends it, and echo comes back first: signals
 * are let in only while waiting, so that none falls between two steps. */
static int ask(int terminal, const char *question, const char *user, struct password *password)
{
    static const int numbers[] = {SIGINT, SIGTERM};
    enum { SIGNALS = sizeof(numbers) / sizeof(numbers[0]) };
    const struct sigaction interrupt = {.sa_handler = on_signal};
    struct sigaction before[SIGNALS];
    struct pollfd polled = {.fd = terminal, .events = POLLIN};
    sigset_t ours, others;
    struct termios echoing, silent;
    if (tcgetattr(terminal, &echoing) != 0)
        return -1;
    silent = echoing;
    silent.c_lflag &= ~(tcflag_t)ECHO;
    sigemptyset(&ours);
    for (int i = 0; i < SIGNALS; i++)
        sigaddset(&ours, numbers[i]);
    sigprocmask(SIG_BLOCK, &ours, &others);
    for (int i = 0; i < SIGNALS; i++)
        sigaction(numbers[i], &interrupt, &before[i]);
    int rc = tcsetattr(terminal, TCSAFLUSH, &silent);
    if (rc == 0) {
        dprintf(terminal, "%s for %s: ", question, user);
        rc = ppoll(&polled, 1, NULL, &others) < 0 ? -1 : read_password(terminal, true, password);
        int error = errno;
        dprintf(terminal, "\n");
        tcsetattr(terminal, TCSAFLUSH, &echoing);
        errno = error;
    }
    for (int i = 0; i < SIGNALS; i++)
        sigaction(numbers[i], &before[i], NULL);
    sigprocmask(SIG_SETMASK, &others, NULL);
    return rc;
}

/* Twice, so that a slip of the finger locks nobody out. -1 after a complaint. */
static int ask_twice(const char *user, struct password *password)
{
    struct password again;
    int terminal = open("/dev/tty", O_RDWR | O_NOCTTY | O_CLOEXEC);
    if (terminal < 0) {
        complain("passwd", "there is no terminal to ask on; --stdin reads the password from standard input");
        return -1;
    }
    int rc = ask(terminal, "Password", user, password);
    if (rc == 0)
        rc = ask(terminal, "Once more", user, &again);
    if (rc != 0)
        complain("/dev/tty", strerror(errno));
    else if (password->size != again.size || memcmp(password->bytes, again.bytes, again.size) != 0) {
        complain("passwd", "the two are not the same; nothing has changed");
        rc = -1;
    }
    secret_wipe(&again, sizeof(again));
    close(terminal);
    return rc;
}

static void ignore_problem(void *context, const char *text)
{
    (void)context;
    (void)text;
}

static bool is_user_there(const struct accounts_change *change)
{
    struct users *users =
        users_load(change->path, USERS_PASSWORDS, (size_t)SECRET_WORK_KIB_MAX * 1024, ignore_problem, NULL);
    bool is_there = users && users_find(users, change->user, strlen(change->user));
    users_free(users);
    return is_there;
}

int accounts_passwd(const struct accounts_change *change)
{
    char err[PATH_BYTES + 256];
    struct password password;
    if (change->is_removal && (change->chains || change->reads_stdin)) {
        complain("passwd", "--delete goes alone");
        return STATUS_USAGE;
    }
    bool needs_password =
        change->reads_stdin || (!change->is_removal && (!change->chains || !is_user_there(change)));
    if (change->reads_stdin && read_password(STDIN_FILENO, false, &password) != 0)
        return complain("standard input", strerror(errno));
    if (needs_password && !change->reads_stdin && ask_twice(change->user, &password) != 0)
        return EXIT_FAILURE;
    const struct users_change edit = {
        .name = change->user,
        .password = needs_password ? password.bytes : NULL,
        .password_size = needs_password ? password.size : 0,
        .chains = change->chains,
        .is_removal = change->is_removal,
    };
    int rc = users_edit(change->path, &edit, err, sizeof(err));
    if (needs_password)
        secret_wipe(&password, sizeof(password));
    return rc == 0 ? EXIT_SUCCESS : complain("passwd", err);
}

int accounts_keygen(const char *name)
{
    char path[PATH_BYTES], err[PATH_BYTES + 256];
    struct keygen_pair pair;
    const char *slash = strrchr(name, '/'), *word = slash ? slash + 1 : name;
    if (!users_name_is_valid(word, strlen(word)) ||
        snprintf(path, sizeof(path), "%s.key", name) >= (int)sizeof(path)) {
        complain(name, "not a name: UTF-8 without control characters and colons");
        return STATUS_USAGE;
    }
    if (keygen_make(&pair) != 0)
        return complain("keygen", "this libzmq has no CURVE");
    int rc = keygen_save_secret(path, &pair, err, sizeof(err));
    if (rc == 0)
        printf("%s:%s\n", word, pair.public_key);
    secret_wipe(&pair, sizeof(pair));
    return rc == 0 ? EXIT_SUCCESS : complain("keygen", err);
}
