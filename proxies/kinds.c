/* SPDX-License-Identifier: MIT
 *
 * The table of kinds; see kinds.h.
 */
#include "proxies/kinds.h"

#include "proxies/back.h"
#include "proxies/front.h"

#include <string.h>

static const struct kind kinds[] = {
    {"rep-req", &front_rep, &back_req, ANSWER_REPLY, .is_ordered = false},
    {"buffered-rep-req", &front_rep, &back_req, ANSWER_STORED, .is_ordered = true, .retries_forever = true},
    {"rep-pub", &front_rep, &back_pub, ANSWER_SENT, .is_ordered = true},
    {"sub-req", &front_sub, &back_req, ANSWER_NEVER, .is_ordered = true, .retries_forever = true},
    {"sub-pub", &front_sub, &back_pub, ANSWER_NEVER, .is_ordered = true},
    {"ws-pub", &front_sub, &back_pub, ANSWER_NEVER, .is_ordered = true, .hears_websockets = true},
};

/* What the kind becomes when its backend has workers. */
static const struct kind with_workers = {"rep-req", &front_rep, &back_workers, ANSWER_REPLY,
                                         .is_ordered = false};

const struct kind *kind_find(const char *name)
{
    for (size_t i = 0; i < sizeof kinds / sizeof *kinds; i++) {
        if (strcmp(kinds[i].name, name) == 0)
            return &kinds[i];
    }
    return NULL;
}

const char *kind_names(void)
{
    return "rep-req, buffered-rep-req, rep-pub, sub-req, sub-pub, ws-pub";
}

const struct kind *kind_with_workers(const struct kind *kind)
{
    return strcmp(kind->name, with_workers.name) == 0 ? &with_workers : NULL;
}

bool kind_has_rep_front(const struct kind *kind)
{
    return kind->front == &front_rep;
}

bool kind_has_req_back(const struct kind *kind)
{
    return kind->back == &back_req;
}

bool kind_has_workers(const struct kind *kind)
{
    return kind->back == &back_workers;
}
