/* SPDX-License-Identifier: MIT
 *
 * The ZAP thread; see zap.h. It owns the ROUTER and every caller, the request of a connection until it is
 * answered. Replies find their way by the ROUTER's envelope, because libzmq gives every request the id "1".
 */
#include "auth/zap.h"

#include "auth/clock.h"
#include "auth/secret.h"
#include "auth/verify.h"

#include <errno.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <unistd.h>
#include <zmq.h>

enum {
    BATCH = 64,      /* requests in one turn */
    MARGIN_MS = 500, /* an answer must arrive this long before the handshake limit */
    TEXT_BYTES = 256,
};

/* A request. Its frames stay where they are: `request` points into them. */
struct caller {
    struct verify_waiter waiter;
    zmq_msg_t routing;
    zmq_msg_t frames[ZAP_REQUEST_FRAMES_MAX];
    size_t frame_count; /* without the routing id; one more than fit when there were too many */
    struct zap_request request;
    struct address address;
};

struct policies {
    size_t count;
    struct zap_policy items[];
};

struct zap {
    struct zap_conf conf;
    void *socket;
    struct verify *verify;
    int eventfd;
    pthread_t thread;
    bool is_started;
    atomic_bool is_stopping, is_running;
    _Atomic uint64_t turns, totals[ZAP_VERDICTS];
    char failure[TEXT_BYTES];
    pthread_mutex_t mutex; /* guards `policies` */
    struct policies *policies;
};

static const struct {
    const char *name, *status, *text;
} verdicts[ZAP_VERDICTS] = {
    [ZAP_ACCEPTED] = {"accepted", "200", "OK"},
    [ZAP_DENIED] = {"denied", "400", "denied"},
    [ZAP_DENIED_ADDRESS] = {"denied-address", "400", "denied"},
    [ZAP_DENIED_CHAIN] = {"denied-chain", "400", "denied"},
    [ZAP_MALFORMED] = {"malformed", "400", "denied"},
    [ZAP_SLOWED] = {"slowed", "300", "try again"},
    [ZAP_OVERLOADED] = {"overloaded", "300", "try again"},
    [ZAP_NOT_READY] = {"not-ready", "300", "try again"},
};

const char *zap_verdict_name(enum zap_verdict verdict)
{
    return verdicts[verdict].name;
}

/* --- policies --- */

static void policies_free(struct policies *policies)
{
    for (size_t i = 0; policies && i < policies->count; i++) {
        struct zap_policy *policy = &policies->items[i];
        for (size_t k = 0; policy->patterns && k < policy->pattern_count; k++)
            free(policy->patterns[k]);
        free((void *)policy->patterns);
        free((void *)policy->domain);
        free((void *)policy->chain);
        free((void *)policy->allow);
        free((void *)policy->deny);
    }
    free(policies);
}

static void *copy(const void *items, size_t size)
{
    void *made = malloc(size ? size : 1);
    if (made && size)
        memcpy(made, items, size);
    return made;
}

static int copy_policy(struct zap_policy *to, const struct zap_policy *from)
{
    char **patterns = calloc(from->pattern_count + 1, sizeof *patterns);
    *to = *from;
    to->patterns = patterns;
    to->domain = strdup(from->domain);
    to->chain = strdup(from->chain);
    to->allow = copy(from->allow, from->allow_count * sizeof *from->allow);
    to->deny = copy(from->deny, from->deny_count * sizeof *from->deny);
    if (!patterns || !to->domain || !to->chain || !to->allow || !to->deny)
        return -1;
    for (size_t i = 0; i < from->pattern_count; i++)
        if (!(patterns[i] = strdup(from->patterns[i])))
            return -1;
    return 0;
}

static struct policies *policies_copy(const struct zap_policy *policies, size_t count)
{
    struct policies *made = calloc(1, sizeof *made + count * sizeof *made->items);
    for (size_t i = 0; made && i < count; i++) {
        made->count = i + 1;
        if (copy_policy(&made->items[i], &policies[i])) {
            policies_free(made);
            return NULL;
        }
    }
    return made;
}

int zap_set_policies(struct zap *zap, const struct zap_policy *policies, size_t count)
{
    struct policies *made = policies_copy(policies, count);
    if (!made)
        return -1;
    pthread_mutex_lock(&zap->mutex);
    struct policies *old = zap->policies;
    zap->policies = made;
    pthread_mutex_unlock(&zap->mutex);
    policies_free(old);
    return 0;
}

/* The policy that this request falls under, or NULL. With the mutex held. */
static const struct zap_policy *find_policy(const struct zap *zap, const struct zap_request *request)
{
    for (size_t i = 0; i < zap->policies->count; i++) {
        const struct zap_policy *policy = &zap->policies->items[i];
        if (strlen(policy->domain) == request->domain.size &&
            memcmp(policy->domain, request->domain.data, request->domain.size) == 0)
            return policy->mechanism == request->mechanism ? policy : NULL;
    }
    return NULL;
}

static bool is_in_any(const struct address *address, const struct address_range *ranges, size_t count)
{
    for (size_t i = 0; i < count; i++)
        if (address_is_in(address, &ranges[i]))
            return true;
    return false;
}

/* Local peers have no address: the mode of an ipc socket's directory is their list. */
static bool admits_address(const struct zap_policy *policy, const struct address *address)
{
    if (address->family == ADDRESS_LOCAL)
        return true;
    if (address->family == ADDRESS_NONE)
        return policy->allow_count == 0 && policy->deny_count == 0;
    return !is_in_any(address, policy->deny, policy->deny_count) &&
           (policy->allow_count == 0 || is_in_any(address, policy->allow, policy->allow_count));
}

/* --- callers --- */

static void wipe_password(struct caller *caller)
{
    if (caller->request.password.size)
        secret_wipe((void *)caller->request.password.data, caller->request.password.size);
    caller->request.password.size = 0;
}

static void free_caller(struct caller *caller)
{
    wipe_password(caller);
    zmq_msg_close(&caller->routing);
    for (size_t i = 0; i < caller->frame_count && i < ZAP_REQUEST_FRAMES_MAX; i++)
        zmq_msg_close(&caller->frames[i]);
    free(caller);
}

/* Bytes as a text that a log can take. */
static void write_printable(char text[static TEXT_BYTES], struct zap_bytes bytes)
{
    size_t size = bytes.size < TEXT_BYTES - 1 ? bytes.size : TEXT_BYTES - 1;
    if (size)
        memcpy(text, bytes.data, size);
    text[size] = '\0';
    if (users_name_is_valid(text, size))
        return;
    for (size_t i = 0; i < size; i++)
        if (text[i] < 0x20 || text[i] > 0x7e)
            text[i] = '?';
}

static void write_user(char text[static TEXT_BYTES], const struct caller *caller, const struct user *user)
{
    if (user)
        snprintf(text, TEXT_BYTES, "%s", user->name);
    else if (caller->request.key.size)
        zmq_z85_encode(text, caller->request.key.data, caller->request.key.size);
    else
        write_printable(text, caller->request.user);
}

static void send_reply(struct zap *zap, struct caller *caller, enum zap_verdict verdict, const char *user_id)
{
    struct zap_bytes reply[ZAP_REPLY_FRAMES];
    zap_reply_write(reply, caller->request.id, verdicts[verdict].status, verdicts[verdict].text, user_id);
    /* A connection that has gone meanwhile takes its route along: the ROUTER drops the reply. That is right. */
    if (zmq_msg_send(&caller->routing, zap->socket, ZMQ_DONTWAIT | ZMQ_SNDMORE) < 0)
        return;
    for (int i = 0; i < ZAP_REPLY_FRAMES; i++)
        zmq_send(zap->socket, reply[i].data, reply[i].size,
                 ZMQ_DONTWAIT | (i + 1 < ZAP_REPLY_FRAMES ? ZMQ_SNDMORE : 0));
}

/* Reports, replies and releases. `policy` and `user` may be NULL. */
static void conclude(struct zap *zap, struct caller *caller, enum zap_verdict verdict,
                     const struct zap_policy *policy, const struct user *user)
{
    char user_id[USERS_ID_BYTES] = "", name[TEXT_BYTES], address[TEXT_BYTES];
    if (user && verdict == ZAP_ACCEPTED)
        users_write_id(user, user_id);
    zap->totals[verdict]++;
    if (zap->conf.audit) {
        write_user(name, caller, user);
        write_printable(address, caller->request.address);
        zap->conf.audit(zap->conf.audit_context,
                        &(struct zap_audit){
                            .verdict = verdict,
                            .chain = policy ? policy->chain : "",
                            .user = name,
                            .address = address,
                            .mechanism = zap_mechanism_name(caller->request.mechanism),
                        });
    }
    send_reply(zap, caller, verdict, user_id);
    free_caller(caller);
}

static void admit(struct zap *zap, struct caller *caller, const struct zap_policy *policy,
                  const struct user *user)
{
    bool is_refused =
        policy->checks_chain && !users_grants(user, policy->chain, policy->patterns, policy->pattern_count);
    conclude(zap, caller, is_refused ? ZAP_DENIED_CHAIN : ZAP_ACCEPTED, policy, user);
}

/* After the password was found right: the user as the file has it now. */
static void admit_verified(struct zap *zap, struct caller *caller, const struct zap_policy *policy,
                           const struct users *users)
{
    const struct user *user = users_find(users, caller->request.user.data, caller->request.user.size);
    if (user && user->fingerprint == caller->waiter.fingerprint)
        admit(zap, caller, policy, user);
    else
        conclude(zap, caller, ZAP_NOT_READY, policy, NULL); /* changed under our hands: ask again */
}

static void judge_plain(struct zap *zap, struct caller *caller, const struct zap_policy *policy,
                        const struct users *users, int64_t now_ms)
{
    const struct zap_request *request = &caller->request;
    if (!users_name_is_valid(request->user.data, request->user.size)) {
        conclude(zap, caller, ZAP_MALFORMED, policy, NULL);
        return;
    }
    caller->waiter.address = address_group(&caller->address);
    enum verify_verdict verdict =
        verify_ask(zap->verify, users, request->user.data, request->user.size, request->password.data,
                   request->password.size, &caller->waiter, now_ms);
    wipe_password(caller);
    if (verdict == VERIFY_GOOD)
        admit_verified(zap, caller, policy, users);
    else if (verdict != VERIFY_WAIT)
        conclude(zap, caller, ZAP_OVERLOADED, policy, NULL);
}

static void judge_curve(struct zap *zap, struct caller *caller, const struct zap_policy *policy,
                        const struct users *users)
{
    const struct user *user = users ? users_find_key(users, caller->request.key.data) : NULL;
    if (user)
        admit(zap, caller, policy, user);
    else
        conclude(zap, caller, users ? ZAP_DENIED : ZAP_ACCEPTED, policy, NULL);
}

static void judge_by_policy(struct zap *zap, struct caller *caller, const struct zap_policy *policy,
                            int64_t now_ms)
{
    if (!admits_address(policy, &caller->address)) {
        conclude(zap, caller, ZAP_DENIED_ADDRESS, policy, NULL);
        return;
    }
    struct users *users = policy->users ? users_slot_hold(policy->users) : NULL;
    switch (policy->mechanism) {
    case ZAP_NULL:
        conclude(zap, caller, ZAP_ACCEPTED, policy, NULL);
        break;
    case ZAP_PLAIN:
        if (users)
            judge_plain(zap, caller, policy, users, now_ms);
        else
            conclude(zap, caller, ZAP_NOT_READY, policy, NULL);
        break;
    case ZAP_CURVE:
        judge_curve(zap, caller, policy, users);
        break;
    }
    users_free(users);
}

static void judge(struct zap *zap, struct caller *caller, int64_t now_ms)
{
    struct zap_bytes frames[ZAP_REQUEST_FRAMES_MAX];
    for (size_t i = 0; i < caller->frame_count && i < ZAP_REQUEST_FRAMES_MAX; i++)
        frames[i] = (struct zap_bytes){zmq_msg_data(&caller->frames[i]), zmq_msg_size(&caller->frames[i])};
    if (caller->frame_count > ZAP_REQUEST_FRAMES_MAX ||
        zap_request_parse(&caller->request, frames, caller->frame_count)) {
        conclude(zap, caller, ZAP_MALFORMED, NULL, NULL);
        return;
    }
    address_parse(&caller->address, caller->request.address.data, caller->request.address.size);
    pthread_mutex_lock(&zap->mutex);
    const struct zap_policy *policy = find_policy(zap, &caller->request);
    if (policy)
        judge_by_policy(zap, caller, policy, now_ms);
    else
        conclude(zap, caller, ZAP_NOT_READY, NULL, NULL);
    pthread_mutex_unlock(&zap->mutex);
}

/* Those whom the worker, or their deadline, has set free. */
static void answer_waiters(struct zap *zap)
{
    static const enum zap_verdict refusals[] = {
        [VERIFY_BAD] = ZAP_DENIED,
        [VERIFY_SLOWED] = ZAP_SLOWED,
        [VERIFY_OVERLOADED] = ZAP_OVERLOADED,
    };
    struct verify_waiter *waiter;
    while ((waiter = verify_take(zap->verify))) {
        struct caller *caller = (struct caller *)(void *)waiter; /* its first member */
        pthread_mutex_lock(&zap->mutex);
        const struct zap_policy *policy = find_policy(zap, &caller->request);
        struct users *users = policy && policy->users ? users_slot_hold(policy->users) : NULL;
        if (waiter->verdict != VERIFY_GOOD)
            conclude(zap, caller, refusals[waiter->verdict], policy, NULL);
        else if (users)
            admit_verified(zap, caller, policy, users);
        else
            conclude(zap, caller, ZAP_NOT_READY, NULL, NULL);
        users_free(users);
        pthread_mutex_unlock(&zap->mutex);
    }
}

/* --- the loop --- */

/* Takes one whole message off the socket. 1 with a caller (NULL: no memory for it), 0 for none, -1 with
 * errno. */
static int receive(struct zap *zap, struct caller **taken)
{
    zmq_msg_t frame;
    zmq_msg_init(&frame);
    *taken = NULL;
    if (zmq_msg_recv(&frame, zap->socket, ZMQ_DONTWAIT) < 0) {
        zmq_msg_close(&frame);
        return errno == EAGAIN || errno == EINTR ? 0 : -1;
    }
    struct caller *caller = calloc(1, sizeof *caller);
    bool has_more = zmq_msg_more(&frame);
    if (caller) {
        zmq_msg_init(&caller->routing);
        zmq_msg_move(&caller->routing, &frame);
    }
    while (has_more && zmq_msg_recv(&frame, zap->socket, ZMQ_DONTWAIT) >= 0) {
        has_more = zmq_msg_more(&frame);
        if (!caller || caller->frame_count > ZAP_REQUEST_FRAMES_MAX)
            continue;
        if (caller->frame_count < ZAP_REQUEST_FRAMES_MAX) {
            zmq_msg_init(&caller->frames[caller->frame_count]);
            zmq_msg_move(&caller->frames[caller->frame_count], &frame);
        }
        caller->frame_count++;
    }
    zmq_msg_close(&frame);
    *taken = caller;
    return 1;
}

/* One turn: -1 with errno when the socket is no more. */
static int turn(struct zap *zap)
{
    zmq_pollitem_t items[] = {
        {.socket = zap->socket, .events = ZMQ_POLLIN},
        {.fd = zap->eventfd, .events = ZMQ_POLLIN},
    };
    eventfd_t count;
    int64_t wait_ms = verify_tick(zap->verify, clock_now_ms());
    answer_waiters(zap);
    if (zmq_poll(items, 2, wait_ms) < 0 && errno != EINTR)
        return -1;
    if (items[1].revents)
        eventfd_read(zap->eventfd, &count);
    int64_t now_ms = clock_now_ms();
    int rc = 1;
    for (int i = 0; i < BATCH && rc > 0; i++) {
        struct caller *caller;
        rc = receive(zap, &caller);
        if (caller)
            judge(zap, caller, now_ms);
    }
    zap->turns++;
    return rc < 0 ? -1 : 0;
}

static void *run(void *context)
{
    struct zap *zap = context;
    pthread_setname_np(pthread_self(), "auth-zap");
    while (!zap->is_stopping && turn(zap) == 0)
        ;
    if (!zap->is_stopping) {
        snprintf(zap->failure, sizeof zap->failure, "the ZAP socket failed: %s", zmq_strerror(errno));
        zap->is_running = false;
        if (zap->conf.waker >= 0)
            eventfd_write(zap->conf.waker, 1);
    }
    return NULL;
}

/* A ROUTER that listens where libzmq asks, without limits of its own: each connection asks once. */
static void *open_socket(void *context)
{
    int none = 0;
    void *socket = zmq_socket(context, ZMQ_ROUTER);
    if (socket && zmq_setsockopt(socket, ZMQ_LINGER, &none, sizeof none) == 0 &&
        zmq_setsockopt(socket, ZMQ_SNDHWM, &none, sizeof none) == 0 &&
        zmq_setsockopt(socket, ZMQ_RCVHWM, &none, sizeof none) == 0 &&
        zmq_bind(socket, "inproc://zeromq.zap.01") == 0)
        return socket;
    int error = errno;
    if (socket)
        zmq_close(socket);
    errno = error;
    return NULL;
}

static int start(struct zap *zap)
{
    if (verify_start(zap->verify, zap->eventfd))
        return -1;
    zap->is_running = true;
    errno = pthread_create(&zap->thread, NULL, run, zap);
    zap->is_started = errno == 0;
    return zap->is_started ? 0 : -1;
}

struct zap *zap_open(const struct zap_conf *conf, char *err, size_t err_size)
{
    struct zap *zap = calloc(1, sizeof *zap);
    if (!zap) {
        snprintf(err, err_size, "out of memory");
        return NULL;
    }
    zap->conf = *conf;
    pthread_mutex_init(&zap->mutex, NULL);
    int64_t patience_ms =
        conf->handshake_ms > 2 * MARGIN_MS ? conf->handshake_ms - MARGIN_MS : conf->handshake_ms / 2;
    zap->eventfd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    zap->policies = policies_copy(NULL, 0);
    zap->verify = verify_new(patience_ms, conf->memory_bytes);
    if (!zap->policies || !zap->verify)
        snprintf(err, err_size, "cannot reserve auth_memory, %zu bytes", conf->memory_bytes);
    else if (zap->eventfd < 0 || !(zap->socket = open_socket(conf->zmq)) || start(zap) < 0)
        snprintf(err, err_size, "cannot start the ZAP handler: %s", zmq_strerror(errno));
    else
        return zap;
    zap_close(zap);
    return NULL;
}

void zap_stats(const struct zap *zap, uint64_t totals[static ZAP_VERDICTS])
{
    for (int i = 0; i < ZAP_VERDICTS; i++)
        totals[i] = zap->totals[i];
}

bool zap_is_running(const struct zap *zap)
{
    return zap->is_running;
}

const char *zap_failure(const struct zap *zap)
{
    return zap->is_running ? "" : zap->failure;
}

void zap_ping(struct zap *zap)
{
    eventfd_write(zap->eventfd, 1);
}

uint64_t zap_turns(const struct zap *zap)
{
    return zap->turns;
}

void zap_close(struct zap *zap)
{
    if (!zap)
        return;
    if (zap->is_started) {
        zap->is_stopping = true;
        zap_ping(zap);
        pthread_join(zap->thread, NULL);
    }
    if (zap->verify) {
        verify_stop(zap->verify);
        verify_tick(zap->verify, INT64_MAX);
        for (struct verify_waiter *waiter; (waiter = verify_take(zap->verify));)
            free_caller((struct caller *)(void *)waiter);
        verify_free(zap->verify);
    }
    if (zap->socket)
        zmq_close(zap->socket);
    if (zap->eventfd >= 0)
        close(zap->eventfd);
    policies_free(zap->policies);
    pthread_mutex_destroy(&zap->mutex);
    free(zap);
}
