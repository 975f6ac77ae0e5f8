/* SPDX-License-Identifier: MIT
 *
 * Snapshots of chains as JSON; see report.h. Only reads.
 */
#include "proxyd/report.h"

#include "buffer/store.h"
#include "proxies/dialect.h"
#include "proxies/guard.h"
#include "proxies/kinds.h"
#include "proxyd/config.h"
#include "proxyd/config_keys.h"

#include <string.h>

/* {reason: count} of those that have occurred. */
static json_t *failed_json(const struct ledger *ledger)
{
    json_t *counts = json_object();
    for (int i = 0; i < REASON_COUNT; i++)
        if (ledger->failed[i] > 0)
            json_object_set_new(counts, reason_info(i)->name, json_integer((json_int_t)ledger->failed[i]));
    return counts;
}

static json_t *dropped_json(const struct ledger *ledger)
{
    json_t *counts = json_object();
    for (int i = 0; i < DROP_COUNT; i++)
        if (ledger->dropped[i] > 0)
            json_object_set_new(counts, drop_name(i), json_integer((json_int_t)ledger->dropped[i]));
    return counts;
}

static json_t *upstreams_json(const struct chain_stats *stats, bool is_full)
{
    json_t *list = json_array();
    for (uint32_t i = 0; i < stats->upstream_count; i++) {
        const struct upstream_stats *upstream = &stats->upstreams[i];
        json_t *row = json_pack("{s:s, s:s, s:s?}", "endpoint", upstream->endpoint, "state",
                                upstream_state_name(upstream->state), "cause", upstream->cause);
        if (row && is_full) {
            json_object_set_new(row, "inflight", json_integer(upstream->inflight));
            json_object_set_new(row, "connections", json_integer(upstream->connections));
            json_object_set_new(row, "peer", upstream->peer ? json_string(upstream->peer) : json_null());
        }
        json_array_append_new(list, row);
    }
    return list;
}

/* A quantile of the last minute or two; null when there was nothing. */
static json_t *quantile_json(const struct histogram_stats *stats, uint64_t us)
{
    return stats->recent_total > 0 ? json_integer((json_int_t)us) : json_null();
}

static json_t *workers_json(const struct chain_stats *stats)
{
    json_t *list = json_array();
    for (uint32_t i = 0; i < stats->worker_count; i++) {
        const struct worker_stats *worker = &stats->workers[i];
        json_array_append_new(list,
                              json_pack("{s:s, s:s, s:I, s:i}", "id", worker->id, "state",
                                        worker_state_name(worker->state), "heard_ms",
                                        (json_int_t)worker->heard_ms, "inflight", (int)worker->inflight));
    }
    return list;
}

static json_t *chain_json(struct chain *chain, bool is_full)
{
    struct chain_stats stats;
    if (chain_stats(chain, &stats) < 0)
        return NULL;
    const struct chain_conf *conf = chain_conf(chain);
    const struct ledger *ledger = &stats.ledger;
    json_t *json = json_pack("{s:s, s:s, s:s, s:I, s:I, s:o, s:o, s:I, s:I, s:I, s:I}",                //
                             "name", conf->name, "kind", conf->kind->name,                             //
                             "state", chain_state_name(stats.state),                                   //
                             "accepted", (json_int_t)ledger->accepted,                                 //
                             "delivered", (json_int_t)ledger->delivered,                               //
                             "failed", failed_json(ledger), "dropped", dropped_json(ledger),           //
                             "expired", (json_int_t)ledger->expired, "dead", (json_int_t)ledger->dead, //
                             "queued", (json_int_t)ledger->queued, "inflight", (json_int_t)ledger->inflight);
    const struct {
        const char *name;
        uint64_t value;
    } beside[] = {
        {"queue_bytes", stats.queue_bytes}, {"retries", ledger->retries},
        {"recreates", ledger->recreates},   {"redelivered", ledger->redelivered},
        {"orphaned", ledger->orphaned},     {"malformed", ledger->dropped[DROP_MALFORMED]},
        {"restored", ledger->restored},     {"stray", ledger->stray},
        {"heartbeats", ledger->heartbeats}, {"slow_subscriber", ledger->slow_subscriber},
    };
    if (json) {
        json_object_set_new(json, "oldest_ms",
                            stats.oldest_ms < 0 ? json_null() : json_integer(stats.oldest_ms));
        json_object_set_new(json, "p50_us", quantile_json(&stats.requests, stats.requests.p50_us));
        json_object_set_new(json, "p99_us", quantile_json(&stats.requests, stats.requests.p99_us));
        for (size_t i = 0; i < sizeof(beside) / sizeof(beside[0]); i++)
            json_object_set_new(json, beside[i].name, json_integer((json_int_t)beside[i].value));
        json_object_set_new(json, "upstreams", upstreams_json(&stats, is_full));
        if (is_full && kind_has_workers(conf->kind))
            json_object_set_new(json, "workers", workers_json(&stats));
    }
    chain_stats_close(&stats);
    return json;
}

static json_t *store_json(struct store *store)
{
    struct store_stats stats;
    store_stats(store, &stats);
    json_int_t average_us =
        stats.commits.total > 0 ? (json_int_t)(stats.commits.sum_us / stats.commits.total) : 0;
    return json_pack("{s:b, s:b, s:I, s:I, s:I, s:I, s:I, s:o, s:o, s:I}", "usable", stats.is_usable,
                     "reserve", stats.has_reserve, "commits", (json_int_t)stats.commits.total, "messages",
                     (json_int_t)stats.messages_total, "largest_group", (json_int_t)stats.largest_group,
                     "commit_us", average_us, "commit_us_max", (json_int_t)stats.commit_us_max, "p50_us",
                     quantile_json(&stats.commits, stats.commits.p50_us), "p99_us",
                     quantile_json(&stats.commits, stats.commits.p99_us), "bytes_written",
                     (json_int_t)stats.bytes_written_total);
}

/* Of the connections that peers make. */
static json_t *connections_json(void)
{
    struct guard_stats stats = guard_stats();
    return json_pack("{s:I, s:I, s:I}", "now", (json_int_t)stats.connections, "refused",
                     (json_int_t)stats.refused, "cut", (json_int_t)stats.cut);
}

static json_t *auth_json(const struct doors *doors)
{
    uint64_t totals[ZAP_VERDICTS];
    json_t *counts = json_object();
    doors_stats(doors, totals);
    for (int i = 0; i < ZAP_VERDICTS; i++)
        if (totals[i] > 0)
            json_object_set_new(counts, zap_verdict_name((enum zap_verdict)i),
                                json_integer((json_int_t)totals[i]));
    return counts;
}

json_t *report_status(const struct report_scope *scope, int64_t now_ms)
{
    json_t *list = json_array();
    for (size_t i = 0; i < scope->chain_count; i++) {
        json_t *chain = chain_json(scope->chains[i], false);
        if (!chain || json_array_append_new(list, chain) < 0) {
            json_decref(list);
            return NULL;
        }
    }
    return json_pack("{s:s, s:I, s:o, s:o, s:o, s:o*}", "version", PROXYD_VERSION, "uptime_ms",
                     (json_int_t)(now_ms - scope->started_ms), "chains", list, "auth",
                     auth_json(scope->doors), "connections", connections_json(), "store",
                     scope->store ? store_json(scope->store) : NULL);
}

json_t *report_texts(const struct text_list *texts)
{
    json_t *list = json_array();
    for (size_t i = 0; i < texts->count; i++)
        json_array_append_new(list, json_string(texts->items[i]));
    return list;
}

static json_t *endpoints_json(const struct endpoint_list *endpoints)
{
    json_t *list = json_array();
    for (size_t i = 0; i < endpoints->count; i++)
        json_array_append_new(list, json_string(endpoints->items[i].text));
    return list;
}

/* The value of `key`, as a user writes it. */
static json_t *value_json(const struct config_key *key, const struct chain_conf *conf)
{
    const void *field = (const char *)conf + key->offset;
    char text[64];
    switch (key->type) {
    case CONFIG_TEXT:
        return *(char *const *)field ? json_string(*(char *const *)field) : json_null();
    case CONFIG_COUNT:
        return json_integer(*(const int64_t *)field);
    case CONFIG_TEXTS:
        return report_texts(field);
    case CONFIG_ENDPOINT:
        return json_string(((const struct endpoint_list *)field)->items[0].text);
    case CONFIG_ENDPOINTS:
        return endpoints_json(field);
    default:
        config_key_text(key, key->type == CONFIG_WORD ? *(const int *)field : *(const int64_t *)field, text,
                        sizeof(text));
        return json_string(text);
    }
}

/* One group of the chain's configuration: the keys that its kind has. */
static json_t *group_json(enum config_section section, const struct chain_conf *conf)
{
    json_t *group = json_object();
    size_t count;
    const struct config_key *keys = config_keys(&count);
    for (size_t i = 0; i < count; i++)
        if (keys[i].section == section && (keys[i].kinds & config_kind(conf->kind)) &&
            keys[i].offset != CONFIG_NOWHERE && strcmp(keys[i].name, "password") != 0)
            json_object_set_new(group, keys[i].name, value_json(&keys[i], conf));
    return group;
}

json_t *report_chain(struct chain *chain)
{
    const struct chain_conf *conf = chain_conf(chain);
    json_t *frontend = group_json(CONFIG_FRONTEND, conf), *backend = group_json(CONFIG_BACKEND, conf);
    if (conf->frontend.verify.endpoint.count > 0)
        json_object_set_new(frontend, "verify", group_json(CONFIG_VERIFY, conf));
    if (kind_has_workers(conf->kind))
        json_object_set_new(backend, "workers", group_json(CONFIG_WORKERS, conf));
    return json_pack("{s:{s:s, s:s, s:s, s:o, s:o, s:o}, s:o}", "config", "name", conf->name, "kind",
                     conf->kind->name, "dialect", conf->dialect->name, "frontend", frontend, "backend",
                     backend, "queue", group_json(CONFIG_QUEUE, conf), "status", chain_json(chain, true));
}

json_t *report_reload(const struct reload_result *result)
{
    return json_pack("{s:o, s:o, s:o, s:I, s:o, s:o, s:I}", "added", report_texts(&result->added), "changed",
                     report_texts(&result->changed), "removed", report_texts(&result->removed), "unchanged",
                     (json_int_t)result->unchanged, "restart_needed", report_texts(&result->restart_needed),
                     "kept", report_texts(&result->kept), "took_ms", (json_int_t)result->took_ms);
}
