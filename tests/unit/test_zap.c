/* links: auth/zap.c auth/zap_frames.c auth/verify.c auth/users.c auth/limits.c auth/secret.c */
/* links: auth/address.c auth/digest.c auth/keygen.c */
/* SPDX-License-Identifier: MIT
 *
 * The ZAP thread between real sockets over loopback: NULL, PLAIN and CURVE, let in and kept out, with the
 * status that libzmq itself reports; reloads; and the death of the thread.
 */
#include "auth/zap.h"

#include "auth/clock.h"
#include "auth/keygen.h"

#include <poll.h>
#include <pthread.h>
#include <semaphore.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <unistd.h>
#include <zmq.h>

#include <cmocka.h>

#ifndef ZMQ_ZAP_ENFORCE_DOMAIN
#define ZMQ_ZAP_ENFORCE_DOMAIN 93 /* known to the library, but not to the header without drafts */
#endif

enum {
    HANDSHAKE_MS = 1000,
    WAIT_MS = 10000,
    MEMORY_BYTES = 64 * 1024 * 1024,
    AUDITS_MAX = 64,
    CLIENTS_MAX = 32
};

/* How the server's monitor says that a handshake ended: a status (200: it succeeded). */
enum { NO_STATUS = -1 };

struct audit {
    enum zap_verdict verdict;
    char chain[32], user[256], address[64], mechanism[8];
};

/* A context with a ZAP handler, and one protected ROUTER with its monitor. */
struct door {
    void *zmq;
    struct zap *zap;
    int waker;
    struct users_slot *users;
    void *server, *monitor, *clients[CLIENTS_MAX];
    char endpoint[128];
    struct keygen_pair server_keys, client_keys;
    atomic_bool holds_malformed; /* the ZAP thread is to wait in its next report of a malformed request… */
    sem_t is_held, may_go;       /* …says so, and goes on when it may */
    pthread_mutex_t mutex;
    struct audit audits[AUDITS_MAX];
    unsigned audit_count;
};

static char *everybody[] = {"*"};

static void remember_audit(void *context, const struct zap_audit *audit)
{
    struct door *door = context;
    pthread_mutex_lock(&door->mutex);
    struct audit *kept = &door->audits[door->audit_count++ % AUDITS_MAX];
    kept->verdict = audit->verdict;
    snprintf(kept->chain, sizeof kept->chain, "%s", audit->chain);
    snprintf(kept->user, sizeof kept->user, "%s", audit->user);
    snprintf(kept->address, sizeof kept->address, "%s", audit->address);
    snprintf(kept->mechanism, sizeof kept->mechanism, "%s", audit->mechanism);
    pthread_mutex_unlock(&door->mutex);
    if (audit->verdict == ZAP_MALFORMED && door->holds_malformed) {
        sem_post(&door->is_held);
        sem_wait(&door->may_go);
    }
}

static struct audit last_audit(struct door *door)
{
    pthread_mutex_lock(&door->mutex);
    assert_true(door->audit_count > 0);
    struct audit audit = door->audits[(door->audit_count - 1) % AUDITS_MAX];
    pthread_mutex_unlock(&door->mutex);
    return audit;
}

static void fail_on_problem(void *context, const char *problem)
{
    (void)context;
    fail_msg("%s", problem);
}

/* Users as "name password chains|-" triples, ended by NULL. */
static struct users *make_users(const char *const *entries)
{
    char text[4096] = "", hash[SECRET_TEXT_BYTES];
    for (; *entries; entries += 3) {
        assert_int_equal(secret_hash_make(hash, entries[1], strlen(entries[1]), SECRET_MEMORY_KIB_MIN, 1), 0);
        size_t size = strlen(text);
        snprintf(text + size, sizeof text - size, "%s:%s%s%s\n", entries[0], hash,
                 *entries[2] == '-' ? "" : ":", *entries[2] == '-' ? "" : entries[2]);
    }
    return users_parse("users", text, strlen(text), USERS_PASSWORDS, MEMORY_BYTES, fail_on_problem, NULL);
}

static struct users *make_keys(const struct keygen_pair *pair)
{
    char text[128];
    snprintf(text, sizeof text, "pi-1:%s\n", pair->public_key);
    return users_parse("keys", text, strlen(text), USERS_KEYS, MEMORY_BYTES, fail_on_problem, NULL);
}

static int set_up(void **state)
{
    struct door *door = calloc(1, sizeof *door);
    char err[256];
    pthread_mutex_init(&door->mutex, NULL);
    sem_init(&door->is_held, 0, 0);
    sem_init(&door->may_go, 0, 0);
    door->zmq = zmq_ctx_new();
    door->waker = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    door->users = users_slot_new(make_users((const char *const[]){"alice", "secret", "-", "bob", "builder",
                                                                  "other", "zo\xc3\xab", "pw", "-", NULL}));
    struct zap_conf conf = {
        .zmq = door->zmq,
        .handshake_ms = HANDSHAKE_MS,
        .memory_bytes = MEMORY_BYTES,
        .waker = door->waker,
        .audit = remember_audit,
        .audit_context = door,
    };
    door->zap = zap_open(&conf, err, sizeof err);
    *state = door;
    return door->zap && keygen_make(&door->server_keys) == 0 && keygen_make(&door->client_keys) == 0 ? 0 : -1;
}

static int tear_down(void **state)
{
    struct door *door = *state;
    for (int i = 0; i < CLIENTS_MAX; i++)
        if (door->clients[i])
            zmq_close(door->clients[i]);
    if (door->server)
        zmq_close(door->server);
    if (door->monitor)
        zmq_close(door->monitor);
    zap_close(door->zap);
    zmq_ctx_term(door->zmq);
    users_slot_free(door->users);
    close(door->waker);
    pthread_mutex_destroy(&door->mutex);
    sem_destroy(&door->is_held);
    sem_destroy(&door->may_go);
    free(door);
    return 0;
}

static void set_int(void *socket, int option, int value)
{
    assert_int_equal(zmq_setsockopt(socket, option, &value, sizeof value), 0);
}

static void set_text(void *socket, int option, const char *value)
{
    assert_int_equal(zmq_setsockopt(socket, option, value, strlen(value)), 0);
}

/* Binds the server on loopback; `domain` NULL: it has none. */
static void bind_server(struct door *door, enum zap_mechanism mechanism, const char *domain,
                        const char *bind_to)
{
    size_t size = sizeof door->endpoint;
    door->server = zmq_socket(door->zmq, ZMQ_ROUTER);
    set_int(door->server, ZMQ_LINGER, 0);
    set_int(door->server, ZMQ_HANDSHAKE_IVL, HANDSHAKE_MS);
    set_int(door->server, ZMQ_IPV6, strchr(bind_to, '[') != NULL);
    if (domain) {
        set_text(door->server, ZMQ_ZAP_DOMAIN, domain);
        set_int(door->server, ZMQ_ZAP_ENFORCE_DOMAIN, 1);
    }
    if (mechanism == ZAP_PLAIN)
        set_int(door->server, ZMQ_PLAIN_SERVER, 1);
    if (mechanism == ZAP_CURVE) {
        set_int(door->server, ZMQ_CURVE_SERVER, 1);
        set_text(door->server, ZMQ_CURVE_SECRETKEY, door->server_keys.secret_key);
    }
    assert_int_equal(zmq_socket_monitor(door->server, "inproc://monitor",
                                        ZMQ_EVENT_HANDSHAKE_SUCCEEDED | ZMQ_EVENT_HANDSHAKE_FAILED_NO_DETAIL |
                                            ZMQ_EVENT_HANDSHAKE_FAILED_PROTOCOL |
                                            ZMQ_EVENT_HANDSHAKE_FAILED_AUTH),
                     0);
    door->monitor = zmq_socket(door->zmq, ZMQ_PAIR);
    set_int(door->monitor, ZMQ_RCVTIMEO, WAIT_MS);
    assert_int_equal(zmq_connect(door->monitor, "inproc://monitor"), 0);
    assert_int_equal(zmq_bind(door->server, bind_to), 0);
    assert_int_equal(zmq_getsockopt(door->server, ZMQ_LAST_ENDPOINT, door->endpoint, &size), 0);
}

/* One policy for the domain "calls". */
static struct zap_policy policy_of(const struct door *door, enum zap_mechanism mechanism)
{
    return (struct zap_policy){
        .domain = "calls",
        .chain = "calls",
        .mechanism = mechanism,
        .users = mechanism == ZAP_PLAIN ? door->users : NULL,
        .patterns = everybody,
        .pattern_count = 1,
    };
}

static void open_door(struct door *door, enum zap_mechanism mechanism)
{
    struct zap_policy policy = policy_of(door, mechanism);
    assert_int_equal(zap_set_policies(door->zap, &policy, 1), 0);
    bind_server(door, mechanism, "calls", "tcp://127.0.0.1:*");
}

/* A client that tear_down closes if the test does not get so far. */
static void *new_client(struct door *door)
{
    int i = 0;
    while (door->clients[i])
        assert_true(++i < CLIENTS_MAX);
    door->clients[i] = zmq_socket(door->zmq, ZMQ_DEALER);
    assert_non_null(door->clients[i]);
    set_int(door->clients[i], ZMQ_LINGER, 0);
    return door->clients[i];
}

static void close_client(struct door *door, void *client)
{
    for (int i = 0; i < CLIENTS_MAX; i++)
        if (door->clients[i] == client)
            door->clients[i] = NULL;
    zmq_close(client);
}

static void *connect_client(struct door *door, const char *name, const char *password)
{
    void *client = new_client(door);
    set_int(client, ZMQ_IPV6, strchr(door->endpoint, '[') != NULL);
    set_int(client, ZMQ_RECONNECT_IVL, 20);
    if (name) {
        set_text(client, ZMQ_PLAIN_USERNAME, name);
        set_text(client, ZMQ_PLAIN_PASSWORD, password);
    }
    assert_int_equal(zmq_connect(client, door->endpoint), 0);
    return client;
}

static void *connect_curve_client(struct door *door, const struct keygen_pair *keys)
{
    void *client = new_client(door);
    set_text(client, ZMQ_CURVE_SERVERKEY, door->server_keys.public_key);
    set_text(client, ZMQ_CURVE_PUBLICKEY, keys->public_key);
    set_text(client, ZMQ_CURVE_SECRETKEY, keys->secret_key);
    assert_int_equal(zmq_connect(client, door->endpoint), 0);
    return client;
}

/* The next end of a handshake: 200, what ZAP said, or NO_STATUS for a failure without one. */
static int next_status(struct door *door)
{
    uint8_t bytes[6];
    uint16_t event;
    int32_t value;
    assert_int_equal(zmq_recv(door->monitor, bytes, sizeof bytes, 0), sizeof bytes);
    memcpy(&event, bytes, sizeof event);
    memcpy(&value, bytes + sizeof event, sizeof value);
    zmq_recv(door->monitor, NULL, 0, 0);
    return event == ZMQ_EVENT_HANDSHAKE_SUCCEEDED     ? 200
           : event == ZMQ_EVENT_HANDSHAKE_FAILED_AUTH ? value
                                                      : NO_STATUS;
}

/* Sends a message to the server and returns the user id that it arrives with, as libzmq keeps it. */
static const char *user_id_of(struct door *door, void *client, char id[USERS_ID_BYTES])
{
    zmq_msg_t routing, body;
    zmq_msg_init(&routing);
    zmq_msg_init(&body);
    set_int(door->server, ZMQ_RCVTIMEO, WAIT_MS);
    assert_int_equal(zmq_send(client, "hello", 5, 0), 5);
    assert_true(zmq_msg_recv(&routing, door->server, 0) > 0);
    assert_int_equal(zmq_msg_recv(&body, door->server, 0), 5);
    const char *found = zmq_msg_gets(&body, "User-Id");
    snprintf(id, USERS_ID_BYTES, "%s", found ? found : "(none)");
    zmq_msg_close(&routing);
    zmq_msg_close(&body);
    return id;
}

static void assert_let_in_as(struct door *door, void *client, const char *name)
{
    char id[USERS_ID_BYTES];
    assert_int_equal(next_status(door), 200);
    user_id_of(door, client, id);
    assert_int_equal(strncmp(id, name, strlen(name)), 0);
    assert_int_equal(id[strlen(name)], *name ? '#' : '\0');
    assert_int_equal(last_audit(door).verdict, ZAP_ACCEPTED);
    close_client(door, client);
}

static void assert_kept_out(struct door *door, void *client, int status, enum zap_verdict verdict)
{
    assert_int_equal(next_status(door), status);
    assert_int_equal(last_audit(door).verdict, verdict);
    close_client(door, client);
}

/* --- NULL --- */

static void null_without_domain_is_not_asked_about(void **state)
{
    struct door *door = *state;
    char id[USERS_ID_BYTES];
    bind_server(door, ZAP_NULL, NULL, "tcp://127.0.0.1:*");
    void *client = connect_client(door, NULL, NULL);
    assert_string_equal(user_id_of(door, client, id), "(none)");
    assert_int_equal(door->audit_count, 0);
    close_client(door, client);
}

static void null_with_domain_is_let_in_without_a_name(void **state)
{
    struct door *door = *state;
    open_door(door, ZAP_NULL);
    assert_let_in_as(door, connect_client(door, NULL, NULL), "");
    assert_string_equal(last_audit(door).mechanism, "none");
    assert_string_equal(last_audit(door).address, "127.0.0.1");
}

static void open_door_with_ranges(struct door *door, const char *allow, const char *deny, const char *bind_to)
{
    char err[160];
    struct address_range allowed, denied;
    struct zap_policy policy = policy_of(door, ZAP_NULL);
    if (allow) {
        assert_int_equal(address_range_parse(&allowed, allow, err, sizeof err), 0);
        policy.allow = &allowed;
        policy.allow_count = 1;
    }
    if (deny) {
        assert_int_equal(address_range_parse(&denied, deny, err, sizeof err), 0);
        policy.deny = &denied;
        policy.deny_count = 1;
    }
    assert_int_equal(zap_set_policies(door->zap, &policy, 1), 0);
    bind_server(door, ZAP_NULL, "calls", bind_to);
}

static void denied_address_is_kept_out(void **state)
{
    struct door *door = *state;
    open_door_with_ranges(door, NULL, "127.0.0.0/8", "tcp://127.0.0.1:*");
    assert_kept_out(door, connect_client(door, NULL, NULL), 400, ZAP_DENIED_ADDRESS);
}

static void allowed_address_is_let_in(void **state)
{
    struct door *door = *state;
    open_door_with_ranges(door, "127.0.0.1", NULL, "tcp://127.0.0.1:*");
    assert_let_in_as(door, connect_client(door, NULL, NULL), "");
}

static void address_outside_allow_is_kept_out(void **state)
{
    struct door *door = *state;
    open_door_with_ranges(door, "10.0.0.0/8", NULL, "tcp://127.0.0.1:*");
    assert_kept_out(door, connect_client(door, NULL, NULL), 400, ZAP_DENIED_ADDRESS);
}

static void deny_wins_over_allow(void **state)
{
    struct door *door = *state;
    open_door_with_ranges(door, "127.0.0.0/8", "127.0.0.1", "tcp://127.0.0.1:*");
    assert_kept_out(door, connect_client(door, NULL, NULL), 400, ZAP_DENIED_ADDRESS);
}

static void ipv4_list_holds_on_an_ipv6_listener(void **state)
{
    struct door *door = *state;
    open_door_with_ranges(door, NULL, "127.0.0.1", "tcp://[::]:*");
    const char *port = strrchr(door->endpoint, ':');
    char endpoint[64];
    snprintf(endpoint, sizeof endpoint, "tcp://127.0.0.1%s", port);
    strcpy(door->endpoint, endpoint);
    assert_kept_out(door, connect_client(door, NULL, NULL), 400, ZAP_DENIED_ADDRESS);
}

static void ipc_peers_have_no_address_to_list(void **state)
{
    struct door *door = *state;
    char endpoint[64];
    snprintf(endpoint, sizeof endpoint, "ipc://@proxyd-test-zap-%d", (int)getpid());
    open_door_with_ranges(door, "10.0.0.0/8", "0.0.0.0/0", endpoint);
    assert_let_in_as(door, connect_client(door, NULL, NULL), "");
    assert_memory_equal(last_audit(door).address, "localhost:", 10);
}

/* --- PLAIN --- */

static void plain_client_meets_a_null_server_nowhere(void **state)
{
    struct door *door = *state;
    open_door(door, ZAP_NULL);
    void *client = connect_client(door, "alice", "secret");
    assert_int_equal(next_status(door), NO_STATUS);
    assert_int_equal(door->audit_count, 0);
    close_client(door, client);
}

static void null_client_meets_a_plain_server_nowhere(void **state)
{
    struct door *door = *state;
    open_door(door, ZAP_PLAIN);
    void *client = connect_client(door, NULL, NULL);
    assert_int_equal(next_status(door), NO_STATUS);
    assert_int_equal(door->audit_count, 0);
    close_client(door, client);
}

static void good_password_is_let_in_by_name(void **state)
{
    struct door *door = *state;
    open_door(door, ZAP_PLAIN);
    assert_let_in_as(door, connect_client(door, "alice", "secret"), "alice");
    struct audit audit = last_audit(door);
    assert_string_equal(audit.user, "alice");
    assert_string_equal(audit.chain, "calls");
    assert_string_equal(audit.mechanism, "plain");
    assert_let_in_as(door, connect_client(door, "zo\xc3\xab", "pw"), "zo\xc3\xab");
}

static void bad_password_and_unknown_user_are_kept_out(void **state)
{
    struct door *door = *state;
    open_door(door, ZAP_PLAIN);
    assert_kept_out(door, connect_client(door, "alice", "secre"), 400, ZAP_DENIED);
    assert_string_equal(last_audit(door).user, "alice");
    assert_kept_out(door, connect_client(door, "alice", "secret2"), 400, ZAP_DENIED);
    assert_kept_out(door, connect_client(door, "alice2", "secret"), 400, ZAP_DENIED);
    uint64_t totals[ZAP_VERDICTS];
    zap_stats(door->zap, totals);
    assert_int_equal(totals[ZAP_DENIED], 3);
    assert_int_equal(totals[ZAP_ACCEPTED], 0);
}

static void name_that_nobody_can_have_is_malformed(void **state)
{
    struct door *door = *state;
    open_door(door, ZAP_PLAIN);
    assert_kept_out(door, connect_client(door, "ali\nce \x1b[2J\xff", "secret"), 400, ZAP_MALFORMED);
    assert_string_equal(last_audit(door).user, "ali?ce ?[2J?");
    void *client = new_client(door);
    assert_int_equal(zmq_setsockopt(client, ZMQ_PLAIN_USERNAME, "alice\0evil", 10), 0);
    set_text(client, ZMQ_PLAIN_PASSWORD, "secret");
    assert_int_equal(zmq_connect(client, door->endpoint), 0);
    assert_kept_out(door, client, 400, ZAP_MALFORMED);
    assert_string_equal(last_audit(door).user, "alice?evil");
}

static void user_without_the_chain_is_told_by_the_frontend(void **state)
{
    struct door *door = *state;
    char id[USERS_ID_BYTES];
    open_door(door, ZAP_PLAIN);
    void *client = connect_client(door, "bob", "builder");
    user_id_of(door, client, id);
    struct users *users = users_slot_hold(door->users);
    assert_null(users_decide(users, id, "calls", everybody, 1));
    assert_string_equal(users_decide(users, id, "other", everybody, 1), "bob");
    users_free(users);
    close_client(door, client);
}

static void user_without_the_chain_is_kept_out_where_nobody_could_tell(void **state)
{
    struct door *door = *state;
    struct zap_policy policy = policy_of(door, ZAP_PLAIN);
    policy.checks_chain = true;
    assert_int_equal(zap_set_policies(door->zap, &policy, 1), 0);
    bind_server(door, ZAP_PLAIN, "calls", "tcp://127.0.0.1:*");
    assert_kept_out(door, connect_client(door, "bob", "builder"), 400, ZAP_DENIED_CHAIN);
    assert_string_equal(last_audit(door).user, "bob");
    assert_let_in_as(door, connect_client(door, "alice", "secret"), "alice");
}

/* --- CURVE --- */

static void curve_without_keys_file_lets_any_key_in(void **state)
{
    struct door *door = *state;
    open_door(door, ZAP_CURVE);
    assert_let_in_as(door, connect_curve_client(door, &door->client_keys), "");
    assert_string_equal(last_audit(door).user, door->client_keys.public_key);
}

static void curve_lets_known_keys_in_and_no_others(void **state)
{
    struct door *door = *state;
    struct zap_policy policy = policy_of(door, ZAP_CURVE);
    struct keygen_pair stranger;
    assert_int_equal(keygen_make(&stranger), 0);
    policy.users = users_slot_new(make_keys(&door->client_keys));
    assert_int_equal(zap_set_policies(door->zap, &policy, 1), 0);
    bind_server(door, ZAP_CURVE, "calls", "tcp://127.0.0.1:*");
    assert_let_in_as(door, connect_curve_client(door, &door->client_keys), "pi-1");
    assert_kept_out(door, connect_curve_client(door, &stranger), 400, ZAP_DENIED);
    assert_string_equal(last_audit(door).user, stranger.public_key);
    assert_int_equal(zap_set_policies(door->zap, NULL, 0), 0);
    users_slot_free(policy.users);
}

static void plain_client_meets_a_curve_server_nowhere(void **state)
{
    struct door *door = *state;
    open_door(door, ZAP_CURVE);
    void *client = connect_client(door, "alice", "secret");
    assert_int_equal(next_status(door), NO_STATUS);
    close_client(door, client);
}

/* --- what changes while it runs --- */

/* libzmq reports no 300: the connection just stays until the handshake limit, and the client comes again. */
static void before_policies_are_set_clients_come_again(void **state)
{
    struct door *door = *state;
    bind_server(door, ZAP_PLAIN, "calls", "tcp://127.0.0.1:*");
    void *client = connect_client(door, "alice", "secret");
    assert_int_not_equal(next_status(door), 400);
    assert_int_equal(last_audit(door).verdict, ZAP_NOT_READY);
    struct zap_policy policy = policy_of(door, ZAP_PLAIN);
    assert_int_equal(zap_set_policies(door->zap, &policy, 1), 0);
    int status;
    while ((status = next_status(door)) != 200)
        assert_int_not_equal(status, 400);
    assert_int_equal(last_audit(door).verdict, ZAP_ACCEPTED);
    close_client(door, client);
}

static void policy_for_another_mechanism_is_not_ready(void **state)
{
    struct door *door = *state;
    struct zap_policy policy = policy_of(door, ZAP_PLAIN);
    assert_int_equal(zap_set_policies(door->zap, &policy, 1), 0);
    bind_server(door, ZAP_NULL, "calls", "tcp://127.0.0.1:*");
    void *client = connect_client(door, NULL, NULL);
    assert_int_not_equal(next_status(door), 200);
    assert_int_equal(last_audit(door).verdict, ZAP_NOT_READY);
    close_client(door, client);
}

static void slowed_client_hears_nothing_and_is_let_in_later(void **state)
{
    struct door *door = *state;
    open_door(door, ZAP_PLAIN);
    for (int i = 0; i < 20; i++) {
        char password[16];
        snprintf(password, sizeof password, "bad%d", i);
        assert_kept_out(door, connect_client(door, "mallory", password), 400, ZAP_DENIED);
    }
    void *client = connect_client(door, "mallory", "bad");
    assert_int_not_equal(next_status(door), 400);
    close_client(door, client);
    assert_let_in_as(door, connect_client(door, "alice", "secret"), "alice");
}

static void revoked_user_is_denied_at_the_next_message_and_at_the_door(void **state)
{
    struct door *door = *state;
    char alice_id[USERS_ID_BYTES], zoe_id[USERS_ID_BYTES];
    open_door(door, ZAP_PLAIN);
    void *alice = connect_client(door, "alice", "secret");
    user_id_of(door, alice, alice_id);
    void *zoe = connect_client(door, "zo\xc3\xab", "pw");
    user_id_of(door, zoe, zoe_id);
    assert_int_equal(next_status(door), 200);
    assert_int_equal(next_status(door), 200);

    struct users *users = users_slot_hold(door->users);
    const struct user *kept = users_find(users, "zo\xc3\xab", 4);
    struct users *changed = make_users((const char *const[]){"alice", "changed", "-", NULL});
    assert_non_null(kept);
    assert_non_null(users_decide(users, alice_id, "calls", everybody, 1));
    users_free(users);
    users_slot_swap(door->users, changed);

    users = users_slot_hold(door->users);
    assert_null(users_decide(users, user_id_of(door, alice, alice_id), "calls", everybody, 1));
    assert_null(users_decide(users, user_id_of(door, zoe, zoe_id), "calls", everybody, 1));
    users_free(users);
    close_client(door, alice);
    close_client(door, zoe);

    assert_kept_out(door, connect_client(door, "alice", "secret"), 400, ZAP_DENIED);
    assert_let_in_as(door, connect_client(door, "alice", "changed"), "alice");
}

/* --- the handler itself --- */

/* Asks as libzmq does, with any frames. */
static void send_frames(void *client, const struct zap_bytes *frames, size_t count)
{
    for (size_t i = 0; i < count; i++)
        assert_true(zmq_send(client, frames[i].data, frames[i].size, i + 1 < count ? ZMQ_SNDMORE : 0) >= 0);
}

/* The status of the next reply, which must be a whole one. */
static const char *receive_status(void *client, char status[16])
{
    char buffer[256];
    int more;
    size_t more_size = sizeof more;
    for (int i = 0; i < ZAP_REPLY_FRAMES; i++) {
        int size = zmq_recv(client, i == 3 ? status : buffer, i == 3 ? 15 : sizeof buffer, 0);
        assert_true(size >= 0);
        if (i == 3)
            status[size] = '\0';
    }
    assert_int_equal(zmq_getsockopt(client, ZMQ_RCVMORE, &more, &more_size), 0);
    assert_int_equal(more, 0);
    return status;
}

static void *connect_to_handler(struct door *door)
{
    void *client = new_client(door);
    set_int(client, ZMQ_RCVTIMEO, WAIT_MS);
    assert_int_equal(zmq_connect(client, "inproc://zeromq.zap.01"), 0);
    return client;
}

static const char *ask_with_frames(struct door *door, const struct zap_bytes *frames, size_t count,
                                   char status[16])
{
    void *client = connect_to_handler(door);
    send_frames(client, frames, count);
    receive_status(client, status);
    close_client(door, client);
    return status;
}

#define TEXT(text)                                                                                           \
    {                                                                                                        \
        (text), sizeof(text) - 1                                                                             \
    }

static void frames_that_are_no_request_are_refused(void **state)
{
    struct door *door = *state;
    char status[16];
    open_door(door, ZAP_PLAIN);
    const struct zap_bytes good[] = {TEXT(""),         TEXT("1.0"), TEXT("7"),     TEXT("calls"),
                                     TEXT("10.0.0.9"), TEXT(""),    TEXT("PLAIN"), TEXT("alice"),
                                     TEXT("secret"),   TEXT(""),    TEXT("")};
    assert_string_equal(ask_with_frames(door, good, 9, status), "200");
    for (size_t count = 1; count < 9; count++)
        assert_string_equal(ask_with_frames(door, good, count, status), "400");
    assert_string_equal(ask_with_frames(door, good, 10, status), "400");
    assert_string_equal(ask_with_frames(door, good, 11, status), "400");
    struct zap_bytes evil[9];
    memcpy(evil, good, sizeof evil);
    evil[7] = (struct zap_bytes)TEXT("");
    assert_string_equal(ask_with_frames(door, evil, 9, status), "400");
    evil[7] = (struct zap_bytes)TEXT("alice");
    evil[8] = (struct zap_bytes)TEXT("");
    assert_string_equal(ask_with_frames(door, evil, 9, status), "400");
    evil[8] = (struct zap_bytes)TEXT("secret");
    evil[3] = (struct zap_bytes)TEXT("call");
    assert_string_equal(ask_with_frames(door, evil, 9, status), "300");
}

static void user_changed_while_being_verified_must_come_again(void **state)
{
    struct door *door = *state;
    char status[16];
    open_door(door, ZAP_PLAIN);
    const struct zap_bytes good[] = {TEXT(""), TEXT("1.0"),   TEXT("7"),     TEXT("calls"), TEXT("10.0.0.9"),
                                     TEXT(""), TEXT("PLAIN"), TEXT("alice"), TEXT("secret")};
    void *client = connect_to_handler(door);
    door->holds_malformed = true;
    send_frames(client, good, 3); /* malformed: nothing is judged before both others are there */
    sem_wait(&door->is_held);
    send_frames(client, good, 9);
    /* in the same turn, so the first is with the worker, or is back and not seen */
    send_frames(client, good, 3);
    sem_post(&door->may_go);
    sem_wait(&door->is_held);
    users_slot_swap(door->users, make_users((const char *const[]){"alice", "changed", "-", NULL}));
    sem_post(&door->may_go);
    assert_string_equal(receive_status(client, status), "400");
    assert_string_equal(receive_status(client, status), "400");
    assert_string_equal(receive_status(client, status), "300");
    assert_int_equal(last_audit(door).verdict, ZAP_NOT_READY);
}

static void second_handler_is_refused(void **state)
{
    struct door *door = *state;
    char err[256] = "";
    struct zap_conf conf = {
        .zmq = door->zmq, .handshake_ms = 1000, .memory_bytes = MEMORY_BYTES, .waker = -1};
    assert_null(zap_open(&conf, err, sizeof err));
    assert_non_null(strstr(err, "Address already in use"));
}

static void memory_that_cannot_be_had_is_said_at_start(void **state)
{
    struct door *door = *state;
    char err[256] = "";
    struct zap_conf conf = {
        .zmq = door->zmq, .handshake_ms = 1000, .memory_bytes = SIZE_MAX / 2, .waker = -1};
    assert_null(zap_open(&conf, err, sizeof err));
    assert_non_null(strstr(err, "auth_memory"));
}

static void ping_turns_the_loop(void **state)
{
    struct door *door = *state;
    uint64_t before = zap_turns(door->zap);
    int64_t deadline_ms = clock_now_ms() + WAIT_MS;
    zap_ping(door->zap);
    while (zap_turns(door->zap) == before && clock_now_ms() < deadline_ms)
        sched_yield();
    assert_true(zap_turns(door->zap) > before);
}

static void death_of_the_thread_is_noticed(void **state)
{
    struct door *door = *state;
    struct pollfd waker = {.fd = door->waker, .events = POLLIN};
    assert_true(zap_is_running(door->zap));
    assert_string_equal(zap_failure(door->zap), "");
    zmq_ctx_shutdown(door->zmq);
    assert_int_equal(poll(&waker, 1, WAIT_MS), 1);
    assert_false(zap_is_running(door->zap));
    assert_non_null(strstr(zap_failure(door->zap), "Context was terminated"));
}

static void closing_leaves_nobody_waiting(void **state)
{
    struct door *door = *state;
    open_door(door, ZAP_PLAIN);
    for (int i = 0; i < 8; i++)
        connect_client(door, "alice", "bad");
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, set_up, tear_down)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(null_without_domain_is_not_asked_about),
        TEST(null_with_domain_is_let_in_without_a_name),
        TEST(denied_address_is_kept_out),
        TEST(allowed_address_is_let_in),
        TEST(address_outside_allow_is_kept_out),
        TEST(deny_wins_over_allow),
        TEST(ipv4_list_holds_on_an_ipv6_listener),
        TEST(ipc_peers_have_no_address_to_list),
        TEST(plain_client_meets_a_null_server_nowhere),
        TEST(null_client_meets_a_plain_server_nowhere),
        TEST(good_password_is_let_in_by_name),
        TEST(bad_password_and_unknown_user_are_kept_out),
        TEST(name_that_nobody_can_have_is_malformed),
        TEST(user_without_the_chain_is_told_by_the_frontend),
        TEST(user_without_the_chain_is_kept_out_where_nobody_could_tell),
        TEST(curve_without_keys_file_lets_any_key_in),
        TEST(curve_lets_known_keys_in_and_no_others),
        TEST(plain_client_meets_a_curve_server_nowhere),
        TEST(before_policies_are_set_clients_come_again),
        TEST(policy_for_another_mechanism_is_not_ready),
        TEST(slowed_client_hears_nothing_and_is_let_in_later),
        TEST(revoked_user_is_denied_at_the_next_message_and_at_the_door),
        TEST(frames_that_are_no_request_are_refused),
        TEST(user_changed_while_being_verified_must_come_again),
        TEST(second_handler_is_refused),
        TEST(memory_that_cannot_be_had_is_said_at_start),
        TEST(ping_turns_the_loop),
        TEST(death_of_the_thread_is_noticed),
        TEST(closing_leaves_nobody_waiting),
    };
    return cmocka_run_group_tests_name("zap", tests, NULL, NULL);
}
