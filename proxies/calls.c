/* SPDX-License-Identifier: MIT
 *
 * Calls and their ids; see calls.h. An id of ours is a slot and the generation of its use, and fits into the 53 bits
 * that every JSON reader keeps exactly: a late answer to an earlier use finds nobody.
 */
#include "proxies/calls.h"

#include "buffer/list.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { SLOT_BITS = 20, SLOTS_MAX = 1 << SLOT_BITS, SLOTS_FIRST = 16, NO_SLOT = -1 };

/* One request of a call. */
struct part {
    char *id; /* the caller's, as text; NULL where it wants no answer */
    size_t id_size;
    char *answer; /* NULL until it is there */
    size_t answer_size;
};

struct call {
    struct list link; /* calls->open */
    struct message tag;
    bool is_batch;
    bool is_short; /* memory was, for a part of the answer */
    uint32_t count, unanswered;
    struct part parts[];
};

struct slot {
    struct call *call; /* NULL while unused */
    uint32_t part;
    uint32_t generation;
    int next; /* unused: the next one that is, or NO_SLOT */
};

struct calls {
    struct list open;
    struct slot *slots;
    int slot_count, unused;
};

/* ---- requests ---- */

static bool is_request(struct json_span request)
{
    struct json_span method = json_span_member(request, "method");
    return method.at && *method.at == '"' && json_span_member_count(request, "id") <= 1;
}

/* How many requests `body` is, and as what JSON; 0 when it is none. */
static uint32_t read_requests(const struct message *body, struct json_span *whole)
{
    zmq_msg_t *frame = body->count == 1 ? message_frame(body, 0) : NULL;
    if (!frame || !json_span_read(zmq_msg_data(frame), zmq_msg_size(frame), whole))
        return 0;
    if (*whole->at != '[')
        return is_request(*whole);
    uint32_t count = 0;
    struct json_span request = {0};
    while ((request = json_span_element(*whole, request)).at) {
        if (++count > CALLS_BATCH_MAX || !is_request(request))
            return 0;
    }
    return count;
}

bool calls_is_request(const struct message *body)
{
    struct json_span whole;
    return read_requests(body, &whole) > 0;
}

/* ---- calls ---- */

struct calls *calls_new(void)
{
    struct calls *calls = calloc(1, sizeof *calls);
    if (!calls)
        return NULL;
    list_init(&calls->open);
    calls->unused = NO_SLOT;
    return calls;
}

static void free_call(struct call *call)
{
    for (uint32_t i = 0; i < call->count; i++) {
        free(call->parts[i].id);
        free(call->parts[i].answer);
    }
    message_close(&call->tag);
    list_remove(&call->link);
    free(call);
}

void calls_free(struct calls *calls)
{
    if (!calls)
        return;
    LIST_EACH_SAFE (link, following, &calls->open)
        free_call(LIST_ENTRY(link, struct call, link));
    free(calls->slots);
    free(calls);
}

/* Room for `count` more requests in flight. */
static int grow_slots(struct calls *calls, uint32_t count)
{
    uint32_t unused_count = 0;
    for (int i = calls->unused; i != NO_SLOT && unused_count < count; i = calls->slots[i].next)
        unused_count++;
    if (unused_count == count)
        return 0;
    int wanted = calls->slot_count ? 2 * calls->slot_count : SLOTS_FIRST;
    while (wanted - calls->slot_count < (int)count)
        wanted *= 2;
    struct slot *slots = wanted <= SLOTS_MAX ? realloc(calls->slots, (size_t)wanted * sizeof *slots) : NULL;
    if (!slots)
        return -1;
    calls->slots = slots;
    for (int i = wanted - 1; i >= calls->slot_count; i--) {
        slots[i] = (struct slot){.next = calls->unused};
        calls->unused = i;
    }
    calls->slot_count = wanted;
    return 0;
}

static uint64_t take_slot(struct calls *calls, struct call *call, uint32_t part)
{
    int index = calls->unused;
    struct slot *slot = &calls->slots[index];
    calls->unused = slot->next;
    slot->call = call;
    slot->part = part;
    slot->generation++;
    return (uint64_t)slot->generation << SLOT_BITS | (uint64_t)index;
}

/* The slot that an id of ours stands for; NULL when it is none, or none any more. */
static struct slot *find_slot(struct calls *calls, struct json_span id)
{
    uint64_t number = 0;
    if (!id.at || id.size > 16)
        return NULL;
    for (size_t i = 0; i < id.size; i++) {
        if (id.at[i] < '0' || id.at[i] > '9')
            return NULL;
        number = number * 10 + (uint64_t)(id.at[i] - '0');
    }
    uint64_t index = number & (SLOTS_MAX - 1);
    if (index >= (uint64_t)calls->slot_count)
        return NULL;
    struct slot *slot = &calls->slots[index];
    return slot->call && slot->generation == number >> SLOT_BITS ? slot : NULL;
}

static void return_slot(struct calls *calls, struct slot *slot)
{
    slot->call = NULL;
    slot->next = calls->unused;
    calls->unused = (int)(slot - calls->slots);
}

static char *copy_text(struct json_span text)
{
    char *copy = malloc(text.size);
    return copy ? memcpy(copy, text.at, text.size) : NULL;
}

/* The call with its callers' ids. NULL when memory is short. */
static struct call *new_call(struct json_span whole, uint32_t count, const struct message *tag)
{
    struct call *call = calloc(1, sizeof *call + count * sizeof *call->parts);
    if (!call)
        return NULL;
    list_init(&call->link);
    call->is_batch = *whole.at == '[';
    struct json_span request = call->is_batch ? json_span_element(whole, (struct json_span){0}) : whole;
    bool is_short = message_append_copy(&call->tag, tag) != 0;
    for (; call->count < count && !is_short; call->count++, request = json_span_element(whole, request)) {
        struct part *part = &call->parts[call->count];
        struct json_span id = json_span_member(request, "id");
        if (!id.at)
            continue;
        part->id = copy_text(id);
        part->id_size = id.size;
        is_short = !part->id;
        call->unanswered++;
    }
    if (!is_short)
        return call;
    free_call(call);
    return NULL;
}

static void send_request(struct json_span request, uint64_t id, calls_send_fn *send, void *context)
{
    char text[24];
    struct json_span old = json_span_member(request, "id");
    if (!old.at) {
        send(context, &request, 1);
        return;
    }
    int size = snprintf(text, sizeof text, "%" PRIu64, id);
    const char *behind = old.at + old.size;
    const struct json_span pieces[] = {{request.at, (size_t)(old.at - request.at)},
                                       {text, (size_t)size},
                                       {behind, (size_t)(request.at + request.size - behind)}};
    send(context, pieces, 3);
}

enum calls_begun calls_begin(struct calls *calls, const struct message *tag, const struct message *body,
                             calls_send_fn *send, void *context)
{
    struct json_span whole;
    uint32_t count = read_requests(body, &whole);
    struct call *call = count > 0 ? new_call(whole, count, tag) : NULL;
    if (!call)
        return CALLS_REFUSED;
    if (grow_slots(calls, call->unanswered) != 0) {
        free_call(call);
        return CALLS_REFUSED;
    }
    struct json_span request = call->is_batch ? json_span_element(whole, (struct json_span){0}) : whole;
    for (uint32_t i = 0; i < count; i++, request = json_span_element(whole, request))
        send_request(request, call->parts[i].id ? take_slot(calls, call, i) : 0, send, context);
    if (call->unanswered > 0) {
        list_append(&calls->open, &call->link);
        return CALLS_WAITING;
    }
    free_call(call);
    return CALLS_TOLD;
}

/* ---- answers ---- */

/* The answer with the caller's id in the place of ours. */
static int keep_answer(struct part *part, struct json_span answer, struct json_span id)
{
    size_t before = (size_t)(id.at - answer.at), after = answer.size - before - id.size;
    part->answer_size = before + part->id_size + after;
    part->answer = malloc(part->answer_size);
    if (!part->answer)
        return -1;
    memcpy(part->answer, answer.at, before);
    memcpy(part->answer + before, part->id, part->id_size);
    memcpy(part->answer + before + part->id_size, id.at + id.size, after);
    return 0;
}

/* `[answer,answer]` or `answer`; nothing when memory is short. */
static void join_answers(const struct call *call, struct message *body)
{
    size_t size = call->is_batch ? 1 : 0;
    for (uint32_t i = 0; i < call->count; i++)
        size += call->parts[i].answer ? call->parts[i].answer_size + call->is_batch : 0;
    zmq_msg_t frame;
    if (zmq_msg_init_size(&frame, size) != 0)
        return;
    char *first = zmq_msg_data(&frame), *at = first;
    for (uint32_t i = 0; i < call->count; i++) {
        const struct part *part = &call->parts[i];
        if (!part->answer)
            continue;
        memcpy(at + call->is_batch, part->answer, part->answer_size);
        if (call->is_batch)
            *at = at == first ? '[' : ',';
        at += part->answer_size + call->is_batch;
    }
    if (call->is_batch)
        *at = ']';
    message_add(body, &frame);
    zmq_msg_close(&frame);
}

enum calls_answer calls_end(struct calls *calls, struct json_span answer, struct message *tag,
                            struct message *body)
{
    if (json_span_member(answer, "method").at)
        return CALLS_NOT;
    struct json_span id = json_span_member(answer, "id");
    struct slot *slot = find_slot(calls, id);
    if (!slot)
        return CALLS_STRAY;
    struct call *call = slot->call;
    struct part *part = &call->parts[slot->part];
    call->is_short |= keep_answer(part, answer, id) != 0;
    return_slot(calls, slot);
    if (--call->unanswered > 0)
        return CALLS_PART;
    message_move(tag, &call->tag);
    if (!call->is_short)
        join_answers(call, body);
    free_call(call);
    return CALLS_ANSWERED;
}
