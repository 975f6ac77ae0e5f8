/* SPDX-License-Identifier: MIT
 *
 * Queues on the command line; see queuectl.h. Only asks and prints; what is done is done by the daemon.
 */
#include "proxyd/queuectl.h"

#include "proxyd/render.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum { STATUS_USAGE = 2, LIST_PAGE = 20, WORK_PAGE = 500, EXPORT_PAGE = 50, PROGRESS_EVERY = 1000 };

struct session {
    enum command_id id;
    const char *chain;
    bool is_json;
    queuectl_ask_fn *ask;
    void *context;
};

static json_t *ask(const struct session *session, const char *action, const char *id, int limit)
{
    json_t *params = json_pack("{s:s, s:s, s:s*, s:i}", "chain", session->chain, "action", action, "id", id,
                               "limit", limit);
    return session->ask(session->context, session->id, params);
}

static int print_json(json_t *result)
{
    json_dumpf(result, stdout, JSON_INDENT(2) | JSON_ENCODE_ANY);
    putchar('\n');
    json_decref(result);
    return EXIT_SUCCESS;
}

static int complain(const struct session *session, const char *text)
{
    fprintf(stderr, "proxyctl: %s %s: %s\n", command_info(session->id)->name, session->chain, text);
    return EXIT_FAILURE;
}

/* Messages are numbered from 1. */
static bool is_id(const char *word)
{
    return word[0] != '0' && word[0] && strspn(word, "0123456789") == strlen(word);
}

static bool are_ids(const struct session *session, char **words, int count)
{
    for (int i = 0; i < count; i++) {
        if (is_id(words[i]))
            continue;
        fprintf(stderr, "proxyctl: %s %s: \"%s\" is not the id of a message\n",
                command_info(session->id)->name, session->chain, words[i]);
        return false;
    }
    return true;
}

static int run_list(const struct session *session, const char *from)
{
    json_t *page = ask(session, "list", from, LIST_PAGE);
    if (!page)
        return EXIT_FAILURE;
    if (session->is_json)
        return print_json(page);
    render_messages(stdout, json_object_get(page, "messages"));
    const char *next = json_string_value(json_object_get(page, "next"));
    if (next)
        printf("more: proxyctl %s %s list %s\n", command_info(session->id)->name, session->chain, next);
    json_decref(page);
    return EXIT_SUCCESS;
}

static int run_peek(const struct session *session, const char *id)
{
    json_t *page = ask(session, "peek", id, 1);
    if (!page)
        return EXIT_FAILURE;
    json_t *message = json_array_get(json_object_get(page, "messages"), 0);
    const char *found = json_string_value(json_object_get(message, "id"));
    if (!found || strcmp(found, id) != 0) {
        json_decref(page);
        return complain(session, "there is no such message");
    }
    if (session->is_json) {
        json_incref(message);
        json_decref(page);
        return print_json(message);
    }
    render_frames(stdout, json_object_get(message, "frames"));
    json_decref(page);
    return EXIT_SUCCESS;
}

static void show_progress(const char *what, size_t count, bool is_over)
{
    if (isatty(STDERR_FILENO) && (is_over || count % PROGRESS_EVERY == 0))
        fprintf(stderr, "\r%s %zu%s", what, count, is_over ? "\n" : "");
}

/* As private as the store that its content is from. */
static FILE *create(const char *path)
{
    int fd = open(path, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0600);
    return fd < 0 ? NULL : fdopen(fd, "w");
}

static int run_export(const struct session *session, const char *path)
{
    FILE *file = strcmp(path, "-") == 0 ? stdout : create(path);
    if (!file)
        return complain(session, strerror(errno));
    size_t count = 0;
    char *next = NULL;
    bool is_ok = true, is_over = false;
    while (is_ok && !is_over) {
        json_t *page = ask(session, "export", next, EXPORT_PAGE), *message;
        size_t index;
        json_array_foreach(json_object_get(page, "messages"), index, message)
        {
            is_ok = is_ok && json_dumpf(message, file, JSON_COMPACT) == 0 && fputc('\n', file) != EOF;
            show_progress("exported", ++count, false);
        }
        free(next);
        const char *following = json_string_value(json_object_get(page, "next"));
        next = following ? strdup(following) : NULL;
        is_over = !next;
        is_ok = is_ok && page;
        json_decref(page);
    }
    free(next);
    show_progress("exported", count, true);
    if (file == stdout ? fflush(file) != 0 : fclose(file) != 0)
        is_ok = false;
    return is_ok ? EXIT_SUCCESS : complain(session, "the export is not complete");
}

/* One message; counts it where it was there. */
static bool do_one(const struct session *session, const char *action, const char *id, size_t *done)
{
    json_t *result = ask(session, action, id, 1);
    *done += json_is_true(json_object_get(result, "done"));
    bool is_ok = result != NULL;
    json_decref(result);
    return is_ok;
}

/* All that there is now, page by page. What stays (in flight, a retry that does not fit) is passed over. */
static bool do_all(const struct session *session, const char *action, size_t *done, size_t *asked)
{
    char *next = NULL;
    for (bool is_over = false; !is_over;) {
        json_t *page = ask(session, "list", next, WORK_PAGE), *message;
        size_t index;
        bool is_ok = page != NULL;
        json_array_foreach(json_object_get(page, "messages"), index, message)
        {
            is_ok = is_ok && do_one(session, action, json_string_value(json_object_get(message, "id")), done);
            show_progress(action, ++*asked, false);
        }
        free(next);
        const char *following = json_string_value(json_object_get(page, "next"));
        next = following ? strdup(following) : NULL;
        is_over = !next;
        json_decref(page);
        if (!is_ok) {
            free(next);
            return false;
        }
    }
    show_progress(action, *asked, true);
    return true;
}

static int run_change(const struct session *session, const char *action, char **ids, int count)
{
    size_t done = 0, asked = 0;
    bool is_ok = true, is_all = count == 1 && strcmp(ids[0], "all") == 0;
    if (!is_all && !are_ids(session, ids, count))
        return STATUS_USAGE;
    if (is_all)
        is_ok = do_all(session, action, &done, &asked);
    else
        for (; is_ok && asked < (size_t)count; asked++)
            is_ok = do_one(session, action, ids[asked], &done);
    if (session->is_json)
        print_json(json_pack("{s:I, s:I}", "asked", (json_int_t)asked, "done", (json_int_t)done));
    else
        printf("%s: %zu of %zu\n", strcmp(action, "drop") == 0 ? "dropped" : "queued again", done, asked);
    return is_ok && done == asked ? EXIT_SUCCESS : EXIT_FAILURE;
}

static int run_ticket(const struct session *session, const char *ticket)
{
    json_t *params = json_pack("{s:s, s:s}", "chain", session->chain, "ticket", ticket);
    json_t *result = session->ask(session->context, COMMAND_TICKET, params);
    if (!result)
        return EXIT_FAILURE;
    if (session->is_json)
        return print_json(result);
    const char *reason = json_string_value(json_object_get(result, "reason"));
    printf("%s%s%s\n", json_string_value(json_object_get(result, "state")), reason ? " " : "",
           reason ? reason : "");
    render_frames(stdout, json_object_get(result, "frames"));
    json_decref(result);
    return EXIT_SUCCESS;
}

int queuectl_run(enum command_id id, char **words, int count, bool is_json, queuectl_ask_fn *ask_daemon,
                 void *context)
{
    const struct session session = {id, words[0], is_json, ask_daemon, context};
    const char *action = words[1], *argument = count > 2 ? words[2] : NULL;
    if (id == COMMAND_TICKET)
        return run_ticket(&session, words[1]);
    bool is_from_first = !argument || strcmp(argument, "0") == 0;
    if (strcmp(action, "list") == 0 && count <= 3)
        return is_from_first || are_ids(&session, &words[2], 1) ? run_list(&session, argument) : STATUS_USAGE;
    if (id == COMMAND_QUEUE && count == 3 && strcmp(action, "peek") == 0)
        return are_ids(&session, &words[2], 1) ? run_peek(&session, argument) : STATUS_USAGE;
    if (id == COMMAND_QUEUE && count == 3 && strcmp(action, "export") == 0)
        return run_export(&session, argument);
    if (argument && (strcmp(action, "drop") == 0 || (id == COMMAND_DEAD && strcmp(action, "retry") == 0)))
        return run_change(&session, action, words + 2, count - 2);
    fprintf(stderr, "usage: proxyctl %s %s\n", command_info(id)->name, command_info(id)->arguments);
    return STATUS_USAGE;
}
