/* SPDX-License-Identifier: MIT
 *
 * The names that callers chose, by port and name; see claims.h.
 */
#include "proxies/claims.h"

#include "buffer/fnv.h"

#include <stdlib.h>
#include <string.h>

enum { LISTS = sizeof((struct claims *)0)->lists / sizeof(struct list) };

struct claim {
    struct list link; /* claims.lists[] */
    struct list left; /* claims.left, while connections is 0 */
    uint64_t port;
    int64_t left_ms;
    uint32_t connections;
    bool is_proven;
    uint8_t id_bytes, user_bytes;
    char text[]; /* the id, the user */
};

void claims_init(struct claims *claims, uint64_t seed)
{
    *claims = (struct claims){.seed = seed};
    list_init(&claims->left);
    for (int i = 0; i < LISTS; i++)
        list_init(&claims->lists[i]);
}

static void forget(struct claim *claim)
{
    list_remove(&claim->left);
    list_remove(&claim->link);
    free(claim);
}

void claims_clear(struct claims *claims)
{
    for (int i = 0; i < LISTS; i++)
        LIST_EACH_SAFE (link, following, &claims->lists[i])
            forget(LIST_ENTRY(link, struct claim, link));
}

static struct list *list_of(struct claims *claims, uint64_t port, const struct zmtp_claim *said)
{
    return &claims->lists[fnv_add(FNV_OFFSET ^ claims->seed ^ port, said->id, said->id_bytes) % LISTS];
}

static struct claim *find(struct list *list, uint64_t port, const struct zmtp_claim *said)
{
    LIST_EACH (link, list) {
        struct claim *claim = LIST_ENTRY(link, struct claim, link);
        if (claim->port == port && claim->id_bytes == said->id_bytes &&
            memcmp(claim->text, said->id, said->id_bytes) == 0)
            return claim;
    }
    return NULL;
}

static bool is_users(const struct claim *claim, const struct zmtp_claim *said)
{
    return claim->user_bytes == said->user_bytes &&
           memcmp(claim->text + claim->id_bytes, said->user, said->user_bytes) == 0;
}

static struct claim *add(struct list *list, uint64_t port, const struct zmtp_claim *said)
{
    struct claim *claim = calloc(1, sizeof *claim + said->id_bytes + said->user_bytes);
    if (!claim)
        return NULL;
    list_init(&claim->left);
    claim->port = port;
    claim->id_bytes = said->id_bytes;
    claim->user_bytes = said->user_bytes;
    memcpy(claim->text, said->id, said->id_bytes);
    memcpy(claim->text + said->id_bytes, said->user, said->user_bytes);
    list_prepend(list, &claim->link);
    return claim;
}

static void forget_old(struct claims *claims, int64_t now_ms)
{
    LIST_EACH_SAFE (link, following, &claims->left) {
        struct claim *claim = LIST_ENTRY(link, struct claim, left);
        if (claims->left_count <= CLAIMS_KEPT && now_ms - claim->left_ms < CLAIMS_KEPT_MS)
            break;
        forget(claim);
        claims->left_count--;
    }
}

struct claim *claims_take(struct claims *claims, uint64_t port, const struct zmtp_claim *said, int64_t now_ms)
{
    forget_old(claims, now_ms);
    struct list *list = list_of(claims, port, said);
    struct claim *claim = find(list, port, said);
    bool is_new = !claim;
    if (is_new)
        claim = add(list, port, said);
    if (!claim || !is_users(claim, said))
        return NULL;
    if (!is_new && claim->connections == 0) {
        list_remove(&claim->left);
        claims->left_count--;
    }
    claim->connections++;
    return claim;
}

void claims_prove(struct claim *claim)
{
    claim->is_proven = true;
}

void claims_leave(struct claims *claims, struct claim *claim, int64_t now_ms)
{
    if (--claim->connections > 0)
        return;
    if (!claim->is_proven) {
        forget(claim);
        return;
    }
    claim->left_ms = now_ms;
    list_append(&claims->left, &claim->left);
    claims->left_count++;
    forget_old(claims, now_ms);
}
