/* SPDX-License-Identifier: MIT
 *
 * proxyctl: the command line. Asks a running proxyd over its control socket, tries endpoints out by itself
 * (tryout.c), or makes what it reads (accounts.c). What there is to ask stands in the table of commands.
 */
#include "auth/secret.h"
#include "buffer/clock.h"
#include "proxyd/accounts.h"
#include "proxyd/commands.h"
#include "proxyd/config.h"
#include "proxyd/config_keys.h"
#include "proxyd/peer.h"
#include "proxyd/queuectl.h"
#include "proxyd/render.h"
#include "proxyd/top.h"
#include "proxyd/tryout.h"

#include <errno.h>
#include <getopt.h>
#include <jansson.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum {
    STATUS_USAGE = 2,
    SYNOPSIS_WIDTH = 30,
    ANSWER_MS = 5000,
    INTERVAL_MS_MIN = 100,
    TOP_ANSWER_MS = 1000,
    RELOAD_ANSWER_MS = 3600 * 1000
};

struct settings {
    const char *config;
    const char *socket; /* NULL = as the configuration says */
    bool is_json;
    const char *user;
    const char *password_file;
    int64_t timeout_ms;
    int64_t delay_ms;
    int64_t interval_ms;
    int64_t count;
    struct accounts_change change;
};

static const struct option long_options[] = {
    {"config", required_argument, NULL, 'c'},
    {"socket", required_argument, NULL, 's'},
    {"json", no_argument, NULL, 'j'},
    {"user", required_argument, NULL, 'u'},
    {"password-file", required_argument, NULL, 'p'},
    {"timeout", required_argument, NULL, 't'},
    {"delay", required_argument, NULL, 'd'},
    {"interval", required_argument, NULL, 'n'},
    {"count", required_argument, NULL, 'N'},
    {"stdin", no_argument, NULL, 'i'},
    {"chains", required_argument, NULL, 'C'},
    {"delete", no_argument, NULL, 'D'},
    {"version", no_argument, NULL, 'V'},
    {"help", no_argument, NULL, 'h'},
    {0},
};

static void print_usage(FILE *out)
{
    fputs("usage: proxyctl [-c FILE] [-s ENDPOINT] [--json] COMMAND ...\n\n", out);
    for (int id = 0; id < COMMAND_COUNT; id++) {
        const struct command *command = command_info(id);
        char synopsis[64];
        snprintf(synopsis, sizeof(synopsis), "%s %s", command->name, command->arguments);
        bool is_long = strlen(synopsis) > SYNOPSIS_WIDTH; /* then its help stands on a line of its own */
        fprintf(out, "  %-*s%s", SYNOPSIS_WIDTH, synopsis, is_long ? "\n" : " ");
        fprintf(out, "%*s%s\n", is_long ? SYNOPSIS_WIDTH + 3 : 0, "", command->help);
    }
    fputs(
        "\n"
        "  -c, --config FILE      where the control socket is looked up (default " CONFIG_DEFAULT_PATH ")\n"
        "  -s, --socket ENDPOINT  the control socket itself\n"
        "      --json             print what a program reads\n"
        "      --timeout 5s       call, publish: how long to wait; 0 = for ever\n"
        "      --user U --password-file F\n"
        "                         call, subscribe: credentials\n"
        "      --delay 0s         serve: wait so long before each answer\n"
        "  -n, --interval 1s      top: how often\n"
        "      --count N          subscribe, top: end after so many\n"
        "      --stdin            passwd: read the password from standard input\n"
        "      --chains a,b-*     passwd: the chains that the user may use; \"*\" = all\n"
        "      --delete           passwd: remove the user\n"
        "  -V, --version; -h, --help\n"
        "\n"
        "Endpoints as in the configuration: serve and publish bind, call and subscribe connect; a leading @\n"
        "forces bind, > forces connect. A frame that begins with - goes after --.\n"
        "Exit status: 0 done, 1 refused or not answered, 2 bad usage or configuration.\n",
        out);
}

static int complain(const char *what, const char *text)
{
    fprintf(stderr, "proxyctl: %s: %s\n", what, text);
    return STATUS_USAGE;
}

/* The exit status when what was printed must have got through, too: a full disk or a closed pipe is a failure. */
static int printed(int status)
{
    return fflush(stdout) == 0 ? status : EXIT_FAILURE;
}

/* A number as the configuration writes it: "250ms", "5s"; "0" is none. */
static int parse(enum config_type type, const char *text, int64_t *number)
{
    return config_key_number(&(struct config_key){.type = type}, text, number) ? 0 : -1;
}

static int take_option(struct settings *settings, int option, const char *value)
{
    switch (option) {
    case 'c':
        settings->config = value;
        return 0;
    case 's':
        settings->socket = value;
        return 0;
    case 'j':
        settings->is_json = true;
        return 0;
    case 'u':
        settings->user = value;
        return 0;
    case 'p':
        settings->password_file = value;
        return 0;
    case 'i':
        settings->change.reads_stdin = true;
        return 0;
    case 'C':
        settings->change.chains = value;
        return 0;
    case 'D':
        settings->change.is_removal = true;
        return 0;
    case 't':
        return parse(CONFIG_DURATION, value, &settings->timeout_ms);
    case 'd':
        return parse(CONFIG_DURATION, value, &settings->delay_ms);
    case 'n':
        if (parse(CONFIG_DURATION, value, &settings->interval_ms) < 0)
            return -1;
        return settings->interval_ms >= INTERVAL_MS_MIN && settings->interval_ms <= INT_MAX ? 0 : -1;
    default:
        return parse(CONFIG_COUNT, value, &settings->count);
    }
}

/* The options that stand before the command, or (with its letters as `allowed`) those after it. Returns the
 * index of the first argument, or -1 after a complaint. */
static int take_options(struct settings *settings, int argc, char **argv, const char *shorts,
                        const char *allowed)
{
    optind = 0; /* GNU: begin anew */
    for (int option; (option = getopt_long(argc, argv, shorts, long_options, NULL)) != -1;) {
        if (option == '?')
            return -1;
        if (option == 'V') {
            puts("proxyctl " PROXYD_VERSION);
            exit(printed(EXIT_SUCCESS));
        }
        if (option == 'h') {
            print_usage(stdout);
            exit(printed(EXIT_SUCCESS));
        }
        if (!strchr(allowed, option)) {
            complain(argv[0], "takes no such option");
            return -1;
        }
        if (take_option(settings, option, optarg) < 0) {
            complain(optarg, "not a duration (\"250ms\", \"5s\") or count, or out of range");
            return -1;
        }
    }
    return optind;
}

/* What is none is bad usage, unlike one where nobody answers. */
static bool is_endpoint(enum command_id id, const char *text, bool binds)
{
    char err[300];
    struct endpoint endpoint;
    if (endpoint_parse(&endpoint, text, binds, err, sizeof(err)) < 0) {
        complain(command_info(id)->name, err);
        return false;
    }
    endpoint_close(&endpoint);
    return true;
}

/* Where the daemon listens: given, or as its configuration says. NULL after a complaint; free it. */
static char *control_endpoint(const struct settings *settings)
{
    if (settings->socket)
        return strdup(settings->socket);
    struct config_problems problems;
    struct config *config = config_load_daemon(settings->config, &problems);
    for (size_t i = 0; i < problems.count; i++)
        fprintf(stderr, "%s\n", problems.lines[i]);
    config_problems_close(&problems);
    if (!config)
        return NULL;
    char *endpoint = NULL;
    if (config->daemon.control[0])
        endpoint = strdup(config->daemon.control);
    else
        complain(settings->config, "control is \"\": this daemon has no control socket");
    config_free(config);
    return endpoint;
}

/* With every problem on a line of its own, as far as they fit. */
static void write_refusal(const char *method, const char *refusal, const json_t *problems, char *err,
                          size_t err_size)
{
    int used = snprintf(err, err_size, "%s: %s", method, refusal);
    for (size_t i = 0; i < json_array_size(problems) && used < (int)err_size; i++)
        used += snprintf(err + used, err_size - (size_t)used, "\n%s",
                         json_string_value(json_array_get(problems, i)));
}

/* The result that an answer holds. NULL with a reason in `err`. */
static json_t *read_result(const char *endpoint, const char *method, const struct message *reply, char *err,
                           size_t err_size)
{
    zmq_msg_t *frame = message_frame(reply, 0);
    json_t *answer = json_loadb(zmq_msg_data(frame), zmq_msg_size(frame), 0, NULL);
    json_t *result = json_incref(json_object_get(answer, "result"));
    const json_t *error = json_object_get(answer, "error");
    const char *refusal = json_string_value(json_object_get(error, "message"));
    if (!result && refusal)
        write_refusal(method, refusal, json_object_get(error, "data"), err, err_size);
    else if (!result)
        snprintf(err, err_size, "%s: the answer is not JSON-RPC 2.0: is this a control socket?", endpoint);
    json_decref(answer);
    return result;
}

/* Sends the request and waits for its answer. */
static enum peer_result exchange(struct peer *peer, json_t *request, struct message *reply,
                                 int64_t deadline_ms)
{
    struct message message = {0};
    char *text = json_dumps(request, JSON_COMPACT);
    enum peer_result result = PEER_FAILED;
    if (text && message_add_bytes(&message, text, strlen(text)) == 0)
        result = peer_await(peer, deadline_ms);
    if (result == PEER_OK)
        result = peer_send(peer, &message, deadline_ms);
    if (result == PEER_OK)
        result = peer_receive(peer, reply, deadline_ms);
    message_close(&message);
    free(text);
    return result;
}

/* libzmq says no more than that it was refused. */
static bool is_forbidden(const char *endpoint)
{
    const char *path = strstr(endpoint, "ipc://");
    return path && access(path + strlen("ipc://"), W_OK) < 0 && errno == EACCES;
}

/* The daemon, asked over one connection as long as that holds. */
struct asking {
    char *endpoint;
    struct peer *peer; /* NULL until there is something to ask */
};

static void hang_up(struct asking *asking)
{
    peer_close(asking->peer);
    asking->peer = NULL;
}

/* The result of a method; takes `params`. NULL with a reason in `err`. */
static json_t *ask(struct asking *asking, const char *method, json_t *params, int64_t limit_ms, char *err,
                   size_t err_size)
{
    const char *endpoint = asking->endpoint;
    json_t *request =
        json_pack("{s:s, s:i, s:s, s:o}", "jsonrpc", "2.0", "id", 1, "method", method, "params", params);
    if (!asking->peer)
        asking->peer = peer_open(&(struct peer_conf){.type = ZMQ_REQ, .endpoint = endpoint}, err, err_size);
    struct peer *peer = asking->peer;
    struct message reply = {0};
    json_t *result = NULL;
    enum peer_result rc = peer ? exchange(peer, request, &reply, clock_now_ms() + limit_ms) : PEER_FAILED;
    if (rc == PEER_OK)
        result = read_result(endpoint, method, &reply, err, err_size);
    else if (rc == PEER_TIMED_OUT)
        snprintf(err, err_size, "%s: proxyd does not answer within %d s", endpoint, (int)(limit_ms / 1000));
    else if (peer && is_forbidden(endpoint))
        snprintf(err, err_size, "%s: %s", endpoint, strerror(EACCES));
    else if (peer)
        snprintf(err, err_size, "%s: %s; is proxyd running?", endpoint, peer_cause(peer));
    if (rc != PEER_OK)
        hang_up(asking);
    message_close(&reply);
    json_decref(request);
    return result;
}

static bool has_colour(void)
{
    const char *none = getenv("NO_COLOR");
    return isatty(STDOUT_FILENO) && !(none && none[0]);
}

static void print_result(const struct settings *settings, enum command_id id, const json_t *result)
{
    if (settings->is_json) {
        json_dumpf(result, stdout, JSON_INDENT(2) | JSON_ENCODE_ANY);
        putchar('\n');
    } else if (id == COMMAND_STATUS) {
        render_status(stdout, result, has_colour());
    } else if (id == COMMAND_SHOW) {
        render_chain(stdout, result, has_colour());
    } else if (id == COMMAND_RELOAD) {
        render_reload(stdout, result);
    }
}

/* As `ask`, but NULL after a complaint. */
static json_t *ask_or_complain(void *asking, enum command_id id, json_t *params)
{
    char err[16 * 1024];
    int64_t limit_ms = id == COMMAND_RELOAD ? RELOAD_ANSWER_MS : ANSWER_MS;
    json_t *result = ask(asking, command_info(id)->name, params, limit_ms, err, sizeof(err));
    if (!result)
        fprintf(stderr, "proxyctl: %s\n", err);
    return result;
}

/* Anew each time: the daemon may have been started again since. */
static json_t *ask_for_top(void *asking, char *err, size_t err_size)
{
    hang_up(asking);
    return ask(asking, command_info(COMMAND_STATUS)->name, json_object(), TOP_ANSWER_MS, err, err_size);
}

static int run_remote(const struct settings *settings, enum command_id id, char **words, int count)
{
    struct asking asking = {.endpoint = control_endpoint(settings)};
    if (!asking.endpoint || !is_endpoint(id, asking.endpoint, false)) {
        free(asking.endpoint);
        return STATUS_USAGE;
    }
    int status = EXIT_FAILURE;
    if (id == COMMAND_QUEUE || id == COMMAND_DEAD || id == COMMAND_TICKET) {
        status = queuectl_run(id, words, count, settings->is_json, ask_or_complain, &asking);
    } else if (id == COMMAND_TOP) {
        status = top_run(&(struct top_conf){.ask = ask_for_top,
                                            .context = &asking,
                                            .interval_ms = settings->interval_ms,
                                            .count = settings->count,
                                            .has_colour = has_colour()});
    } else {
        json_t *params = json_pack("{s:s*}", "chain", command_info(id)->takes_chain ? words[0] : NULL);
        json_t *result = ask_or_complain(&asking, id, params);
        if (result) {
            print_result(settings, id, result);
            status = EXIT_SUCCESS;
        }
        json_decref(result);
    }
    hang_up(&asking);
    free(asking.endpoint);
    return printed(status);
}

static int run_here(const struct settings *settings, enum command_id id, char **arguments, int count)
{
    static int (*const commands[COMMAND_COUNT])(const struct tryout *) = {
        [COMMAND_CALL] = tryout_call,
        [COMMAND_SERVE] = tryout_serve,
        [COMMAND_PUBLISH] = tryout_publish,
        [COMMAND_SUBSCRIBE] = tryout_subscribe,
    };
    char err[300], *password = NULL;
    size_t size = 0;
    if (!is_endpoint(id, arguments[0], id == COMMAND_SERVE || id == COMMAND_PUBLISH))
        return STATUS_USAGE;
    if (!settings->user != !settings->password_file)
        return complain(command_info(id)->name, "--user and --password-file go together");
    if (settings->password_file &&
        !(password = secret_read_password(settings->password_file, &size, err, sizeof(err))))
        return complain(command_info(id)->name, err);
    const struct credentials credentials = {.username = (char *)settings->user, .password = password};
    int status = commands[id](&(struct tryout){
        .endpoint = arguments[0],
        .words = arguments + 1,
        .word_count = count - 1,
        .credentials = settings->user ? &credentials : NULL,
        .timeout_ms = settings->timeout_ms,
        .delay_ms = settings->delay_ms,
        .count = settings->count,
        .is_json = settings->is_json,
    });
    secret_free(password, size);
    return printed(status);
}

int main(int argc, char **argv)
{
    struct settings settings = {.config = CONFIG_DEFAULT_PATH, .timeout_ms = ANSWER_MS, .interval_ms = 1000};
    int first = take_options(&settings, argc, argv, "+c:s:Vh", "csj");
    if (first < 0)
        return STATUS_USAGE;
    if (first == argc) {
        print_usage(stderr);
        return STATUS_USAGE;
    }
    enum command_id id = command_find(argv[first]);
    if (id == COMMAND_COUNT) {
        complain(argv[first], "there is no such command; proxyctl -h lists them");
        return STATUS_USAGE;
    }
    const struct command *command = command_info(id);
    argc -= first;
    argv += first;
    first = take_options(&settings, argc, argv, "c:s:n:Vh", command->options);
    if (first < 0)
        return STATUS_USAGE;
    int count = argc - first;
    if (count < command->least_arguments ||
        (command->most_arguments >= 0 && count > command->most_arguments)) {
        fprintf(stderr, "usage: proxyctl %s%s%s\n", command->name, command->arguments[0] ? " " : "",
                command->arguments);
        return STATUS_USAGE;
    }
    if (command->is_remote)
        return run_remote(&settings, id, argv + first, count);
    if (id == COMMAND_PASSWD) {
        settings.change.path = argv[first];
        settings.change.user = argv[first + 1];
        return accounts_passwd(&settings.change);
    }
    if (id == COMMAND_KEYGEN)
        return printed(accounts_keygen(argv[first]));
    return run_here(&settings, id, argv + first, count);
}
