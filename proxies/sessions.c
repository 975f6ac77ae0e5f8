/* SPDX-License-Identifier: MIT
 *
 * Sessions and the questions about them; see sessions.h. The server is an upstream like any other, with a REQ backend of
 * our own. Without an answer a session counts as invalid for the messages that were there by then; the next one asks
 * again. Nothing about it is remembered but its mark.
 */
#include "proxies/sessions.h"

#include "proxies/back.h"
#include "proxies/kinds.h"
#include "proxies/ledger.h"
#include "proxies/lru.h"
#include "proxies/payload.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum {
    SESSIONS_MAX = 65536, /* remembered */
    QUESTIONS_MAX = 4096  /* waiting to be sent, or for an answer */
};

struct session {
    struct lru_entry entry;
    bool is_asked; /* a question is on its way */
    bool is_valid; /* until until_ms */
    int64_t until_ms;
    int64_t failed_ms; /* when the last question got no answer; 0 = never */
};

struct question {
    struct list link;
    struct queue_item item; /* never in a queue: what a backend sends */
    uint64_t session;
};

struct sessions {
    const struct verify_conf *conf;
    struct chain_conf asking; /* of the backend */
    struct surroundings around;
    struct ledger ledger; /* questions are no messages of the chain's */
    struct back *back;
    struct lru *known;
    struct list waiting, sent; /* of question.link; waiting: oldest first */
    uint32_t waiting_count, count;
};

struct sessions *sessions_open(const struct chain_conf *conf, const struct surroundings *around, char *err,
                               size_t err_size)
{
    struct sessions *sessions = calloc(1, sizeof *sessions);
    struct lru *known = lru_new(sizeof(struct session), SESSIONS_MAX);
    if (!sessions || !known) {
        snprintf(err, err_size, "out of memory");
        free(sessions);
        lru_free(known);
        return NULL;
    }
    const struct verify_conf *own = &conf->frontend.verify;
    *sessions = (struct sessions){.conf = own, .around = *around, .known = known};
    sessions->around.ledger = &sessions->ledger;
    sessions->asking = (struct chain_conf){
        .name = conf->name,
        .kind = kind_find("rep-req"),
        .backend = {.endpoints = own->endpoint,
                    .credentials = own->credentials,
                    .timeout_ms = own->timeout_ms,
                    .backoff_ms = conf->frontend.backoff_ms,
                    .backoff_max_ms = conf->frontend.backoff_max_ms,
                    .window = SESSIONS_WINDOW},
        .queue = {.max_age_ms = own->timeout_ms},
    };
    list_init(&sessions->waiting);
    list_init(&sessions->sent);
    sessions->back = back_req.open(&sessions->asking, &sessions->around, err, err_size);
    if (sessions->back)
        return sessions;
    sessions_close(sessions);
    return NULL;
}

static void free_question(struct sessions *sessions, struct question *question)
{
    list_remove(&question->link);
    message_close(&question->item.body);
    free(question);
    sessions->count--;
}

void sessions_close(struct sessions *sessions)
{
    if (!sessions)
        return;
    if (sessions->back)
        back_req.close(sessions->back, 0);
    LIST_EACH_SAFE (link, following, &sessions->waiting)
        free_question(sessions, LIST_ENTRY(link, struct question, link));
    LIST_EACH_SAFE (link, following, &sessions->sent)
        free_question(sessions, LIST_ENTRY(link, struct question, link));
    lru_free(sessions->known);
    free(sessions);
}

/* ---- answers ---- */

static int64_t deadline_ms(const struct sessions *sessions, const struct question *question)
{
    return question->item.taken_ms + sessions->conf->timeout_ms;
}

static void settle(struct sessions *sessions, struct question *question, enum payload_verdict verdict,
                   int64_t now_ms)
{
    struct session *session = lru_find(sessions->known, question->session);
    free_question(sessions, question);
    if (!session)
        return; /* forgotten meanwhile; its messages ask again */
    session->is_asked = false;
    session->is_valid = verdict == PAYLOAD_YES;
    if (verdict == PAYLOAD_UNKNOWN)
        session->failed_ms = now_ms;
    else
        session->until_ms = now_ms + sessions->conf->cache_ms;
}

/* A question whose connection broke is asked again while there is time: it changes nothing at the server. */
static void take_outcome(struct sessions *sessions, const struct back_outcome *outcome, int64_t now_ms)
{
    struct question *question = LIST_ENTRY(outcome->item, struct question, item);
    if (outcome->result == BACK_DELIVERED) {
        settle(sessions, question, payload_verdict(outcome->reply), now_ms);
    } else if (now_ms >= deadline_ms(sessions, question)) {
        settle(sessions, question, PAYLOAD_UNKNOWN, now_ms);
    } else {
        list_remove(&question->link);
        list_prepend(&sessions->waiting, &question->link);
        sessions->waiting_count++;
    }
}

static struct question *first_waiting(const struct sessions *sessions)
{
    struct list *link = list_first(&sessions->waiting);
    return link ? LIST_ENTRY(link, struct question, link) : NULL;
}

static void send_questions(struct sessions *sessions, int64_t now_ms)
{
    struct question *question;
    while ((question = first_waiting(sessions)) != NULL) {
        if (now_ms >= deadline_ms(sessions, question)) {
            settle(sessions, question, PAYLOAD_UNKNOWN, now_ms);
        } else if (back_req.has_room(sessions->back, now_ms) &&
                   back_req.send(sessions->back, &question->item, now_ms)) {
            list_remove(&question->link);
            list_append(&sessions->sent, &question->link);
        } else {
            return;
        }
        sessions->waiting_count--;
    }
}

void sessions_tick(struct sessions *sessions, int64_t now_ms)
{
    struct back_outcome outcome;
    back_req.tick(sessions->back, sessions->waiting_count, now_ms);
    while (back_req.next_outcome(sessions->back, &outcome))
        take_outcome(sessions, &outcome, now_ms);
    send_questions(sessions, now_ms);
}

int64_t sessions_next_ms(const struct sessions *sessions)
{
    const struct question *question = first_waiting(sessions);
    int64_t next = back_req.next_ms(sessions->back);
    return question && deadline_ms(sessions, question) < next ? deadline_ms(sessions, question) : next;
}

bool sessions_has_input(const struct sessions *sessions)
{
    return back_req.has_input(sessions->back);
}

/* ---- questions ---- */

static enum session_result ask(struct sessions *sessions, struct session *session, const char *text,
                               int64_t now_ms)
{
    if (sessions->count >= QUESTIONS_MAX)
        return SESSION_UNKNOWN; /* it is asked when its turn has come */
    struct question *question = calloc(1, sizeof *question);
    if (!question || payload_question(sessions->conf->method, text, &question->item.body) != 0) {
        free(question);
        return SESSION_INVALID;
    }
    question->session = session->entry.key;
    question->item.taken_ms = now_ms;
    list_append(&sessions->waiting, &question->link);
    sessions->waiting_count++;
    sessions->count++;
    session->is_asked = true;
    send_questions(sessions, now_ms);
    return SESSION_UNKNOWN;
}

/* True when *result is what is known of a message of that session; false when it must be asked. */
static bool judge(const struct session *session, const struct queue_item *item, int64_t now_ms,
                  enum session_result *result)
{
    bool is_known = now_ms < session->until_ms;
    *result = is_known                               ? session->is_valid ? SESSION_VALID : SESSION_INVALID
              : item->taken_ms <= session->failed_ms ? SESSION_INVALID
                                                     : SESSION_UNKNOWN;
    return *result != SESSION_UNKNOWN || session->is_asked;
}

enum session_result sessions_look(struct sessions *sessions, struct queue_item *item, int64_t now_ms)
{
    enum session_result result;
    char text[PAYLOAD_SESSION_BYTES];
    struct session *session = item->sender ? lru_find(sessions->known, item->sender) : NULL;
    if (session && judge(session, item, now_ms, &result))
        return result;
    if (!payload_session(&item->body, sessions->conf->session_field, text))
        return SESSION_INVALID;
    item->sender = runtime_mark(sessions->around.runtime, 0, text, strlen(text));
    session = lru_find(sessions->known, item->sender);
    if (!session)
        session = lru_add(sessions->known, item->sender);
    if (!session)
        return SESSION_INVALID;
    return judge(session, item, now_ms, &result) ? result : ask(sessions, session, text, now_ms);
}

void sessions_upstream(const struct sessions *sessions, struct upstream_stats *row)
{
    back_req.upstreams(sessions->back, row);
}
