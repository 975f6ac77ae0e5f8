/* SPDX-License-Identifier: MIT
 *
 * Configuration -> policies, doors and audit; see doors.h. A side that asks for nothing gets a door that is
 * never asked; one without `auth`, `allow` and `deny` has no ZAP domain. Never sees a password.
 */
#include "proxyd/doors.h"

#include "auth/address.h"
#include "auth/limits.h"
#include "buffer/clock.h"
#include "proxies/kinds.h"
#include "proxies/socket.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum {
    SIDES = 2,
    DOMAIN_BYTES = 80,
    BUSY_PEERS_MAX = 4096, /* users or addresses that one chain's rate is kept for at once */
    AUDIT_BURST = 20,      /* lines about one address and verdict at once, then one a second */
    AUDIT_PEERS_MAX = 1024,
    SECOND_MS = 1000
};

/* A file of users or keys, shared by all sides that name it. */
struct users_file {
    char *path;
    enum users_kind kind;
    struct users_slot *slot;
    struct users *fresh; /* read again, not yet in force */
    bool is_wanted;      /* by the latest configuration */
    bool is_new;         /* since doors_prepare */
};

struct doors {
    const struct config *config;
    void *zmq;
    int waker;
    struct event_sink events;
    struct doorman doorman;
    struct users_file *files;
    size_t file_count;
    struct zap *zap; /* NULL: no side asks who connects */
    uint64_t turns;  /* of the ZAP thread, at its last sign of life */
    struct limits *audit_limits;
    uint64_t unsaid; /* attempts that the audit has left out since its last line */
};

/* The door of one side of one chain, on its thread. */
struct own_door {
    struct door door; /* what the chain sees of it */
    char domain[DOMAIN_BYTES];
    const struct chain_conf *conf;
    const struct text_list *patterns;
    struct users_view view;          /* no slot: nobody is asked for a name */
    const struct users *users;       /* of this turn */
    char decided_id[USERS_ID_BYTES]; /* the last message's, and who it stands for in `users`; "" = none */
    const char *decided;
    struct limits *limits; /* NULL: no rate */
};

/* ---- what the configuration asks for ---- */

static const struct access_conf *access_of(const struct chain_conf *conf, enum door_side side)
{
    return side == DOOR_FRONTEND ? &conf->frontend.access : &conf->backend.access;
}

static bool asks(const struct access_conf *access)
{
    return access->auth != DOOR_NULL || access->allow.count > 0 || access->deny.count > 0;
}

static void write_domain(char domain[static DOMAIN_BYTES], const struct chain_conf *conf, enum door_side side)
{
    snprintf(domain, DOMAIN_BYTES, "%s/%s", conf->name, side == DOOR_FRONTEND ? "frontend" : "backend");
}

/* The file that this side's names or keys come from; NULL where nobody is asked for either. */
static const char *path_of(const struct doors *doors, const struct access_conf *access)
{
    return access->auth == DOOR_PLAIN   ? doors->config->daemon.users
           : access->auth == DOOR_CURVE ? access->curve_keys
                                        : NULL;
}

static struct users_file *find_file(const struct doors *doors, const struct access_conf *access)
{
    const char *path = path_of(doors, access);
    enum users_kind kind = access->auth == DOOR_CURVE ? USERS_KEYS : USERS_PASSWORDS;
    for (size_t i = 0; path && i < doors->file_count; i++)
        if (doors->files[i].kind == kind && strcmp(doors->files[i].path, path) == 0)
            return &doors->files[i];
    return NULL;
}

/* ---- files ---- */

static struct users *load_file(const struct doors *doors, const struct users_file *file,
                               users_problem_fn *problem, void *context)
{
    return users_load(file->path, file->kind, (size_t)doors->config->daemon.auth_memory_bytes, problem,
                      context);
}

/* Adds the file of one side, unless it is there. */
static bool want_file(struct doors *doors, const struct access_conf *access, users_problem_fn *problem,
                      void *context)
{
    struct users_file *known = find_file(doors, access);
    if (known)
        known->is_wanted = true;
    if (known || !path_of(doors, access))
        return true;
    struct users_file *larger = realloc(doors->files, (doors->file_count + 1) * sizeof(*doors->files));
    struct users_file file = {.path = strdup(path_of(doors, access)),
                              .kind = access->auth == DOOR_CURVE ? USERS_KEYS : USERS_PASSWORDS,
                              .is_wanted = true,
                              .is_new = true};
    doors->files = larger ? larger : doors->files;
    struct users *users = larger && file.path ? load_file(doors, &file, problem, context) : NULL;
    file.slot = users ? users_slot_new(users) : NULL;
    if (file.slot) {
        doors->files[doors->file_count++] = file;
        return true;
    }
    if (users || !larger || !file.path)
        problem(context, "out of memory");
    users_free(users);
    free(file.path);
    return false;
}

static void drop_files(struct doors *doors, bool (*is_over)(const struct users_file *file))
{
    size_t kept = 0;
    for (size_t i = 0; i < doors->file_count; i++) {
        struct users_file *file = &doors->files[i];
        if (!is_over(file)) {
            doors->files[kept++] = *file;
            continue;
        }
        users_slot_free(file->slot);
        users_free(file->fresh);
        free(file->path);
    }
    doors->file_count = kept;
}

static bool is_new(const struct users_file *file)
{
    return file->is_new;
}

static bool is_unwanted(const struct users_file *file)
{
    return !file->is_wanted;
}

size_t doors_file_count(const struct doors *doors)
{
    return doors->file_count;
}

/* ---- policies ---- */

/* The ranges were checked with the configuration. NULL when memory is short. */
static struct address_range *parse_ranges(const struct text_list *texts)
{
    char err[200];
    struct address_range *ranges = calloc(texts->count + 1, sizeof(*ranges));
    for (size_t i = 0; ranges && i < texts->count; i++)
        address_range_parse(&ranges[i], texts->items[i], err, sizeof(err));
    return ranges;
}

/* The door's mechanisms are those of ZAP, in the same order. */
_Static_assert((int)DOOR_NULL == (int)ZAP_NULL && (int)DOOR_PLAIN == (int)ZAP_PLAIN &&
                   (int)DOOR_CURVE == (int)ZAP_CURVE,
               "mechanisms");

static int fill_policy(const struct doors *doors, const struct chain_conf *conf, enum door_side side,
                       char domain[static DOMAIN_BYTES], struct zap_policy *policy)
{
    const struct access_conf *access = access_of(conf, side);
    const struct users_file *file = find_file(doors, access);
    write_domain(domain, conf, side);
    *policy = (struct zap_policy){
        .domain = domain,
        .chain = conf->name,
        .mechanism = (enum zap_mechanism)access->auth,
        .users = file ? file->slot : NULL,
        .patterns = access->users.items,
        .pattern_count = access->users.count,
        .checks_chain = side == DOOR_BACKEND || !kind_has_rep_front(conf->kind),
        .allow = parse_ranges(&access->allow),
        .allow_count = access->allow.count,
        .deny = parse_ranges(&access->deny),
        .deny_count = access->deny.count,
    };
    return policy->allow && policy->deny ? 0 : -1;
}

static int set_policies(struct doors *doors, const struct config *config)
{
    struct zap_policy *policies = calloc(SIDES * config->chain_count, sizeof(*policies));
    char(*domains)[DOMAIN_BYTES] = calloc(SIDES * config->chain_count, sizeof(*domains));
    size_t count = 0;
    int rc = policies && domains ? 0 : -1;
    for (size_t i = 0; i < SIDES * config->chain_count && rc == 0; i++) {
        const struct chain_conf *conf = config->chains[i / SIDES];
        enum door_side side = i % SIDES == 0 ? DOOR_FRONTEND : DOOR_BACKEND;
        if (!asks(access_of(conf, side)))
            continue;
        rc = fill_policy(doors, conf, side, domains[count], &policies[count]);
        count++;
    }
    if (rc == 0)
        rc = zap_set_policies(doors->zap, policies, count);
    for (size_t i = 0; i < count; i++) {
        free((void *)policies[i].allow);
        free((void *)policies[i].deny);
    }
    free(policies);
    free(domains);
    return rc;
}

/* ---- audit ---- */

/* One line for each attempt, until one address becomes a flood of them; what is left out is counted. In the
 * ZAP thread. */
static void audit(void *context, const struct zap_audit *attempt)
{
    struct doors *doors = context;
    char key[100];
    int size = snprintf(key, sizeof(key), "%d %s", (int)attempt->verdict, attempt->address);
    if (size >= (int)sizeof(key))
        size = sizeof(key) - 1;
    if (!limits_take(doors->audit_limits, key, (size_t)size, clock_now_ms())) {
        doors->unsaid++;
        return;
    }
    const struct event_field fields[] = {
        EVENT_TEXT("chain", attempt->chain),
        EVENT_TEXT("user", attempt->user),
        EVENT_TEXT("address", attempt->address),
        EVENT_TEXT("mechanism", attempt->mechanism),
        EVENT_TEXT("verdict", zap_verdict_name(attempt->verdict)),
        EVENT_NUMBER("unsaid", (int64_t)doors->unsaid),
    };
    unsigned count = sizeof(fields) / sizeof(fields[0]);
    doors->events.emit(doors->events.context, attempt->verdict == ZAP_ACCEPTED ? EVENT_INFO : EVENT_WARNING,
                       "auth", fields, doors->unsaid > 0 ? count : count - 1);
    doors->unsaid = 0;
}

/* ---- doors ---- */

static void close_door(struct door *door)
{
    struct own_door *own = (struct own_door *)door;
    users_view_close(&own->view);
    limits_free(own->limits);
    free(own);
}

static bool refresh(struct door *door)
{
    struct own_door *own = (struct own_door *)door;
    const struct users *earlier = own->users;
    if (own->view.slot)
        own->users = users_view_refresh(&own->view);
    if (own->users == earlier)
        return false;
    own->decided_id[0] = '\0';
    own->decided = NULL;
    return true;
}

static bool is_within_rate(struct own_door *own, const char *user, const char *address, int64_t now_ms)
{
    struct address from, peer;
    if (!own->limits)
        return true;
    if (user)
        return limits_take(own->limits, user, strlen(user), now_ms);
    address_parse(&from, address ? address : "", address ? strlen(address) : 0);
    peer = address_group(&from);
    return limits_take(own->limits, &peer, sizeof(peer), now_ms);
}

/* The name that is behind an id, or NULL. Mostly it is the one before, again. */
static const char *decide(struct own_door *own, const char *user_id)
{
    if (!user_id || strcmp(user_id, own->decided_id) == 0)
        return user_id ? own->decided : NULL;
    own->decided =
        users_decide(own->users, user_id, own->conf->name, own->patterns->items, own->patterns->count);
    snprintf(own->decided_id, sizeof(own->decided_id), "%s", user_id);
    return own->decided;
}

static enum door_verdict check(struct door *door, const char *user_id, const char *address, int64_t now_ms,
                               const char **user)
{
    struct own_door *own = (struct own_door *)door;
    *user = NULL;
    if (own->view.slot) {
        *user = decide(own, user_id);
        if (!*user)
            return DOOR_DENIED;
    }
    return is_within_rate(own, *user, address, now_ms) ? DOOR_OPEN : DOOR_RATE_LIMITED;
}

static struct door *open_door(void *context, const struct chain_conf *conf, enum door_side side, char *err,
                              size_t err_size)
{
    const struct doors *doors = context;
    const struct access_conf *access = access_of(conf, side);
    const struct users_file *file = find_file(doors, access);
    struct own_door *own = calloc(1, sizeof(*own));
    if (own && access->rate > 0)
        own->limits = limits_new(access->rate, SECOND_MS, access->burst > 0 ? access->burst : access->rate,
                                 BUSY_PEERS_MAX);
    if (!own || (access->rate > 0 && !own->limits)) {
        snprintf(err, err_size, "out of memory");
        free(own);
        return NULL;
    }
    write_domain(own->domain, conf, side);
    own->conf = conf;
    own->patterns = &access->users;
    own->view.slot = file ? file->slot : NULL;
    own->door = (struct door){
        .mechanism = (enum door_mechanism)access->auth,
        .zap_domain = asks(access) ? own->domain : NULL,
        .curve_secret_key = access->curve_secret_key,
        .checks_messages = access->auth != DOOR_NULL || access->rate > 0,
    };
    refresh(&own->door);
    return &own->door;
}

const struct doorman *doors_doorman(const struct doors *doors)
{
    return &doors->doorman;
}

/* ---- life ---- */

static bool any_side_asks(const struct config *config)
{
    for (size_t i = 0; i < config->chain_count; i++)
        if (asks(&config->chains[i]->frontend.access) || asks(&config->chains[i]->backend.access))
            return true;
    return false;
}

/* Everybody hears "later" until there are policies. */
static int open_zap(struct doors *doors, char *err, size_t err_size)
{
    const struct zap_conf conf = {
        .zmq = doors->zmq,
        .handshake_ms = SOCKET_HANDSHAKE_MS,
        .memory_bytes = (size_t)doors->config->daemon.auth_memory_bytes,
        .waker = doors->waker,
        .audit = audit,
        .audit_context = doors,
    };
    if (!doors->audit_limits)
        doors->audit_limits = limits_new(1, SECOND_MS, AUDIT_BURST, AUDIT_PEERS_MAX);
    if (!doors->audit_limits) {
        snprintf(err, err_size, "out of memory");
        return -1;
    }
    doors->zap = zap_open(&conf, err, err_size);
    return doors->zap ? 0 : -1;
}

bool doors_prepare(struct doors *doors, const struct config *next, users_problem_fn *problem, void *context)
{
    char err[256];
    bool is_good = true;
    for (size_t i = 0; i < doors->file_count; i++)
        doors->files[i].is_wanted = doors->files[i].is_new = false;
    for (size_t i = 0; i < SIDES * next->chain_count; i++)
        is_good &= want_file(doors, access_of(next->chains[i / SIDES], (enum door_side)(i % SIDES)), problem,
                             context);
    for (size_t i = 0; i < doors->file_count; i++) {
        struct users_file *file = &doors->files[i];
        if (!file->is_wanted || file->is_new)
            continue;
        file->fresh = load_file(doors, file, problem, context);
        is_good &= file->fresh != NULL;
    }
    if (is_good && any_side_asks(next) && !doors->zap && open_zap(doors, err, sizeof(err)) != 0) {
        problem(context, err);
        is_good = false;
    }
    if (!is_good)
        doors_revert(doors);
    return is_good;
}

bool doors_commit(struct doors *doors, const struct config *next)
{
    if (doors->zap && set_policies(doors, next) != 0)
        return false;
    for (size_t i = 0; i < doors->file_count; i++) {
        struct users_file *file = &doors->files[i];
        if (file->fresh)
            users_slot_swap(file->slot, file->fresh);
        file->fresh = NULL;
        file->is_new = false;
    }
    doors->config = next;
    return true;
}

void doors_revert(struct doors *doors)
{
    drop_files(doors, is_new);
    for (size_t i = 0; i < doors->file_count; i++) {
        users_free(doors->files[i].fresh);
        doors->files[i].fresh = NULL;
        doors->files[i].is_wanted = true;
    }
}

void doors_settle(struct doors *doors)
{
    drop_files(doors, is_unwanted);
}

/* The first problem is the reason; the configuration's check has told all of them a moment ago. */
struct reason {
    char *text;
    size_t size;
};

static void keep_first(void *context, const char *text)
{
    struct reason *reason = context;
    if (reason->text[0] == '\0')
        snprintf(reason->text, reason->size, "%s", text);
}

struct doors *doors_open(const struct config *config, void *zmq, struct event_sink events, int waker,
                         char *err, size_t err_size)
{
    struct doors *doors = calloc(1, sizeof(*doors));
    struct reason reason = {.text = err, .size = err_size};
    err[0] = '\0';
    if (!doors) {
        keep_first(&reason, "out of memory");
        return NULL;
    }
    *doors = (struct doors){
        .config = config,
        .zmq = zmq,
        .waker = waker,
        .events = events,
        .doorman =
            {.open = open_door, .close = close_door, .refresh = refresh, .check = check, .context = doors},
    };
    if (doors_prepare(doors, config, keep_first, &reason) && doors_commit(doors, config))
        return doors;
    keep_first(&reason, "out of memory");
    doors_close(doors);
    return NULL;
}

static bool is_any(const struct users_file *file)
{
    (void)file;
    return true;
}

void doors_close(struct doors *doors)
{
    if (!doors)
        return;
    zap_close(doors->zap);
    drop_files(doors, is_any);
    limits_free(doors->audit_limits);
    free(doors->files);
    free(doors);
}

bool doors_are_kept(const struct doors *doors, const char **reason)
{
    if (!doors->zap || zap_is_running(doors->zap))
        return true;
    *reason = zap_failure(doors->zap);
    return false;
}

bool doors_turn(struct doors *doors)
{
    if (!doors->zap)
        return true;
    uint64_t turns = zap_turns(doors->zap);
    bool has_turned = turns != doors->turns;
    doors->turns = turns;
    zap_ping(doors->zap);
    return has_turned;
}

void doors_stats(const struct doors *doors, uint64_t totals[static ZAP_VERDICTS])
{
    memset(totals, 0, ZAP_VERDICTS * sizeof(*totals));
    if (doors->zap)
        zap_stats(doors->zap, totals);
}
