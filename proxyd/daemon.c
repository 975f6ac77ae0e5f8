/* SPDX-License-Identifier: MIT
 *
 * Start, one loop, stop; see daemon.h. Owns the runtime, the chains, the control socket and HTTP. Never touches a
 * message, and never waits for anything but its poll.
 *
 *      SIGTERM, SIGINT --> signalfd ---+
 *      SIGHUP                          |
 *      chains: state changed, ended ---+--> poll --> one turn
 *      control socket, HTTP -----------+
 */
#include "proxyd/daemon.h"

#include "auth/digest.h"
#include "auth/secret.h"
#include "buffer/clock.h"
#include "buffer/store.h"
#include "proxies/guard.h"
#include "proxies/kinds.h"
#include "proxies/listener.h"
#include "proxies/sessions.h"
#include "proxyd/config_diff.h"
#include "proxyd/daemon_parts.h"
#include "proxyd/http.h"
#include "proxyd/log.h"
#include "proxyd/notify.h"
#include "proxyd/reload.h"

#include <errno.h>
#include <fcntl.h>
#include <malloc.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/prctl.h>
#include <sys/random.h>
#include <sys/resource.h>
#include <sys/signalfd.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

/* More descriptors than any chain can use; a larger limit only costs the kernel and tools that walk it. */
#define MOST_DESCRIPTORS 65536

/* Blocks from here on go back to the kernel as soon as they are free; what a thread's heap has free at its end does when
 * it is more. With less each large message has its pages fetched and given back. */
#define LARGE_BLOCK_BYTES (2 * 1024 * 1024)

/* Freed memory is filled with it; any but 0. */
#define WIPE_BYTE 0xa5

/* A chain that has not ended so long after it was told to end at once never will. */
#define STUCK_MS 2000

/* The signals that daemon_run reads from a descriptor. */
static void own_signals(sigset_t *set)
{
    sigemptyset(set);
    sigaddset(set, SIGTERM);
    sigaddset(set, SIGINT);
    sigaddset(set, SIGHUP);
}

void daemon_wipe_freed(bool is_wiped)
{
    mallopt(M_PERTURB, is_wiped ? WIPE_BYTE : 0);
}

/* What is opened later must not take the place of a standard stream that was closed: log lines would go into
 * it. They fail, as they would without. */
static void keep_standard_streams(void)
{
    int fd;
    do
        fd = open("/dev/null", O_RDONLY | O_CLOEXEC);
    while (fd >= 0 && fd <= STDERR_FILENO);
    if (fd >= 0)
        close(fd);
}

void daemon_prepare(void)
{
    keep_standard_streams();
    umask(077);
    signal(SIGPIPE, SIG_IGN);
    sigset_t set;
    own_signals(&set);
    sigprocmask(SIG_BLOCK, &set, NULL);

    struct rlimit limit;
    if (getrlimit(RLIMIT_NOFILE, &limit) == 0 && limit.rlim_cur < limit.rlim_max) {
        rlim_t most = limit.rlim_max < MOST_DESCRIPTORS ? limit.rlim_max : MOST_DESCRIPTORS;
        if (limit.rlim_cur < most) {
            limit.rlim_cur = most;
            setrlimit(RLIMIT_NOFILE, &limit);
        }
    }
    /* A core would hold the passwords of upstreams, and so does /proc/PID/mem. */
    setrlimit(RLIMIT_CORE, &(struct rlimit){0, 0});
    prctl(PR_SET_DUMPABLE, 0);

    daemon_wipe_freed(true); /* until it is known whether there are secrets */

    /* glibc raises both as large blocks are freed, up to 64 MiB a thread. */
    mallopt(M_MMAP_THRESHOLD, LARGE_BLOCK_BYTES);
    mallopt(M_TRIM_THRESHOLD, LARGE_BLOCK_BYTES);

    /* libzmq draws routing ids from rand() and does not seed it. */
    unsigned seed;
    if (getrandom(&seed, sizeof(seed), GRND_NONBLOCK) != sizeof(seed))
        seed = (unsigned)clock_now_ms() ^ (unsigned)getpid();
    srand(seed);
}

int daemon_failed(struct daemon *daemon, const char *what, const char *chain, const char *reason)
{
    if (chain)
        EVENT(&daemon->events, EVENT_ERROR, what, EVENT_TEXT("chain", chain), EVENT_TEXT("reason", reason));
    else
        EVENT(&daemon->events, EVENT_ERROR, what, EVENT_TEXT("reason", reason));
    return -1;
}

static void warn_if_open(struct daemon *daemon, const char *chain, const struct access_conf *access,
                         const struct endpoint_list *endpoints)
{
    for (size_t i = 0; i < endpoints->count && access->auth != DOOR_CURVE; i++)
        if (endpoints->items[i].is_bind && !endpoint_is_local(&endpoints->items[i]))
            EVENT(&daemon->events, EVENT_WARNING, "open-endpoint", EVENT_TEXT("chain", chain),
                  EVENT_TEXT("endpoint", endpoints->items[i].text),
                  EVENT_TEXT("auth", access->auth == DOOR_PLAIN ? "plain" : "none"));
}

void daemon_warn_if_open(struct daemon *daemon, const struct chain_conf *conf)
{
    warn_if_open(daemon, conf->name, &conf->frontend.access, &conf->frontend.endpoints);
    warn_if_open(daemon, conf->name, &conf->frontend.access, &conf->frontend.tickets);
    warn_if_open(daemon, conf->name, &conf->backend.access, &conf->backend.endpoints);
    warn_if_open(daemon, conf->name, &conf->backend.access, &conf->backend.workers.heartbeat);
}

struct chain *daemon_open_chain(struct daemon *daemon, struct chain_conf *conf, char *err, size_t err_size)
{
    struct chain *chain = chain_open(conf, &daemon->runtime, err, err_size);
    if (chain)
        chain_set_waker(chain, daemon->waker);
    return chain;
}

/* Every chain, so that one start names every address in use. */
static int open_chains(struct daemon *daemon)
{
    const struct config *config = daemon->config;
    int result = 0;
    for (size_t i = 0; i < config->chain_count; i++) {
        char err[256];
        struct chain *chain = daemon_open_chain(daemon, config->chains[i], err, sizeof(err));
        if (!chain) {
            result = daemon_failed(daemon, "start-failed", config->chains[i]->name, err);
            continue;
        }
        daemon->chains[daemon->slot_count] = chain;
        daemon->slots[daemon->slot_count++].chain = chain;
        daemon_warn_if_open(daemon, config->chains[i]);
    }
    return result;
}

static int start_chains(struct daemon *daemon)
{
    for (size_t i = 0; i < daemon->slot_count; i++) {
        char err[256];
        if (chain_start(daemon->chains[i], err, sizeof(err)) < 0)
            return daemon_failed(daemon, "start-failed", daemon->config->chains[i]->name, err);
    }
    return 0;
}

/* Tells the service manager, in its own words, when they have changed. */
static void tell_status(struct daemon *daemon)
{
    size_t counts[CHAIN_DRAINING + 1] = {0};
    for (size_t i = 0; i < daemon->slot_count; i++) {
        struct chain_stats stats;
        if (chain_stats(daemon->slots[i].chain, &stats) < 0)
            return;
        counts[stats.state]++;
        chain_stats_close(&stats);
    }
    char text[sizeof(daemon->told)];
    int used = snprintf(text, sizeof(text), "STATUS=chains");
    const char *separator = ": ";
    for (enum chain_state state = CHAIN_UP; state <= CHAIN_DRAINING; state++) {
        if (counts[state] == 0)
            continue;
        used += snprintf(text + used, sizeof(text) - (size_t)used, "%s%zu %s", separator, counts[state],
                         chain_state_name(state));
        separator = ", ";
    }
    if (strcmp(text, daemon->told) != 0) {
        memcpy(daemon->told, text, sizeof(text));
        notify_send(text);
    }
}

static void begin_stop(struct daemon *daemon, const char *cause)
{
    int64_t now_ms = clock_now_ms();
    if (daemon->phase == RUNNING) {
        daemon->phase = DRAINING;
        daemon->deadline_ms = now_ms + daemon->config->daemon.drain_timeout_ms;
        notify_send("STOPPING=1");
        EVENT(&daemon->events, EVENT_INFO, "stopping", EVENT_TEXT("cause", cause),
              EVENT_NUMBER("drain_timeout_ms", daemon->config->daemon.drain_timeout_ms));
    } else if (daemon->phase == DRAINING) {
        daemon->phase = ENDING;
        daemon->deadline_ms = now_ms;
        EVENT(&daemon->events, EVENT_WARNING, "stopping-at-once", EVENT_TEXT("cause", cause));
    }
}

static void stop_by_operator(void *context)
{
    struct daemon *daemon = context;
    if (daemon->phase == RUNNING)
        begin_stop(daemon, "operator");
}

/* Whether what `from` sends goes into `to`, through an inproc address that both name. */
static bool feeds(const struct chain_conf *from, const struct chain_conf *to)
{
    const struct endpoint_list *out = &from->backend.endpoints, *in = &to->frontend.endpoints;
    for (size_t i = 0; i < out->count; i++)
        for (size_t k = 0; out->items[i].transport == TRANSPORT_INPROC && k < in->count; k++)
            if (strcmp(out->items[i].address, in->items[k].address) == 0)
                return true;
    return false;
}

/* Whether a running chain feeds chain `index`, or, with `is_fed`, is fed by it. */
static bool has_neighbour(const struct daemon *daemon, size_t index, bool is_fed)
{
    const struct chain_conf *conf = chain_conf(daemon->slots[index].chain);
    for (size_t i = 0; i < daemon->slot_count; i++) {
        const struct chain *other = daemon->slots[i].chain;
        if (i != index && !chain_is_stopped(other) &&
            (is_fed ? feeds(conf, chain_conf(other)) : feeds(chain_conf(other), conf)))
            return true;
    }
    return false;
}

/* One step of the stop; true when every chain has ended. A chain stops after those that feed it, so that
 * what they still hold has somewhere to go; each leaves half of the time to the chains behind it. */
static bool stop_chains(struct daemon *daemon, int64_t now_ms)
{
    if (daemon->phase == DRAINING && now_ms >= daemon->deadline_ms)
        daemon->phase = ENDING;
    bool have_ended = true;
    if (!reload_withdraw(daemon) && daemon->phase == DRAINING)
        return false;
    for (size_t i = 0; i < daemon->slot_count; i++) {
        struct slot *slot = &daemon->slots[i];
        if (chain_is_stopped(slot->chain))
            continue;
        have_ended = false;
        if (daemon->phase == ENDING && !slot->is_ending) {
            slot->is_ending = true;
            chain_stop(slot->chain, 0);
        } else if (daemon->phase == DRAINING && !slot->is_draining && !has_neighbour(daemon, i, false)) {
            slot->is_draining = true;
            int64_t left_ms = daemon->deadline_ms - now_ms;
            chain_stop(slot->chain, has_neighbour(daemon, i, true) ? left_ms / 2 : left_ms);
        }
    }
    return have_ended;
}

/* A chain cannot be made to end: say which, and let the kernel clean up. */
static void give_up(struct daemon *daemon)
{
    for (size_t i = 0; i < daemon->slot_count; i++)
        if (!chain_is_stopped(daemon->slots[i].chain))
            daemon_failed(daemon, "stop-stuck", chain_conf(daemon->slots[i].chain)->name,
                          "its loop does not turn");
    log_close();
    _exit(EXIT_FAILURE);
}

static void reload_by_operator(void *context)
{
    ((struct daemon *)context)->reload_wanted = "operator";
}

static void take_signals(struct daemon *daemon)
{
    struct signalfd_siginfo info;
    while (read(daemon->signals, &info, sizeof(info)) == sizeof(info)) {
        if (info.ssi_signo == SIGHUP)
            daemon->reload_wanted = "SIGHUP";
        else
            begin_stop(daemon, info.ssi_signo == SIGTERM ? "SIGTERM" : "SIGINT");
    }
}

/* Chains changed their state, or ended; nobody asked one to end while the daemon runs. Without a keeper the
 * protected sockets let nobody in. */
static void take_wake(struct daemon *daemon)
{
    uint64_t count;
    if (read(daemon->waker, &count, sizeof(count)) != sizeof(count))
        return;
    const char *reason;
    if (daemon->phase == RUNNING && !doors_are_kept(daemon->doors, &reason)) {
        daemon_failed(daemon, "auth-ended", NULL, reason);
        daemon->status = EXIT_FAILURE;
        begin_stop(daemon, "auth-ended");
    }
    for (size_t i = 0; daemon->phase == RUNNING && i < daemon->slot_count; i++) {
        const struct slot *slot = &daemon->slots[i];
        if (chain_is_stopped(slot->chain) && !slot->is_leaving) {
            daemon_failed(daemon, "chain-ended", chain_conf(slot->chain)->name, "its loop failed");
            daemon->status = EXIT_FAILURE;
            begin_stop(daemon, "chain-ended");
        }
    }
    tell_status(daemon);
}

/* A sign of life goes out only when every chain and the doors have turned since the last one. */
static void watch(struct daemon *daemon, int64_t now_ms)
{
    if (daemon->watchdog_ms == 0 || now_ms < daemon->next_watchdog_ms)
        return;
    daemon->next_watchdog_ms = now_ms + daemon->watchdog_ms;
    bool all_turn = doors_turn(daemon->doors);
    for (size_t i = 0; i < daemon->slot_count; i++)
        if (!chain_is_stopped(daemon->slots[i].chain) &&
            chain_turns(daemon->slots[i].chain) == daemon->slots[i].turns)
            all_turn = false;
    if (all_turn)
        notify_send("WATCHDOG=1");
    for (size_t i = 0; i < daemon->slot_count; i++) {
        if (all_turn)
            daemon->slots[i].turns = chain_turns(daemon->slots[i].chain);
        chain_ping(daemon->slots[i].chain);
    }
}

/* Milliseconds for poll, until the next deadline; -1 = none. */
static int next_timeout(const struct daemon *daemon, int64_t now_ms)
{
    int64_t due_ms = INT64_MAX;
    if (daemon->watchdog_ms > 0)
        due_ms = daemon->next_watchdog_ms;
    if (daemon->phase != RUNNING) {
        int64_t stop_ms = daemon->deadline_ms + (daemon->phase == ENDING ? STUCK_MS : 0);
        due_ms = stop_ms < due_ms ? stop_ms : due_ms;
    }
    int64_t reload_ms = daemon->phase == RUNNING ? reload_next_ms(daemon, now_ms) : INT64_MAX;
    due_ms = reload_ms < due_ms ? reload_ms : due_ms;
    int64_t http_ms = daemon->http ? http_next_ms(daemon->http, now_ms) : INT64_MAX;
    due_ms = http_ms < due_ms ? http_ms : due_ms;
    if (due_ms == INT64_MAX)
        return -1;
    int64_t left_ms = due_ms - now_ms;
    return left_ms <= 0 ? 0 : left_ms > INT32_MAX ? INT32_MAX : (int)left_ms;
}

/* One that is asked for while another is under way comes after it: the file may have changed since. */
static void move_reload(struct daemon *daemon)
{
    reload_move(daemon);
    if (daemon->reload || !daemon->reload_wanted)
        return;
    const char *cause = daemon->reload_wanted;
    daemon->reload_wanted = NULL;
    reload_begin(daemon, cause);
}

static void loop(struct daemon *daemon)
{
    struct pollfd fds[] = {
        {.fd = daemon->signals, .events = POLLIN},
        {.fd = daemon->waker, .events = POLLIN},
        {.fd = daemon->control ? control_fd(daemon->control) : -1, .events = POLLIN},
        {.fd = daemon->http ? http_fd(daemon->http) : -1, .events = POLLIN},
    };
    bool has_more = true;
    for (;;) {
        int64_t now_ms = clock_now_ms();
        if (daemon->phase != RUNNING) {
            if (stop_chains(daemon, now_ms))
                return;
            if (daemon->phase == ENDING && now_ms >= daemon->deadline_ms + STUCK_MS)
                give_up(daemon);
        }
        watch(daemon, now_ms);
        if (poll(fds, sizeof(fds) / sizeof(fds[0]), has_more ? 0 : next_timeout(daemon, now_ms)) < 0 &&
            errno != EINTR) {
            daemon->status = EXIT_FAILURE;
            daemon_failed(daemon, "poll-failed", NULL, strerror(errno));
            begin_stop(daemon, "poll-failed");
        }
        take_signals(daemon);
        take_wake(daemon);
        has_more = daemon->control && control_turn(daemon->control, clock_now_ms());
        if (daemon->http)
            http_turn(daemon->http, clock_now_ms());
        if (daemon->phase == RUNNING)
            move_reload(daemon);
        else if (daemon->control)
            control_refuse_reloads(daemon->control);
    }
}

/* The most that may exist at once: each link has its socket and a monitored pair, a REQ backend up to
 * `window` links an endpoint, and one that is closed counts until libzmq has reaped it. */
int64_t daemon_count_sockets(const struct config *config)
{
    enum { SOCKETS_OF_A_LINK = 4, FEW_MORE = 16 };
    int64_t link_count = 0;
    for (size_t i = 0; i < config->chain_count; i++) {
        const struct chain_conf *conf = config->chains[i];
        int64_t links = kind_has_req_back(conf->kind) ? conf->backend.window : 1;
        link_count += (int64_t)conf->frontend.verify.endpoint.count * SESSIONS_WINDOW +
                      (int64_t)conf->backend.workers.heartbeat.count;
        link_count += (int64_t)conf->frontend.endpoints.count + (int64_t)conf->frontend.tickets.count +
                      (int64_t)conf->backend.endpoints.count * links;
    }
    return FEW_MORE + SOCKETS_OF_A_LINK * link_count;
}

/* With room for what a reload adds; it cannot be more later. */
static int64_t socket_max(const struct config *config)
{
    enum { ROOM = 4096, LIBZMQ_MAX = 65535 };
    int64_t count = 2 * daemon_count_sockets(config) + ROOM;
    return count < LIBZMQ_MAX ? count : LIBZMQ_MAX;
}

/* Before the first socket. What is not for peers: a descriptor for each socket, two for each chain's loop, and
 * those of libzmq, the stores and the log. */
static int open_guard(struct daemon *daemon, char *err, size_t err_size)
{
    enum { DESCRIPTORS_OF_A_CHAIN = 2, FEW_MORE = 32 };
    const struct config *config = daemon->config;
    const struct guard_conf conf = {
        .max_connections = config->daemon.max_connections,
        .max_connections_per_address = config->daemon.max_connections_per_address,
        .kept_descriptors = daemon_count_sockets(config) +
                            DESCRIPTORS_OF_A_CHAIN * (int64_t)config->chain_count +
                            (config->daemon.http[0] ? HTTP_DESCRIPTORS : 0) + FEW_MORE,
    };
    return guard_open(&conf, daemon->events, err, err_size);
}

/* Called by the store thread, too. */
static void on_store_event(void *context, enum store_event_kind kind, const char *text, uint64_t count)
{
    const struct daemon *daemon = context;
    enum event_level level = kind == STORE_EVENT_RESUMED ? EVENT_INFO : EVENT_ERROR;
    if (text)
        EVENT(&daemon->events, level, store_event_name(kind), EVENT_TEXT("reason", text),
              EVENT_NUMBER("count", (int64_t)count));
    else
        EVENT(&daemon->events, level, store_event_name(kind), EVENT_NUMBER("count", (int64_t)count));
}

/* What a store has, and who is to open it. */
struct claim {
    const struct daemon *daemon;
    const struct config *config;
};

/* A chain that was renamed or removed while no daemon ran: what it has queued waits for its name. */
static void on_found(void *context, const char *chain, uint64_t live, uint64_t dead)
{
    const struct claim *claim = context;
    const struct chain_conf *conf = config_find_chain(claim->config, chain);
    if (!conf || conf->queue.store != STORE_DISK)
        EVENT(&claim->daemon->events, EVENT_WARNING, "queue-kept", EVENT_TEXT("chain", chain),
              EVENT_NUMBER("messages", (int64_t)live), EVENT_NUMBER("dead", (int64_t)dead));
}

static void digest_message(uint64_t sender, const struct message *body, uint8_t digest[QUEUE_DIGEST_BYTES])
{
    struct digest state;
    digest_begin(&state, NULL);
    digest_add(&state, &sender, sizeof(sender));
    for (uint32_t i = 0; i < body->count; i++)
        digest_add(&state, zmq_msg_data(message_frame(body, i)), zmq_msg_size(message_frame(body, i)));
    digest_end(&state, digest);
}

/* One store for all chains that keep their queue on disk. */
int daemon_open_store(struct daemon *daemon, const struct config *config, char *err, size_t err_size)
{
    struct claim claim = {daemon, config};
    const struct store_conf conf = {.directory = daemon->config->daemon.state_dir,
                                    .event = on_store_event,
                                    .context = daemon,
                                    .found = on_found,
                                    .found_context = &claim};
    bool is_needed = false;
    for (size_t i = 0; i < config->chain_count; i++)
        is_needed |= config->chains[i]->queue.store == STORE_DISK;
    if (is_needed && !daemon->runtime.store)
        daemon->runtime.store = store_open(&conf, err, err_size);
    return is_needed && !daemon->runtime.store ? -1 : 0;
}

static int open_doors(struct daemon *daemon, char *err, size_t err_size)
{
    daemon->doors =
        doors_open(daemon->config, daemon->runtime.zmq, daemon->events, daemon->waker, err, err_size);
    if (!daemon->doors)
        return -1;
    daemon->runtime.doorman = doors_doorman(daemon->doors);
    return 0;
}

static int open_control(struct daemon *daemon, char *err, size_t err_size)
{
    daemon->inspect = inspect_new(daemon->waker);
    if (!daemon->inspect) {
        snprintf(err, err_size, "out of memory");
        return -1;
    }
    const struct control_scope scope = {
        .zmq = daemon->runtime.zmq,
        .report = &daemon->report,
        .inspect = daemon->inspect,
        .stop = stop_by_operator,
        .reload = reload_by_operator,
        .context = daemon,
    };
    daemon->control = control_open(&daemon->config->daemon, &scope, err, err_size);
    return daemon->control ? 0 : -1;
}

static int open_http(struct daemon *daemon, char *err, size_t err_size)
{
    const char *address = daemon->config->daemon.http;
    daemon->http = http_open(address, &daemon->report, err, err_size);
    if (!daemon->http)
        return -1;
    if (!http_is_local(daemon->http))
        EVENT(&daemon->events, EVENT_WARNING, "open-http", EVENT_TEXT("address", address),
              EVENT_TEXT("auth", "none"));
    return 0;
}

static int start(struct daemon *daemon)
{
    const struct config *config = daemon->config;
    char err[256];
    sigset_t set;
    own_signals(&set);
    daemon->signals = signalfd(-1, &set, SFD_NONBLOCK | SFD_CLOEXEC);
    daemon->waker = eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC);
    daemon->slots = calloc(config->chain_count, sizeof(*daemon->slots));
    daemon->chains = calloc(config->chain_count, sizeof(struct chain *));
    if (daemon->signals < 0 || daemon->waker < 0 || !daemon->slots || !daemon->chains)
        return daemon_failed(daemon, "start-failed", NULL, strerror(errno));

    daemon->socket_max = socket_max(config);
    if (open_guard(daemon, err, sizeof(err)) < 0 ||
        runtime_open(&daemon->runtime, (int)daemon->socket_max, daemon->events, err, sizeof(err)) < 0)
        return daemon_failed(daemon, "start-failed", NULL, err);
    daemon->has_runtime = true;
    daemon->runtime.digest = digest_message;
    if (secret_open() < 0)
        return daemon_failed(daemon, "start-failed", NULL, "no randomness");
    if (open_doors(daemon, err, sizeof(err)) < 0 || daemon_open_store(daemon, config, err, sizeof(err)) < 0)
        return daemon_failed(daemon, "start-failed", NULL, err);

    if (open_chains(daemon) < 0)
        return -1;
    daemon->report = (struct report_scope){.chains = daemon->chains,
                                           .chain_count = config->chain_count,
                                           .store = daemon->runtime.store,
                                           .doors = daemon->doors,
                                           .started_ms = daemon->started_ms,
                                           .started_unix_s = time(NULL)};
    if ((config->daemon.control[0] && open_control(daemon, err, sizeof(err)) < 0) ||
        (config->daemon.http[0] && open_http(daemon, err, sizeof(err)) < 0))
        return daemon_failed(daemon, "start-failed", NULL, err);
    return start_chains(daemon);
}

/* Everything that start has got done, in reverse. */
static void stop(struct daemon *daemon)
{
    /* Nobody reads signals from here on; whatever might be stuck below, a further SIGTERM ends it. */
    sigset_t set;
    own_signals(&set);
    sigdelset(&set, SIGHUP);
    sigprocmask(SIG_UNBLOCK, &set, NULL);

    if (daemon->http)
        http_close(daemon->http);
    if (daemon->control)
        control_close(daemon->control);
    for (size_t i = daemon->slot_count; i-- > 0;)
        chain_free(daemon->slots[i].chain);
    reload_free(daemon);
    listeners_close();
    inspect_free(daemon->inspect);
    doors_close(daemon->doors);
    if (daemon->runtime.store)
        store_close(daemon->runtime.store);
    if (daemon->has_runtime)
        runtime_close(&daemon->runtime);
    guard_close();
    free(daemon->chains);
    free(daemon->slots);
    if (daemon->waker >= 0)
        close(daemon->waker);
    if (daemon->signals >= 0)
        close(daemon->signals);
}

int daemon_run(struct config *config)
{
    struct daemon daemon = {
        .config = config,
        .events = log_sink(),
        .signals = -1,
        .waker = -1,
        .started_ms = clock_now_ms(),
        .watchdog_ms = notify_watchdog_usec() / 1000 / 4,
        .has_secrets = config_has_secrets(config),
    };
    daemon_wipe_freed(daemon.has_secrets);
    if (log_open(config->daemon.log_level, config->daemon.log_format) < 0) {
        daemon_failed(&daemon, "start-failed", NULL, "cannot start the log");
        config_free(config);
        return EXIT_FAILURE;
    }
    EVENT(&daemon.events, EVENT_INFO, "starting", EVENT_TEXT("version", PROXYD_VERSION),
          EVENT_TEXT("config", config->path));
    if (start(&daemon) == 0) {
        EVENT(&daemon.events, EVENT_INFO, "ready", EVENT_NUMBER("chains", (int64_t)config->chain_count),
              EVENT_TEXT("control", config->daemon.control));
        notify_send("READY=1");
        tell_status(&daemon);
        loop(&daemon);
    } else {
        daemon.status = EXIT_FAILURE;
    }
    stop(&daemon);
    EVENT(&daemon.events, EVENT_INFO, "stopped", EVENT_NUMBER("status", daemon.status));
    log_close();
    config_free(daemon.config);
    return daemon.status;
}
