/* SPDX-License-Identifier: MIT
 *
 * Comparing configurations; see config_diff.h. Only reads.
 */
#include "proxyd/config_diff.h"

#include "proxies/kinds.h"
#include "proxyd/config_keys.h"

#include <string.h>

static bool is_same_text(const char *a, const char *b)
{
    return a && b ? strcmp(a, b) == 0 : a == b;
}

static bool is_same_value(const struct config_key *key, const void *a, const void *b)
{
    a = (const char *)a + key->offset;
    b = (const char *)b + key->offset;
    switch (key->type) {
    case CONFIG_TEXT:
        return is_same_text(*(char *const *)a, *(char *const *)b);
    case CONFIG_WORD:
        return *(const int *)a == *(const int *)b;
    case CONFIG_TEXTS: {
        const struct text_list *one = a, *other = b;
        bool is_same = one->count == other->count;
        for (size_t i = 0; is_same && i < one->count; i++)
            is_same = strcmp(one->items[i], other->items[i]) == 0;
        return is_same;
    }
    case CONFIG_ENDPOINT:
    case CONFIG_ENDPOINTS: {
        const struct endpoint_list *one = a, *other = b;
        bool is_same = one->count == other->count;
        for (size_t i = 0; is_same && i < one->count; i++)
            is_same = strcmp(one->items[i].text, other->items[i].text) == 0;
        return is_same;
    }
    default:
        return *(const int64_t *)a == *(const int64_t *)b;
    }
}

static bool is_same_section(enum config_section section, const struct chain_conf *a,
                            const struct chain_conf *b)
{
    size_t count;
    const struct config_key *keys = config_keys(&count);
    for (size_t i = 0; i < count; i++)
        if (keys[i].section == section && keys[i].offset != CONFIG_NOWHERE && !is_same_value(&keys[i], a, b))
            return false;
    return true;
}

/* What came from files. */
static bool has_same_keys(const struct credentials *a, const struct credentials *b,
                          const struct access_conf *door_a, const struct access_conf *door_b)
{
    return is_same_text(a->curve_public_key, b->curve_public_key) &&
           is_same_text(a->curve_secret_key, b->curve_secret_key) &&
           a->tls_ca_changed_ns == b->tls_ca_changed_ns &&
           is_same_text(door_a->curve_secret_key, door_b->curve_secret_key);
}

struct config_difference config_compare(const struct chain_conf *a, const struct chain_conf *b)
{
    const struct frontend_conf *front_a = &a->frontend, *front_b = &b->frontend;
    const struct backend_conf *back_a = &a->backend, *back_b = &b->backend;
    bool dialect = a->dialect != b->dialect;
    bool blocks = (a->queue.when_full == QUEUE_BLOCK) != (b->queue.when_full == QUEUE_BLOCK);
    return (struct config_difference){
        .kind = a->kind != b->kind,
        .frontend =
            dialect || blocks || !is_same_section(CONFIG_FRONTEND, a, b) ||
            !is_same_section(CONFIG_VERIFY, a, b) ||
            !has_same_keys(&front_a->credentials, &front_b->credentials, &front_a->access, &front_b->access),
        .backend =
            dialect || !is_same_section(CONFIG_BACKEND, a, b) || !is_same_section(CONFIG_WORKERS, a, b) ||
            !has_same_keys(&back_a->credentials, &back_b->credentials, &back_a->access, &back_b->access),
        .store = a->queue.store != b->queue.store,
        .queue = !is_same_section(CONFIG_QUEUE, a, b),
    };
}

bool config_differs(const struct config_difference *difference)
{
    return difference->kind || difference->frontend || difference->backend || difference->queue;
}

void config_compare_daemon(const struct daemon_conf *a, const struct daemon_conf *b,
                           void (*tell)(void *context, const char *key), void *context)
{
    size_t count;
    const struct config_key *keys = config_keys(&count);
    for (size_t i = 0; i < count; i++)
        if (keys[i].section == CONFIG_DAEMON && keys[i].offset != CONFIG_NOWHERE &&
            !is_same_value(&keys[i], a, b))
            tell(context, keys[i].name);
}

struct chain_conf *config_find_chain(const struct config *config, const char *name)
{
    for (size_t i = 0; i < config->chain_count; i++)
        if (strcmp(config->chains[i]->name, name) == 0)
            return config->chains[i];
    return NULL;
}
