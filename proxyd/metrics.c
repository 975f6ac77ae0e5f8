/* SPDX-License-Identifier: MIT
 *
 * The exposition; see metrics.h. What has one value for each chain stands in a table; what has more labels than that
 * has a few lines of its own. Only reads.
 */
#include "proxyd/metrics.h"

#include "buffer/store.h"
#include "proxies/dialect.h"
#include "proxies/guard.h"
#include "proxies/kinds.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <unistd.h>

struct page {
    FILE *out;
    const struct report_scope *scope;
    struct chain_stats *stats; /* of each chain */
};

static const struct chain_conf *conf_of(const struct page *page, size_t i)
{
    return chain_conf(page->scope->chains[i]);
}

static void family(const struct page *page, const char *name, const char *type, const char *help)
{
    fprintf(page->out, "# HELP %s %s\n# TYPE %s %s\n", name, help, name, type);
}

/* One value without labels. */
static void single(const struct page *page, const char *name, const char *type, const char *help,
                   double value)
{
    family(page, name, type, help);
    fprintf(page->out, "%s %.17g\n", name, value);
}

/* A label's value: endpoints may hold any character that a file name may. */
static void put_escaped(FILE *out, const char *text)
{
    for (; *text; text++) {
        if (*text == '\\' || *text == '"')
            fputc('\\', out);
        if (*text == '\n')
            fputs("\\n", out);
        else
            fputc(*text, out);
    }
}

/* ---- one value for each chain ---- */

#define STAT(member) offsetof(struct chain_stats, member)

static const struct {
    const char *name, *type, *help;
    size_t offset; /* of a uint64_t */
} columns[] = {
    {"proxyd_accepted_total", "counter", "Messages taken off the wire, refused ones included.",
     STAT(ledger.accepted)},
    {"proxyd_delivered_total", "counter", "Messages answered by an upstream, or published.",
     STAT(ledger.delivered)},
    {"proxyd_expired_total", "counter", "Messages that reached max_age unsent.", STAT(ledger.expired)},
    {"proxyd_dead", "gauge", "Dead letters now listed.", STAT(ledger.dead)},
    {"proxyd_queued", "gauge", "Messages that wait.", STAT(ledger.queued)},
    {"proxyd_inflight", "gauge", "Messages sent and not yet answered.", STAT(ledger.inflight)},
    {"proxyd_queue_bytes", "gauge", "Bytes of the messages queued and in flight.", STAT(queue_bytes)},
    {"proxyd_retries_total", "counter", "Attempts after the first.", STAT(ledger.retries)},
    {"proxyd_recreates_total", "counter", "Sockets replaced.", STAT(ledger.recreates)},
    {"proxyd_redelivered_total", "counter", "Attempts made although an earlier one may have arrived.",
     STAT(ledger.redelivered)},
    {"proxyd_orphaned_total", "counter", "Answers whose caller was gone.", STAT(ledger.orphaned)},
    {"proxyd_restored_total", "counter", "Messages that a store brought back at start.",
     STAT(ledger.restored)},
    {"proxyd_stray_total", "counter", "Replies that belong to no request in flight.", STAT(ledger.stray)},
    {"proxyd_heartbeats_total", "counter", "Heartbeats received and swallowed.", STAT(ledger.heartbeats)},
    {"proxyd_slow_subscriber_total", "counter", "Episodes of a full subscriber at a PUB.",
     STAT(ledger.slow_subscriber)},
};

static void write_columns(const struct page *page)
{
    for (size_t column = 0; column < sizeof(columns) / sizeof(columns[0]); column++) {
        family(page, columns[column].name, columns[column].type, columns[column].help);
        for (size_t i = 0; i < page->scope->chain_count; i++) {
            uint64_t value;
            memcpy(&value, (const char *)&page->stats[i] + columns[column].offset, sizeof(value));
            fprintf(page->out, "%s{chain=\"%s\"} %" PRIu64 "\n", columns[column].name, conf_of(page, i)->name,
                    value);
        }
    }
}

static void write_reasons(const struct page *page)
{
    family(page, "proxyd_failed_total", "counter", "Messages whose caller heard an error, by reason.");
    for (size_t i = 0; i < page->scope->chain_count; i++)
        for (int k = 0; k < REASON_COUNT; k++)
            fprintf(page->out, "proxyd_failed_total{chain=\"%s\",reason=\"%s\"} %" PRIu64 "\n",
                    conf_of(page, i)->name, reason_info(k)->name, page->stats[i].ledger.failed[k]);
    family(page, "proxyd_dropped_total", "counter", "Messages let go, by reason.");
    for (size_t i = 0; i < page->scope->chain_count; i++)
        for (int k = 0; k < DROP_COUNT; k++)
            fprintf(page->out, "proxyd_dropped_total{chain=\"%s\",reason=\"%s\"} %" PRIu64 "\n",
                    conf_of(page, i)->name, drop_name(k), page->stats[i].ledger.dropped[k]);
}

static void write_queues(const struct page *page)
{
    family(page, "proxyd_queue_oldest_seconds", "gauge",
           "Age of the oldest message queued or in flight; 0 when there is none.");
    for (size_t i = 0; i < page->scope->chain_count; i++)
        fprintf(page->out, "proxyd_queue_oldest_seconds{chain=\"%s\"} %.3f\n", conf_of(page, i)->name,
                page->stats[i].oldest_ms < 0 ? 0.0 : (double)page->stats[i].oldest_ms / 1000);
    family(page, "proxyd_queue_max_messages", "gauge",
           "The bound on messages queued and in flight, where there is one.");
    for (size_t i = 0; i < page->scope->chain_count; i++)
        if (page->stats[i].max_messages > 0)
            fprintf(page->out, "proxyd_queue_max_messages{chain=\"%s\"} %" PRId64 "\n",
                    conf_of(page, i)->name, page->stats[i].max_messages);
    family(page, "proxyd_queue_max_bytes", "gauge", "The bound on their bytes, where there is one.");
    for (size_t i = 0; i < page->scope->chain_count; i++)
        if (page->stats[i].max_bytes > 0)
            fprintf(page->out, "proxyd_queue_max_bytes{chain=\"%s\"} %" PRId64 "\n", conf_of(page, i)->name,
                    page->stats[i].max_bytes);
}

static void write_states(const struct page *page)
{
    family(page, "proxyd_chain_info", "gauge", "Each chain with its kind and dialect; always 1.");
    for (size_t i = 0; i < page->scope->chain_count; i++)
        fprintf(page->out, "proxyd_chain_info{chain=\"%s\",kind=\"%s\",dialect=\"%s\"} 1\n",
                conf_of(page, i)->name, conf_of(page, i)->kind->name, page->stats[i].dialect);
    family(page, "proxyd_chain_state", "gauge", "1 for the state that the chain is in.");
    for (size_t i = 0; i < page->scope->chain_count; i++)
        for (enum chain_state state = CHAIN_UP; state <= CHAIN_DRAINING; state++)
            fprintf(page->out, "proxyd_chain_state{chain=\"%s\",state=\"%s\"} %d\n", conf_of(page, i)->name,
                    chain_state_name(state), page->stats[i].state == state);
}

/* Two sides of a chain, or two entries of a list, may name the same endpoint: a series must not come twice. */
static bool is_first_of_its_name(const struct chain_stats *stats, uint32_t row)
{
    for (uint32_t i = 0; i < row; i++)
        if (strcmp(stats->upstreams[i].endpoint, stats->upstreams[row].endpoint) == 0)
            return false;
    return true;
}

static void put_upstream(const struct page *page, const char *name, size_t chain, uint32_t row)
{
    fprintf(page->out, "%s{chain=\"%s\",endpoint=\"", name, conf_of(page, chain)->name);
    put_escaped(page->out, page->stats[chain].upstreams[row].endpoint);
    fputc('"', page->out);
}

#define EACH_UPSTREAM(page, chain, row)                                                                      \
    for (size_t chain = 0; chain < (page)->scope->chain_count; chain++)                                      \
        for (uint32_t row = 0; row < (page)->stats[chain].upstream_count; row++)                             \
            if (is_first_of_its_name(&(page)->stats[chain], row))

static void write_upstreams(const struct page *page)
{
    family(page, "proxyd_upstream_state", "gauge", "1 for the state that the upstream or publisher is in.");
    EACH_UPSTREAM (page, i, row) {
        for (enum upstream_state state = UPSTREAM_CONNECTING; state <= UPSTREAM_DOWN; state++) {
            put_upstream(page, "proxyd_upstream_state", i, row);
            fprintf(page->out, ",state=\"%s\"} %d\n", upstream_state_name(state),
                    page->stats[i].upstreams[row].state == state);
        }
    }
    family(page, "proxyd_upstream_inflight", "gauge", "Requests sent there and not yet answered.");
    EACH_UPSTREAM (page, i, row) {
        put_upstream(page, "proxyd_upstream_inflight", i, row);
        fprintf(page->out, "} %" PRIu32 "\n", page->stats[i].upstreams[row].inflight);
    }
    family(page, "proxyd_upstream_connections", "gauge", "Connections there with a finished handshake.");
    EACH_UPSTREAM (page, i, row) {
        put_upstream(page, "proxyd_upstream_connections", i, row);
        fprintf(page->out, "} %" PRIu32 "\n", page->stats[i].upstreams[row].connections);
    }
}

/* A bound for each doubling is enough here. `label` is `chain="NAME"` or empty. */
static void write_histogram(const struct page *page, const char *name, const char *label,
                            const struct histogram_stats *stats)
{
    const char *comma = *label ? "," : "", *open = *label ? "{" : "", *close = *label ? "}" : "";
    uint64_t count = 0;
    for (int bucket = 0; bucket < HISTOGRAM_BOUNDS; bucket++) {
        count += stats->counts[bucket];
        if (bucket % HISTOGRAM_STEPS == 0)
            fprintf(page->out, "%s_bucket{%s%sle=\"%.9g\"} %" PRIu64 "\n", name, label, comma,
                    (double)histogram_bound_us(bucket) / 1e6, count);
    }
    fprintf(page->out, "%s_bucket{%s%sle=\"+Inf\"} %" PRIu64 "\n", name, label, comma, stats->total);
    fprintf(page->out, "%s_sum%s%s%s %.6f\n", name, open, label, close, (double)stats->sum_us / 1e6);
    fprintf(page->out, "%s_count%s%s%s %" PRIu64 "\n", name, open, label, close, stats->total);
}

static void write_times(const struct page *page)
{
    family(page, "proxyd_request_seconds", "histogram",
           "From taking a message to its caller's answer, unless it was refused; without callers, to its "
           "delivery.");
    for (size_t i = 0; i < page->scope->chain_count; i++) {
        char label[80];
        snprintf(label, sizeof(label), "chain=\"%s\"", conf_of(page, i)->name);
        write_histogram(page, "proxyd_request_seconds", label, &page->stats[i].requests);
    }
}

/* ---- of the whole daemon ---- */

static void write_store(const struct page *page)
{
    struct store_stats stats;
    store_stats(page->scope->store, &stats);
    single(page, "proxyd_store_usable", "gauge", "Whether the store takes messages.", stats.is_usable);
    single(page, "proxyd_store_reserve", "gauge", "Whether the store has its reserve for a full disk.",
           stats.has_reserve);
    single(page, "proxyd_store_messages_total", "counter", "Messages put and committed.",
           (double)stats.messages_total);
    single(page, "proxyd_store_bytes_written_total", "counter", "Bytes written to the database and its log.",
           (double)stats.bytes_written_total);
    family(page, "proxyd_commit_seconds", "histogram", "How long commits of the store took, syncs included.");
    write_histogram(page, "proxyd_commit_seconds", "", &stats.commits);
}

static void write_doors(const struct page *page)
{
    uint64_t totals[ZAP_VERDICTS];
    struct guard_stats guard = guard_stats();
    doors_stats(page->scope->doors, totals);
    family(page, "proxyd_auth_total", "counter", "Attempts to connect to a protected socket, by verdict.");
    for (enum zap_verdict verdict = 0; verdict < ZAP_VERDICTS; verdict++)
        fprintf(page->out, "proxyd_auth_total{verdict=\"%s\"} %" PRIu64 "\n", zap_verdict_name(verdict),
                totals[verdict]);
    single(page, "proxyd_connections", "gauge", "Connections that peers have made.",
           (double)guard.connections);
    single(page, "proxyd_connections_refused_total", "counter",
           "Connections not accepted, or given up for a newer one.", (double)guard.refused);
    single(page, "proxyd_connections_cut_total", "counter", "Connections ended for what they sent.",
           (double)guard.cut);
}

static double resident_bytes(void)
{
    long pages = 0;
    FILE *statm = fopen("/proc/self/statm", "re");
    if (!statm || fscanf(statm, "%*d %ld", &pages) != 1)
        pages = 0;
    if (statm)
        fclose(statm);
    return (double)pages * (double)sysconf(_SC_PAGESIZE);
}

static double seconds(struct timeval time)
{
    return (double)time.tv_sec + (double)time.tv_usec / 1e6;
}

static void write_process(const struct page *page)
{
    struct rusage used = {0};
    getrusage(RUSAGE_SELF, &used);
    family(page, "proxyd_build_info", "gauge", "The version; always 1.");
    fprintf(page->out, "proxyd_build_info{version=\"%s\"} 1\n", PROXYD_VERSION);
    single(page, "process_start_time_seconds", "gauge", "When the daemon started, in Unix time.",
           (double)page->scope->started_unix_s);
    single(page, "process_cpu_seconds_total", "counter", "User and system time of all threads.",
           seconds(used.ru_utime) + seconds(used.ru_stime));
    single(page, "process_resident_memory_bytes", "gauge", "Resident memory.", resident_bytes());
}

/* ---- */

static size_t take_snapshots(const struct page *page)
{
    size_t count = 0;
    while (count < page->scope->chain_count &&
           chain_stats(page->scope->chains[count], &page->stats[count]) == 0)
        count++;
    return count;
}

static void write_all(const struct page *page)
{
    write_process(page);
    write_states(page);
    write_columns(page);
    write_reasons(page);
    write_queues(page);
    write_upstreams(page);
    write_times(page);
    if (page->scope->store)
        write_store(page);
    write_doors(page);
}

char *metrics_text(const struct report_scope *scope, size_t *size)
{
    char *text = NULL;
    struct page page = {.scope = scope, .stats = calloc(scope->chain_count, sizeof(*page.stats))};
    size_t count = page.stats ? take_snapshots(&page) : 0;
    page.out = page.stats && count == scope->chain_count ? open_memstream(&text, size) : NULL;
    bool is_whole = page.out != NULL;
    if (page.out) {
        write_all(&page);
        is_whole = !ferror(page.out);
        is_whole = fclose(page.out) == 0 && is_whole;
    }
    for (size_t i = 0; i < count; i++)
        chain_stats_close(&page.stats[i]);
    free(page.stats);
    if (is_whole)
        return text;
    free(text);
    return NULL;
}
