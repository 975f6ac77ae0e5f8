/* SPDX-License-Identifier: MIT
 *
 * Reload; see reload.h. On the main thread, like all of the daemon; never waits for a chain. Owns the new
 * configuration until it is in force, and from then on the old one, which takes the place of what a chain
 * gave up.
 */
#include "proxyd/reload.h"

#include "buffer/clock.h"
#include "proxies/kinds.h"
#include "proxies/listener.h"
#include "proxyd/config_diff.h"
#include "proxyd/daemon_parts.h"
#include "proxyd/notify.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* A chain that does not get ready within drain_timeout and this is not waited for by its neighbours. */
#define PATIENCE_MS 1000

enum fate { FATE_SAME, FATE_CHANGED, FATE_ADDED };

/* One chain of the new configuration. */
struct step {
    enum fate fate;
    struct chain_conf *conf; /* the new one's */
    size_t slot;             /* of the running chain, but for FATE_ADDED */
    struct chain *chain;     /* that, or the one opened */
    struct chain_change change;
};

struct reload {
    const char *cause;
    int64_t began_ms;
    struct config *next; /* until the commit; then the one before */
    struct step *steps;  /* of each of its chains */
    size_t step_count;
    struct slot *slots; /* room for those to come, and for their chains; until the commit */
    struct chain **chains;
    bool *follows; /* [i * step_count + k]: i connects by inproc to what k binds, and both are exchanged */
    struct reload_result result;
};

/* ---- results ---- */

static void add_text(struct text_list *list, const char *text)
{
    char **items = realloc(list->items, (list->count + 1) * sizeof(*items));
    char *copy = strdup(text);
    if (items)
        list->items = items;
    if (items && copy)
        items[list->count++] = copy;
    else
        free(copy);
}

static void close_texts(struct text_list *list)
{
    for (size_t i = 0; i < list->count; i++)
        free(list->items[i]);
    free(list->items);
}

static const char *place_of(const struct config *config, const char *chain)
{
    for (size_t i = 0; i < config->chain_count; i++)
        if (strcmp(config->chains[i]->name, chain) == 0)
            return config->places[i];
    return config->path;
}

__attribute__((format(printf, 3, 4))) static void add_problem(struct reload *reload, const char *chain,
                                                              const char *format, ...)
{
    char reason[512], text[700];
    va_list arguments;
    va_start(arguments, format);
    vsnprintf(reason, sizeof(reason), format, arguments);
    va_end(arguments);
    if (chain)
        snprintf(text, sizeof(text), "%s: chain \"%s\": %s", place_of(reload->next, chain), chain, reason);
    else
        snprintf(text, sizeof(text), "%s: daemon: %s", reload->next->path, reason);
    add_text(&reload->result.problems, text);
    reload->result.has_failed = true;
}

static void note_key(void *context, const char *key)
{
    add_text(context, key);
}

static void note_users_problem(void *context, const char *text)
{
    add_problem(context, NULL, "%s", text);
}

/* ---- comparing ---- */

static bool has_inproc(const struct endpoint_list *list, const struct endpoint *endpoint, bool is_bind)
{
    for (size_t i = 0; i < list->count; i++)
        if (list->items[i].transport == TRANSPORT_INPROC && list->items[i].is_bind == is_bind &&
            strcmp(list->items[i].address, endpoint->address) == 0)
            return true;
    return false;
}

/* Whether one of `list` connects by inproc to what `other` binds. */
static bool joins(const struct endpoint_list *list, const struct endpoint_list *other)
{
    for (size_t i = 0; i < list->count; i++)
        if (!list->items[i].is_bind && has_inproc(other, &list->items[i], true))
            return true;
    return false;
}

/* Whether a side of `one` joins a side of `other` that is made anew. */
static bool joins_new(const struct endpoint_list *side, const struct step *other)
{
    return other->fate != FATE_SAME &&
           ((other->change.frontend && joins(side, &other->conf->frontend.endpoints)) ||
            (other->change.backend && joins(side, &other->conf->backend.endpoints)));
}

/* Who connects by inproc to what is made anew stops sending before, and connects anew after: nothing is lost. */
static void follow_inproc(struct reload *reload)
{
    for (bool has_grown = true; has_grown;) {
        has_grown = false;
        for (size_t i = 0; i < reload->step_count * reload->step_count; i++) {
            struct step *step = &reload->steps[i / reload->step_count];
            const struct step *other = &reload->steps[i % reload->step_count];
            if (step == other || step->fate == FATE_ADDED)
                continue;
            bool frontend = !step->change.frontend && joins_new(&step->conf->frontend.endpoints, other);
            bool backend = !step->change.backend && joins_new(&step->conf->backend.endpoints, other);
            step->change.frontend |= frontend;
            step->change.backend |= backend;
            has_grown |= frontend || backend;
            if (frontend || backend)
                step->fate = FATE_CHANGED;
        }
    }
    for (size_t i = 0; i < reload->step_count * reload->step_count; i++) {
        const struct step *step = &reload->steps[i / reload->step_count];
        const struct step *other = &reload->steps[i % reload->step_count];
        reload->follows[i] = step != other && step->fate == FATE_CHANGED && other->fate == FATE_CHANGED &&
                             ((step->change.frontend && joins_new(&step->conf->frontend.endpoints, other)) ||
                              (step->change.backend && joins_new(&step->conf->backend.endpoints, other)));
    }
}

/* Messages that wait must fit where they move, and dead letters do not move. */
static void check_store(struct reload *reload, const struct step *step)
{
    struct chain_stats stats;
    const struct queue_conf *queue = &step->conf->queue;
    if (chain_stats(step->chain, &stats) < 0) {
        add_problem(reload, step->conf->name, "out of memory");
        return;
    }
    uint64_t count = stats.ledger.queued + stats.ledger.inflight;
    if ((queue->max_messages > 0 && count > (uint64_t)queue->max_messages) ||
        (queue->max_bytes > 0 && stats.queue_bytes > (uint64_t)queue->max_bytes))
        add_problem(reload, step->conf->name,
                    "queue.store cannot change now: %llu messages are queued, which is more than the new one "
                    "may hold",
                    (unsigned long long)count);
    if (stats.ledger.dead > 0)
        add_problem(reload, step->conf->name,
                    "queue.store cannot change now: %llu dead letters have to be retried or dropped first",
                    (unsigned long long)stats.ledger.dead);
    chain_stats_close(&stats);
}

static void compare_chain(struct daemon *daemon, struct reload *reload, struct step *step)
{
    for (size_t i = 0; i < daemon->slot_count; i++) {
        const struct chain_conf *conf = chain_conf(daemon->slots[i].chain);
        if (strcmp(conf->name, step->conf->name) != 0)
            continue;
        struct config_difference difference = config_compare(conf, step->conf);
        *step = (struct step){.fate = config_differs(&difference) ? FATE_CHANGED : FATE_SAME,
                              .conf = step->conf,
                              .slot = i,
                              .chain = daemon->slots[i].chain,
                              .change = {.next = step->conf,
                                         .frontend = difference.frontend,
                                         .backend = difference.backend,
                                         .store = difference.store,
                                         .drain_ms = daemon->config->daemon.drain_timeout_ms}};
        if (difference.kind)
            add_problem(reload, conf->name, "its kind cannot change while it runs; give it another name");
        else if (difference.store)
            check_store(reload, step);
        return;
    }
    step->fate = FATE_ADDED;
    step->change.frontend = step->change.backend = true;
}

static void compare(struct daemon *daemon, struct reload *reload)
{
    struct config *next = reload->next;
    config_compare_daemon(&daemon->config->daemon, &next->daemon, note_key, &reload->result.restart_needed);
    reload->step_count = next->chain_count;
    reload->steps = calloc(next->chain_count, sizeof(*reload->steps));
    reload->follows = calloc(next->chain_count * next->chain_count, sizeof(*reload->follows));
    reload->slots = calloc(next->chain_count + daemon->slot_count, sizeof(*reload->slots));
    reload->chains = calloc(next->chain_count, sizeof(struct chain *));
    if (!reload->steps || !reload->follows || !reload->slots || !reload->chains) {
        reload->step_count = 0;
        add_problem(reload, NULL, "out of memory");
        return;
    }
    for (size_t i = 0; i < next->chain_count; i++) {
        reload->steps[i].conf = next->chains[i];
        compare_chain(daemon, reload, &reload->steps[i]);
    }
    follow_inproc(reload);
    if (daemon_count_sockets(next) > daemon->socket_max)
        add_problem(reload, NULL, "so many endpoints need a restart: this run has room for %lld sockets",
                    (long long)daemon->socket_max);
}

/* ---- preparing ---- */

static void listen_at(struct reload *reload, const char *chain, const struct endpoint_list *endpoints)
{
    char err[256];
    for (size_t i = 0; i < endpoints->count; i++)
        if (endpoints->items[i].is_bind && listener_suits(&endpoints->items[i]) &&
            listeners_want(&endpoints->items[i], err, sizeof(err)) != 0)
            add_problem(reload, chain, "%s: %s", endpoints->items[i].text, err);
}

/* At all addresses of the new configuration; that of the control socket stays. */
static void listen_everywhere(struct daemon *daemon, struct reload *reload)
{
    char err[256];
    struct endpoint control;
    listeners_begin();
    if (daemon->control &&
        endpoint_parse(&control, daemon->config->daemon.control, true, err, sizeof(err)) == 0) {
        listen_at(reload, NULL, &(struct endpoint_list){&control, 1});
        endpoint_close(&control);
    }
    for (size_t i = 0; i < reload->step_count; i++) {
        const struct chain_conf *conf = reload->steps[i].conf;
        listen_at(reload, conf->name, &conf->frontend.endpoints);
        listen_at(reload, conf->name, &conf->frontend.tickets);
        listen_at(reload, conf->name, &conf->backend.endpoints);
        listen_at(reload, conf->name, &conf->backend.workers.heartbeat);
    }
}

static void open_added(struct daemon *daemon, struct reload *reload)
{
    char err[256];
    for (size_t i = 0; i < reload->step_count; i++) {
        struct step *step = &reload->steps[i];
        if (step->fate != FATE_ADDED)
            continue;
        step->chain = daemon_open_chain(daemon, step->conf, err, sizeof(err));
        if (!step->chain)
            add_problem(reload, step->conf->name, "%s", err);
    }
}

static void undo(struct daemon *daemon, struct reload *reload, bool has_doors)
{
    for (size_t i = 0; i < reload->step_count; i++)
        if (reload->steps[i].fate == FATE_ADDED && reload->steps[i].chain)
            chain_free(reload->steps[i].chain);
    if (has_doors)
        doors_revert(daemon->doors);
    listeners_settle(false);
}

/* True when the new configuration can be put in force; otherwise nothing has changed. */
static bool prepare(struct daemon *daemon, struct reload *reload)
{
    char err[256];
    bool has_doors = false;
    compare(daemon, reload);
    listen_everywhere(daemon, reload);
    if (!reload->result.has_failed && daemon_open_store(daemon, reload->next, err, sizeof(err)) != 0)
        add_problem(reload, NULL, "%s", err);
    if (!reload->result.has_failed)
        has_doors = doors_prepare(daemon->doors, reload->next, note_users_problem, reload);
    if (has_doors)
        open_added(daemon, reload);
    if (has_doors && !reload->result.has_failed && !doors_commit(daemon->doors, reload->next))
        add_problem(reload, NULL, "out of memory");
    if (reload->result.has_failed)
        undo(daemon, reload, has_doors);
    return !reload->result.has_failed;
}

/* ---- in force ---- */

static void tell_chain(struct daemon *daemon, const char *what, const char *chain)
{
    EVENT(&daemon->events, EVENT_INFO, what, EVENT_TEXT("chain", chain));
}

/* The slots in the order of the new configuration, those that leave at the end. */
static void sort_slots(struct daemon *daemon, struct reload *reload)
{
    struct slot *slots = reload->slots;
    size_t count = reload->step_count;
    for (size_t i = 0; i < count; i++) {
        const struct step *step = &reload->steps[i];
        slots[i] = step->fate == FATE_ADDED ? (struct slot){.chain = step->chain} : daemon->slots[step->slot];
        reload->chains[i] = step->chain;
    }
    for (size_t i = 0; i < daemon->slot_count; i++) {
        if (config_find_chain(reload->next, chain_conf(daemon->slots[i].chain)->name))
            continue;
        slots[count] = daemon->slots[i];
        slots[count++].is_leaving = true;
    }
    free(daemon->slots);
    free(daemon->chains);
    daemon->slots = slots;
    daemon->slot_count = count;
    daemon->chains = reload->chains;
    daemon->report.chains = daemon->chains;
    daemon->report.chain_count = reload->step_count;
    daemon->report.store = daemon->runtime.store;
    reload->slots = NULL;
    reload->chains = NULL;
}

/* A chain keeps its own configuration, in the tree that is in force; what it gives up stays in the other. */
static void keep_conf(struct config *from, struct config *into, const char *name)
{
    size_t i = 0, k = 0;
    while (strcmp(from->chains[i]->name, name) != 0)
        i++;
    while (strcmp(into->chains[k]->name, name) != 0)
        k++;
    struct chain_conf *running = from->chains[i];
    from->chains[i] = into->chains[k];
    into->chains[k] = running;
}

static void start_step(struct daemon *daemon, struct reload *reload, struct step *step)
{
    char err[256];
    struct reload_result *result = &reload->result;
    switch (step->fate) {
    case FATE_ADDED:
        daemon_warn_if_open(daemon, step->conf);
        tell_chain(daemon, "chain-added", step->conf->name);
        add_text(&result->added, step->conf->name);
        if (chain_start(step->chain, err, sizeof(err)) != 0)
            daemon_failed(daemon, "chain-ended", step->conf->name, err);
        return;
    case FATE_CHANGED:
        daemon_warn_if_open(daemon, step->conf);
        EVENT(&daemon->events, EVENT_INFO, "chain-changed", EVENT_TEXT("chain", step->conf->name),
              EVENT_TEXT("frontend", step->change.frontend ? "new" : "kept"),
              EVENT_TEXT("backend", step->change.backend ? "new" : "kept"));
        add_text(&result->changed, step->conf->name);
        chain_change(step->chain, &step->change);
        return;
    default:
        chain_ping(step->chain); /* it looks who may still be connected */
        result->unchanged++;
    }
}

static void remove_chains(struct daemon *daemon, struct reload *reload)
{
    for (size_t i = reload->step_count; i < daemon->slot_count; i++) {
        const char *name = chain_conf(daemon->slots[i].chain)->name;
        tell_chain(daemon, "chain-removed", name);
        add_text(&reload->result.removed, name);
        chain_stop(daemon->slots[i].chain, daemon->config->daemon.drain_timeout_ms);
    }
}

static void commit(struct daemon *daemon, struct reload *reload)
{
    struct config *before = daemon->config, *next = reload->next;
    struct daemon_conf daemon_conf = next->daemon;
    next->daemon = before->daemon; /* what needs a restart goes on to count */
    before->daemon = daemon_conf;
    for (size_t i = 0; i < reload->step_count; i++)
        if (reload->steps[i].fate != FATE_ADDED)
            keep_conf(before, next, reload->steps[i].conf->name);
    sort_slots(daemon, reload);
    daemon->config = next;
    reload->next = before;
    remove_chains(daemon, reload);
    for (size_t i = 0; i < reload->step_count; i++)
        start_step(daemon, reload, &reload->steps[i]);
}

/* ---- settling ---- */

static int64_t patient_until_ms(const struct daemon *daemon, const struct reload *reload)
{
    return reload->began_ms + daemon->config->daemon.drain_timeout_ms + PATIENCE_MS;
}

int64_t reload_next_ms(const struct daemon *daemon, int64_t now_ms)
{
    if (!daemon->reload || now_ms >= patient_until_ms(daemon, daemon->reload))
        return INT64_MAX;
    return patient_until_ms(daemon, daemon->reload);
}

/* A chain that connects by inproc is ready, and so sends nothing, before what it connects to changes; and
 * changes after it. */
static bool may_proceed(const struct reload *reload, size_t index)
{
    for (size_t i = 0; i < reload->step_count; i++) {
        if (reload->follows[index * reload->step_count + i] &&
            chain_progress(reload->steps[i].chain) != CHAIN_SETTLED)
            return false;
        if (reload->follows[i * reload->step_count + index] &&
            chain_progress(reload->steps[i].chain) == CHAIN_PREPARING)
            return false;
    }
    return true;
}

static bool move_changed(struct daemon *daemon, struct reload *reload)
{
    bool are_settled = true;
    for (size_t i = 0; i < reload->step_count; i++) {
        const struct step *step = &reload->steps[i];
        if (step->fate != FATE_CHANGED || chain_is_stopped(step->chain))
            continue;
        enum chain_progress progress = chain_progress(step->chain);
        are_settled &= progress == CHAIN_SETTLED;
        if (progress != CHAIN_READY || daemon->slots[i].may_proceed ||
            (!may_proceed(reload, i) && clock_now_ms() < patient_until_ms(daemon, reload)))
            continue;
        daemon->slots[i].may_proceed = true;
        chain_proceed(step->chain);
    }
    return are_settled;
}

/* What a chain that is gone has left in the store. */
static void note_kept(struct daemon *daemon, struct reload *reload, struct chain *chain)
{
    const struct chain_conf *conf = chain_conf(chain);
    struct chain_stats stats;
    if (conf->queue.store == STORE_MEMORY || chain_stats(chain, &stats) < 0)
        return;
    if (stats.ledger.queued + stats.ledger.dead > 0) {
        EVENT(&daemon->events, EVENT_WARNING, "queue-kept", EVENT_TEXT("chain", conf->name),
              EVENT_NUMBER("messages", (int64_t)stats.ledger.queued),
              EVENT_NUMBER("dead", (int64_t)stats.ledger.dead));
        add_text(&reload->result.kept, conf->name);
    }
    chain_stats_close(&stats);
}

static bool free_removed(struct daemon *daemon, struct reload *reload)
{
    size_t kept = reload->step_count;
    for (size_t i = kept; i < daemon->slot_count; i++) {
        struct chain *chain = daemon->slots[i].chain;
        if (chain_is_stopped(chain)) {
            note_kept(daemon, reload, chain);
            chain_free(chain);
        } else {
            daemon->slots[kept++] = daemon->slots[i];
        }
    }
    daemon->slot_count = kept;
    return kept == reload->step_count;
}

static void tell_result(struct daemon *daemon, struct reload *reload)
{
    struct reload_result *result = &reload->result;
    result->took_ms = clock_now_ms() - reload->began_ms;
    for (size_t i = 0; i < result->problems.count; i++)
        daemon_failed(daemon, "reload-failed", NULL, result->problems.items[i]);
    for (size_t i = 0; i < result->restart_needed.count && !result->has_failed; i++)
        EVENT(&daemon->events, EVENT_WARNING, "restart-needed",
              EVENT_TEXT("key", result->restart_needed.items[i]));
    if (!result->has_failed) {
        if (doors_file_count(daemon->doors) > 0)
            EVENT(&daemon->events, EVENT_INFO, "users-reloaded",
                  EVENT_NUMBER("files", (int64_t)doors_file_count(daemon->doors)));
        EVENT(&daemon->events, EVENT_INFO, "reloaded", EVENT_NUMBER("added", (int64_t)result->added.count),
              EVENT_NUMBER("changed", (int64_t)result->changed.count),
              EVENT_NUMBER("removed", (int64_t)result->removed.count),
              EVENT_NUMBER("unchanged", (int64_t)result->unchanged),
              EVENT_NUMBER("took_ms", result->took_ms));
    }
    if (daemon->control)
        control_tell_reload(daemon->control, result);
    notify_send("READY=1");
}

void reload_free(struct daemon *daemon)
{
    struct reload *reload = daemon->reload;
    daemon->reload = NULL;
    if (!reload)
        return;
    struct reload_result *result = &reload->result;
    struct text_list *lists[] = {&result->problems, &result->added,          &result->changed,
                                 &result->removed,  &result->restart_needed, &result->kept};
    for (size_t i = 0; i < sizeof(lists) / sizeof(lists[0]); i++)
        close_texts(lists[i]);
    config_free(reload->next);
    daemon->has_secrets |= config_has_secrets(daemon->config);
    daemon_wipe_freed(daemon->has_secrets);
    free(reload->steps);
    free(reload->slots);
    free(reload->chains);
    free(reload->follows);
    free(reload);
}

void reload_move(struct daemon *daemon)
{
    struct reload *reload = daemon->reload;
    if (!reload)
        return;
    bool are_settled = move_changed(daemon, reload);
    if (!free_removed(daemon, reload) || !are_settled)
        return;
    for (size_t i = 0; i < daemon->slot_count; i++)
        daemon->slots[i].may_proceed = false;
    listeners_settle(true);
    doors_settle(daemon->doors);
    tell_result(daemon, reload);
    reload_free(daemon);
}

bool reload_withdraw(struct daemon *daemon)
{
    const struct reload *reload = daemon->reload;
    bool are_settled = true;
    for (size_t i = 0; reload && i < reload->step_count; i++) {
        const struct step *step = &reload->steps[i];
        if (step->fate != FATE_CHANGED || chain_is_stopped(step->chain))
            continue;
        chain_withdraw(step->chain);
        are_settled &= chain_progress(step->chain) == CHAIN_SETTLED;
    }
    return are_settled;
}

/* ---- begin ---- */

static void tell_reloading(void)
{
    char text[64];
    snprintf(text, sizeof(text), "RELOADING=1\nMONOTONIC_USEC=%lld", (long long)clock_now_ms() * 1000);
    notify_send(text);
}

void reload_begin(struct daemon *daemon, const char *cause)
{
    struct reload *reload = calloc(1, sizeof(*reload));
    if (!reload) {
        daemon_failed(daemon, "reload-failed", NULL, "out of memory");
        return;
    }
    daemon->reload = reload;
    *reload = (struct reload){.cause = cause, .began_ms = clock_now_ms()};
    tell_reloading();
    EVENT(&daemon->events, EVENT_INFO, "reloading", EVENT_TEXT("cause", cause),
          EVENT_TEXT("config", daemon->config->path));
    if (daemon->control)
        control_begin_reload(daemon->control);
    struct config_problems problems;
    daemon_wipe_freed(true);
    reload->next = config_load(daemon->config->path, &problems);
    reload->result.has_failed = !reload->next;
    for (size_t i = 0; i < problems.count; i++)
        add_text(&reload->result.problems, problems.lines[i]);
    config_problems_close(&problems);
    if (reload->next && prepare(daemon, reload)) {
        commit(daemon, reload);
        reload_move(daemon);
        return;
    }
    tell_result(daemon, reload);
    reload_free(daemon);
}
