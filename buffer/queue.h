/* SPDX-License-Identifier: MIT
 *
 * A bounded queue of messages between a frontend and a backend, the same for every store.
 *
 * The life of an item; it is on exactly one of these lists, and the list is its state:
 *
 *              put                 lease                 ack
 *    (caller) -----> WAITING ----------------> LEASED ----------> gone, delivered
 *                      ^  |                     |  |
 *                      |  | remove              |  | remove: failed, expired, dropped
 *                      |  v                     |  v
 *                 nack |  gone                  |  gone
 *                      +---- RETRYING <---------+
 *                                               | bury
 *                                               +----> DEAD (kept, listed)
 *
 * One thread owns a queue and makes all calls. No call blocks: what a disk must do is done by the store
 * thread, which wakes the owner. All times are monotonic milliseconds given by the caller.
 *
 * How a loop uses a queue, whatever its store. It waits for queue_fd() to be readable, besides its sockets
 * and its deadlines; woken by it, it calls queue_settle. In each turn:
 *
 *     take messages:      while queue_can_take(): queue_item_new, fill, queue_put
 *     answer for them:    while queue_next_stored(): ack, or answer store-failed and queue_remove
 *                         (queue_next_stored also takes in whatever else the store has answered, and makes
 *                         the callbacks of the questions below; so it is called in each turn)
 *     deliver:            while there is room in the window: queue_lease
 *     the last call:      queue_commit
 *
 * A disk queue keeps only its head in memory. An item that queue_next_stored gave out may be AWAY: on the
 * medium only. Then the pointer is good until the next call of queue_next_stored or queue_commit, unless its
 * envelope was left in it: such an item stays, with whatever its owner has put in the place of its body, until
 * a queue_commit after its envelope was closed, and is the same one again, body and all, should its turn come
 * before. No lease may come although something is queued, while more is read or while many deletes wait for
 * their commit: queue_fd() tells when to try again.
 */
#ifndef PROXYD_BUFFER_QUEUE_H
#define PROXYD_BUFFER_QUEUE_H

#include "buffer/list.h"
#include "buffer/message.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct queue;

enum queue_full_policy { QUEUE_REJECT, QUEUE_DROP_OLDEST, QUEUE_DROP_NEWEST, QUEUE_BLOCK };

/* Bounds on waiting, retrying and leased items together. 0 means no bound. */
struct queue_limits {
    uint64_t max_messages;
    uint64_t max_bytes; /* payload of all frames */
    bool is_ordered;    /* an item waiting for its retry holds back everything behind it */
};

enum queue_place {
    QUEUE_NOWHERE,
    QUEUE_STAGED,
    QUEUE_WAITING,
    QUEUE_RETRYING,
    QUEUE_LEASED,
    QUEUE_DEAD,
    QUEUE_AWAY, /* waiting, on the medium only */
};

enum { QUEUE_SECRET_BYTES = 16, QUEUE_REASON_BYTES = 32, QUEUE_TICKET_BYTES = 49, QUEUE_DIGEST_BYTES = 16 };

/* The frames come last, since their ends are rarely used: every message touches the lines before. */
struct queue_item {
    uint64_t id;            /* rising in the order of put, never reused by this queue */
    int64_t taken_ms;       /* when the chain took it; its age counts from here */
    uint16_t taken_us;      /* and how far into that millisecond */
    int64_t retry_ms;       /* RETRYING: not before this */
    uint32_t attempts;      /* failed deliveries that count towards a dead letter */
    uint32_t retries;       /* attempts after the first, for the backend's own use */
    bool was_sent;          /* at least one attempt was handed to libzmq: its outcome is unknown */
    enum queue_place place; /* the queue's */
    uint32_t port;          /* with `envelope`: which socket of the frontend it came in by */
    uint64_t connection;    /* with `envelope`: the frontend's mark of the caller's connection */
    struct list route;      /* the frontend's; taken off its list when the item is gone */
    uint32_t hint;          /* the backend's: where the last attempt went */
    void *call;             /* the backend's while LEASED */
    struct list wait; /* the chain's: those whose caller waits; taken off its list when the item is gone */
    void *note;       /* the chain's */
    uint64_t sender;  /* the frontend's: the user, or where there is none the address; 0 = not asked */
    const uint8_t
        *digest;      /* the chain's, for the time of queue_put: a durable queue remembers it; NULL = none */
    uint64_t owner;   /* who may ask for its ticket (queue_owner); 0: whoever has it */
    struct list link; /* the queue's, as all up to `reason`: its place */
    struct list age;  /* all that is queued or in flight, oldest first */
    size_t bytes;     /* what it counts for, fixed when put */
    uint32_t slot;    /* RETRYING: where in the heap */
    uint32_t attempts_kept; /* as the medium has them */
    struct store_op *op;    /* STAGED on disk: its write */
    unsigned char secret[QUEUE_SECRET_BYTES];
    char reason[QUEUE_REASON_BYTES]; /* DEAD */
    struct message envelope;         /* the way back to the caller; empty when nobody waits for an answer */
    struct message body;             /* what is delivered */
};

struct queue_stats {
    uint64_t queued;       /* staged, waiting and retrying */
    uint64_t inflight;     /* leased */
    uint64_t dead;         /* dead letters now listed */
    uint64_t bytes;        /* of queued and inflight */
    uint64_t restored;     /* brought back by the store at open: queued, dead, or found damaged since */
    uint64_t damaged;      /* lost or set aside by the store since open: no longer queued */
    uint64_t dead_dropped; /* dead letters let go, oldest first, because these too reached the bounds */
    int64_t oldest_ms;     /* taken_ms of the oldest queued or inflight item; -1 when there is none */
};

enum queue_result {
    QUEUE_TAKEN,
    QUEUE_FULL,   /* a bound would be passed */
    QUEUE_BROKEN, /* the store cannot take anything now */
};

/* A queue in memory. NULL when memory is short. */
struct queue *queue_memory_new(const struct queue_limits *limits);

struct store;

/* A message that was put with a digest, in this run or an earlier one: its digest, id and ticket, when it was taken. */
typedef void queue_recall_fn(void *context, const uint8_t digest[QUEUE_DIGEST_BYTES], uint64_t id,
                             const char *ticket, int64_t taken_ms);

struct queue_disk_conf {
    const char *name; /* the chain's: what the store has under this name comes back */
    struct queue_limits limits;
    uint32_t window;         /* in flight at most: so many may have been when the last run was killed */
    int64_t sync_ms;         /* 0: an ack means synced. Else it means written, and synced so much later */
    int64_t keep_replies_ms; /* 0: replies are not kept */
    int64_t remember_ms;     /* how long digests are remembered; 0: none is */
    uint32_t remember_max;   /* the newest so many of them */
    queue_recall_fn *recall; /* told each, oldest first, while the queue is opened */
    void *context;           /* of recall */
    int64_t now_ms;
};

/* A queue in `store`, with all that is there under its name. Waits for the store thread; call it before the
 * owner's loop runs. NULL with the reason in `err`. */
struct queue *queue_disk_open(struct store *store, const struct queue_disk_conf *conf, char *err,
                              size_t err_bytes);

/* Other bounds and, of a queue in a store, other promises, for what is put from now on. What is there stays, be it
 * beyond the new bounds. Of `conf` the name, the window, the order and the time are not looked at. */
void queue_change(struct queue *queue, const struct queue_disk_conf *conf);

/* Readable when queue_next_stored or queue_lease may have something new; -1 when that never happens by
 * itself. */
int queue_fd(const struct queue *queue);

/* The owner woke because queue_fd() was readable: it is not any more, until there is something newer. */
void queue_settle(const struct queue *queue);

/* Whether a put may succeed as far as the store is concerned. When not, stop taking: messages left on the
 * wire hold their senders back. queue_fd() tells when to look again. */
bool queue_can_take(const struct queue *queue);

/* Whether that is because the store is out of order, and not only busy. */
bool queue_is_broken(const struct queue *queue);

/* Releases the queue and every item in it; what a durable store has on its medium stays there. */
void queue_free(struct queue *queue);

/* An empty item that belongs to the caller until it is put. NULL when memory is short. */
struct queue_item *queue_item_new(struct queue *queue);

/* Gives back an item that was never put (or came back from a failed put). */
void queue_item_free(struct queue *queue, struct queue_item *item);

/* Whether an item with a body of so many bytes would fit now. */
bool queue_has_room(const struct queue *queue, size_t bytes);

/* Puts `item` at the end. QUEUE_TAKEN: the queue owns it (the pointer stays good until the item is gone).
 * Otherwise it still belongs to the caller, unchanged. */
enum queue_result queue_put(struct queue *queue, struct queue_item *item);

/* Sends everything put since the last commit on its way to the medium. Once per turn of the loop. */
void queue_commit(struct queue *queue);

/* The next item whose put has ended, in order, each exactly once: *is_stored tells whether the promise of
 * the store holds for it. When it does not, the owner answers and calls queue_remove. NULL when there is
 * none now. */
struct queue_item *queue_next_stored(struct queue *queue, bool *is_stored);

/* What an ack may claim once queue_next_stored said so: "queued", "written" or "synced". */
const char *queue_ack_level(const struct queue *queue);

/* The next item to deliver, now LEASED; NULL when none may go. An item due for a retry goes first. */
struct queue_item *queue_lease(struct queue *queue, int64_t now_ms);

/* The oldest item that is not leased (WAITING or RETRYING), left where it is; NULL when there is none. */
struct queue_item *queue_oldest(const struct queue *queue);

/* A leased item was delivered: it is gone. `reply` (may be NULL) is kept where the store keeps replies. */
void queue_ack(struct queue *queue, struct queue_item *item, const struct message *reply);

/* A leased item goes back, before everything not yet sent, not to be leased before `retry_ms`. */
void queue_nack(struct queue *queue, struct queue_item *item, int64_t retry_ms);

/* An item in any place but DEAD is gone for good: failed, expired or dropped. The owner has already answered. */
void queue_remove(struct queue *queue, struct queue_item *item);
/* The same when its time was up: where the store keeps replies, its ticket is remembered as expired. */
void queue_expire(struct queue *queue, struct queue_item *item);

/* A leased item becomes a dead letter with this one-word reason (at most 31 bytes are kept): from then on it is
 * known by its id only. Dead letters stand beside the bounds of the queue and keep within the same ones by
 * themselves: the oldest make room. */
void queue_bury(struct queue *queue, struct queue_item *item, const char *reason);

/* Calls `look` for each item in memory in any place but DEAD, which must leave them where they are. */
void queue_each(struct queue *queue, void (*look)(void *context, struct queue_item *item), void *context);

/* When the next RETRYING item is due; INT64_MAX when there is none. */
int64_t queue_next_retry_ms(const struct queue *queue);

/* ---- tickets ---- */

enum queue_ticket {
    QUEUE_TICKET_UNKNOWN,
    QUEUE_TICKET_PENDING,
    QUEUE_TICKET_DONE,
    QUEUE_TICKET_DEAD,
    QUEUE_TICKET_EXPIRED
};

/* Stands for every owner when a ticket is looked up: an operator may see them all. */
#define QUEUE_OWNER_ANY UINT64_MAX

/* Stands for a user name; never 0 nor QUEUE_OWNER_ANY. */
uint64_t queue_owner(const char *name);

/* The ticket of an item that was put, printable, with its end. */
void queue_ticket(struct queue *queue, struct queue_item *item, char text[QUEUE_TICKET_BYTES]);

/* `reply` for DONE, `reason` for DEAD, for the time of the call. is_ok false: the store cannot tell now. */
typedef void queue_ticket_fn(void *context, bool is_ok, enum queue_ticket state, const struct message *reply,
                             const char *reason);

/* Asks what became of a ticket: `size` bytes at `text`, whatever they are. A queue in memory knows none. The
 * answer comes as to operators, below. */
void queue_find_ticket(struct queue *queue, const void *text, size_t size, uint64_t owner,
                       queue_ticket_fn *tell, void *context);

/* ---- for operators. The answers come during the call or from a later queue_next_stored; when the queue is
 * freed before, from queue_free, not ok. ---- */

struct queue_entry {
    uint64_t id;
    size_t bytes;
    int64_t taken_ms;
    uint32_t attempts;
    enum queue_place place;
    const char *reason;         /* DEAD */
    const struct message *body; /* NULL unless asked for */
};

typedef void queue_page_fn(void *context, bool is_ok, const struct queue_entry *entries, size_t count,
                           uint64_t next_id);
typedef void queue_done_fn(void *context, bool is_ok, bool was_there);

/* Asks for what is queued or in flight (or for dead letters), by id from `from_id` on, at most `max`.
 * `next_id` is where the next page begins, 0 after the last. */
void queue_page(struct queue *queue, bool is_dead, uint64_t from_id, uint32_t max, bool with_bodies,
                queue_page_fn *tell, void *context);

/* An item in memory by its id, in any place but DEAD; NULL when there is none. Takes as long as there are
 * items. */
struct queue_item *queue_find(const struct queue *queue, uint64_t id);

/* Drops a message that queue_find does not find: those in memory are for queue_remove. */
void queue_drop(struct queue *queue, uint64_t id, queue_done_fn *tell, void *context);

/* Drops a dead letter, or queues it again, its attempts forgotten, before everything not yet sent. A retry
 * that the bounds do not allow now is answered with was_there false. */
void queue_drop_dead(struct queue *queue, uint64_t id, queue_done_fn *tell, void *context);
void queue_retry_dead(struct queue *queue, uint64_t id, queue_done_fn *tell, void *context);

void queue_stats(const struct queue *queue, struct queue_stats *stats);

#endif
