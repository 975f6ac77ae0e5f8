/* SPDX-License-Identifier: MIT
 *
 * The verifying workers, their lanes, their memory; see verify.h. A job is in exactly one place: free, in a
 * lane, or in a worker's hands. A waiter is in `by_age` until its verdict is known, then in `answered`; `job`
 * is NULL for one that only waits for its deadline.
 */
#include "auth/verify.h"

#include "auth/clock.h"
#include "auth/digest.h"
#include "auth/limits.h"
#include "auth/secret.h"

#include <errno.h>
#include <pthread.h>
#include <sodium.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <unistd.h>

enum {
    WAYS = 8, /* rows that one digest may be remembered in */
    MINUTE_MS = 60000,
    BRAKE_KEYS = 8192,
    WORKERS_MAX = 4,
    WORKER_NICE = 5,
};

TAILQ_HEAD(waiter_list, verify_waiter);
TAILQ_HEAD(job_list, verify_job);

struct verify_job {
    TAILQ_ENTRY(verify_job) link;
    struct job_list *lane; /* the list it is in; NULL in a worker's hands */
    struct waiter_list waiters;
    int64_t forsaken_ms; /* when its last waiter left */
    bool is_stranger;    /* there is no such user: the hash is a dummy */
    struct secret_hash hash;
    uint8_t digest[DIGEST_BYTES];
    size_t name_size, password_size;
    char name[USERS_NAME_MAX], password[SECRET_PASSWORD_MAX];
};

/* A remembered credential. */
struct memory {
    uint8_t digest[DIGEST_BYTES];
    uint64_t used_at; /* by verify->uses; 0: empty */
};

struct verify {
    pthread_mutex_t mutex;
    pthread_cond_t has_work;
    pthread_t threads[WORKERS_MAX];
    unsigned thread_count;
    bool is_stopping;
    int eventfd;
    int64_t patience_ms;
    uint8_t key[DIGEST_KEY_BYTES];
    struct limits *by_address, *by_user;
    struct job_list told, quiet, running, unused;
    struct verify_job *jobs;
    struct waiter_list by_age, answered;
    size_t waiter_count; /* in by_age */
    struct memory *memories;
    uint64_t uses;
    /* The memory for hashing, in as many equal parts as there are workers. A hash takes one of them; one that
     * needs more takes all. */
    unsigned part_count, parts_taken;
    size_t part_bytes;
    void *reserves[WORKERS_MAX]; /* address space for the parts not taken; MAP_FAILED = not had */
    bool waits_for_all;          /* the next job needs all parts */
};

/* Takes address space, and under strict overcommit memory, that nobody else in this process can then use. */
static bool take_reserves(struct verify *verify, unsigned count)
{
    bool has_all = true;
    for (unsigned i = 0; i < verify->part_count && count > 0; i++) {
        if (verify->reserves[i] != MAP_FAILED)
            continue;
        verify->reserves[i] =
            mmap(NULL, verify->part_bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
        has_all &= verify->reserves[i] != MAP_FAILED;
        count--;
    }
    return has_all;
}

static void give_reserves(struct verify *verify, unsigned count)
{
    for (unsigned i = 0; i < verify->part_count && count > 0; i++) {
        if (verify->reserves[i] == MAP_FAILED)
            continue;
        munmap(verify->reserves[i], verify->part_bytes);
        verify->reserves[i] = MAP_FAILED;
        count--;
    }
}

/* As many as can work at once: on cores of their own, with memory for a usual hash each. */
static void set_parts(struct verify *verify, size_t memory_bytes)
{
    size_t usual = memory_bytes / ((size_t)SECRET_MEMORY_KIB * 1024);
    long cores = sysconf(_SC_NPROCESSORS_ONLN);
    size_t count = cores < WORKERS_MAX ? (size_t)(cores > 1 ? cores : 1) : WORKERS_MAX;
    if (count > usual)
        count = usual > 1 ? usual : 1;
    verify->part_count = (unsigned)count;
    verify->part_bytes = memory_bytes / count;
    for (size_t i = 0; i < count; i++)
        verify->reserves[i] = MAP_FAILED;
}

static struct verify_job *map_jobs(void)
{
    size_t size = VERIFY_JOBS_MAX * sizeof(struct verify_job);
    void *jobs = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (jobs == MAP_FAILED)
        return NULL;
    madvise(jobs, size, MADV_DONTDUMP); /* passwords; a kernel that cannot is no reason to stop */
    return jobs;
}

struct verify *verify_new(int64_t patience_ms, size_t memory_bytes)
{
    struct verify *verify = calloc(1, sizeof *verify);
    if (!verify)
        return NULL;
    pthread_mutex_init(&verify->mutex, NULL);
    pthread_cond_init(&verify->has_work, NULL);
    verify->eventfd = -1;
    verify->patience_ms = patience_ms;
    set_parts(verify, memory_bytes);
    TAILQ_INIT(&verify->told);
    TAILQ_INIT(&verify->quiet);
    TAILQ_INIT(&verify->running);
    TAILQ_INIT(&verify->unused);
    TAILQ_INIT(&verify->by_age);
    TAILQ_INIT(&verify->answered);
    verify->by_address = limits_new(VERIFY_FREE_FAILURES, MINUTE_MS, VERIFY_FREE_FAILURES, BRAKE_KEYS);
    verify->by_user = limits_new(VERIFY_FREE_FAILURES, MINUTE_MS, VERIFY_FREE_FAILURES, BRAKE_KEYS);
    verify->memories = calloc(VERIFY_REMEMBERED_MAX, sizeof *verify->memories);
    verify->jobs = map_jobs();
    if (!verify->by_address || !verify->by_user || !verify->memories || !verify->jobs ||
        !take_reserves(verify, verify->part_count) || secret_open()) {
        verify_free(verify);
        return NULL;
    }
    secret_random(verify->key, sizeof verify->key);
    for (size_t i = 0; i < VERIFY_JOBS_MAX; i++) {
        verify->jobs[i].lane = &verify->unused;
        TAILQ_INSERT_TAIL(&verify->unused, &verify->jobs[i], link);
    }
    return verify;
}

void verify_free(struct verify *verify)
{
    if (!verify)
        return;
    verify_stop(verify);
    if (verify->jobs) {
        secret_wipe(verify->jobs, VERIFY_JOBS_MAX * sizeof *verify->jobs);
        munmap(verify->jobs, VERIFY_JOBS_MAX * sizeof *verify->jobs);
    }
    give_reserves(verify, verify->part_count);
    free(verify->memories);
    limits_free(verify->by_address);
    limits_free(verify->by_user);
    pthread_cond_destroy(&verify->has_work);
    pthread_mutex_destroy(&verify->mutex);
    secret_wipe(verify, sizeof *verify);
    free(verify);
}

/* --- remembered credentials --- */

/* `user` NULL: a stranger's digest, which no user's can equal. */
static void make_digest(const struct verify *verify, uint8_t out[static DIGEST_BYTES],
                        const struct user *user, const char *name, size_t name_size, const char *password,
                        size_t password_size)
{
    struct digest digest;
    digest_begin(&digest, verify->key);
    digest_add(&digest, name, name_size);
    digest_add(&digest, password, password_size);
    digest_add(&digest, user ? &user->hash : NULL, user ? sizeof user->hash : 0);
    digest_end(&digest, out);
    secret_wipe(&digest, sizeof digest);
}

/* The row of a digest, or the one longest unused of those that may hold it. */
static struct memory *find_memory(const struct verify *verify, const uint8_t *digest)
{
    uint64_t number;
    memcpy(&number, digest, sizeof number);
    struct memory *set = &verify->memories[number % (VERIFY_REMEMBERED_MAX / WAYS) * WAYS], *oldest = set;
    for (struct memory *memory = set; memory < set + WAYS; memory++) {
        if (memory->used_at && sodium_memcmp(memory->digest, digest, DIGEST_BYTES) == 0)
            return memory;
        if (memory->used_at < oldest->used_at)
            oldest = memory;
    }
    return oldest;
}

static bool is_remembered(struct verify *verify, const uint8_t *digest)
{
    struct memory *memory = find_memory(verify, digest);
    if (!memory->used_at || sodium_memcmp(memory->digest, digest, DIGEST_BYTES) != 0)
        return false;
    memory->used_at = ++verify->uses;
    return true;
}

static void remember(struct verify *verify, const uint8_t *digest)
{
    struct memory *memory = find_memory(verify, digest);
    memcpy(memory->digest, digest, DIGEST_BYTES);
    memory->used_at = ++verify->uses;
}

/* --- jobs and who waits for them --- */

static void move_job(struct verify_job *job, struct job_list *lane)
{
    if (job->lane)
        TAILQ_REMOVE(job->lane, job, link);
    job->lane = lane;
    if (lane)
        TAILQ_INSERT_TAIL(lane, job, link);
}

static void answer(struct verify *verify, struct verify_waiter *waiter, enum verify_verdict verdict)
{
    if (waiter->job)
        TAILQ_REMOVE(&waiter->job->waiters, waiter, job_link);
    waiter->job = NULL;
    waiter->verdict = verdict;
    TAILQ_REMOVE(&verify->by_age, waiter, age_link);
    verify->waiter_count--;
    TAILQ_INSERT_TAIL(&verify->answered, waiter, age_link);
}

/* Its waiters are left to their deadlines, its password is wiped. */
static void drop_job(struct verify *verify, struct verify_job *job)
{
    struct verify_waiter *waiter;
    while ((waiter = TAILQ_FIRST(&job->waiters))) {
        TAILQ_REMOVE(&job->waiters, waiter, job_link);
        waiter->job = NULL;
    }
    move_job(job, NULL);
    secret_wipe(job, sizeof *job);
    job->lane = &verify->unused;
    /* At the head: while few are needed, the memory of the others is never touched. */
    TAILQ_INSERT_HEAD(&verify->unused, job, link);
}

static bool has_credit(const struct verify *verify, const struct address *address, int64_t now_ms)
{
    return limits_has(verify->by_address, address, sizeof *address, now_ms);
}

static bool may_try_quietly(const struct verify *verify, const char *name, size_t size, int64_t now_ms)
{
    return limits_has(verify->by_user, name, size, now_ms);
}

static struct verify_job *find_job(const struct verify *verify, const uint8_t *digest)
{
    const struct job_list *lanes[] = {&verify->told, &verify->quiet, &verify->running};
    for (size_t i = 0; i < sizeof lanes / sizeof *lanes; i++)
        for (struct verify_job *job = TAILQ_FIRST(lanes[i]); job; job = TAILQ_NEXT(job, link))
            if (memcmp(job->digest, digest, DIGEST_BYTES) == 0)
                return job;
    return NULL;
}

/* An empty job. For the told lane the oldest quiet one gives way. NULL when all are taken. */
static struct verify_job *take_unused(struct verify *verify, bool is_told)
{
    struct verify_job *job = TAILQ_FIRST(&verify->unused);
    if (!job && is_told && (job = TAILQ_FIRST(&verify->quiet)))
        drop_job(verify, job);
    return job;
}

/* A stranger costs what some user would, the same one every time. */
static void set_dummy_hash(const struct verify *verify, struct verify_job *job, const struct users *users)
{
    static const struct secret_hash usual = {.memory_kib = SECRET_MEMORY_KIB, .passes = SECRET_PASSES};
    uint8_t digest[DIGEST_BYTES];
    uint64_t number;
    make_digest(verify, digest, NULL, job->name, job->name_size, NULL, 0);
    memcpy(&number, digest, sizeof number);
    const struct user *user = users_any(users, number);
    secret_hash_dummy(&job->hash, user ? &user->hash : &usual);
}

/* What is asked, with all that a job must copy. */
struct question {
    const struct users *users;
    const struct user *user; /* NULL: a stranger */
    const char *name, *password;
    size_t name_size, password_size;
    uint8_t digest[DIGEST_BYTES];
};

/* The job that answers a question, in its lane; NULL when there is no room. */
static struct verify_job *find_or_make_job(struct verify *verify, const struct question *question,
                                           bool is_told)
{
    struct verify_job *job = find_job(verify, question->digest);
    if (job) {
        if (is_told && job->lane == &verify->quiet)
            move_job(job, &verify->told);
        return job;
    }
    if (!(job = take_unused(verify, is_told)))
        return NULL;
    TAILQ_INIT(&job->waiters);
    job->name_size = question->name_size;
    memcpy(job->name, question->name, question->name_size);
    job->password_size = question->password_size;
    memcpy(job->password, question->password, question->password_size);
    memcpy(job->digest, question->digest, DIGEST_BYTES);
    job->is_stranger = !question->user;
    if (question->user)
        job->hash = question->user->hash;
    else
        set_dummy_hash(verify, job, question->users);
    move_job(job, is_told ? &verify->told : &verify->quiet);
    return job;
}

/* verify_ask with the mutex held. */
static enum verify_verdict ask(struct verify *verify, const struct question *question,
                               struct verify_waiter *waiter, int64_t now_ms)
{
    if (question->user && is_remembered(verify, question->digest))
        return VERIFY_GOOD;
    if (verify->waiter_count == VERIFY_WAITERS_MAX)
        return VERIFY_OVERLOADED;
    bool is_told = has_credit(verify, &waiter->address, now_ms);
    bool is_quiet =
        !is_told && question->user && may_try_quietly(verify, question->name, question->name_size, now_ms);
    waiter->job = is_told || is_quiet ? find_or_make_job(verify, question, is_told) : NULL;
    if (is_told && !waiter->job)
        return VERIFY_OVERLOADED;
    if (waiter->job)
        TAILQ_INSERT_TAIL(&waiter->job->waiters, waiter, job_link);
    waiter->deadline_ms = now_ms + verify->patience_ms;
    TAILQ_INSERT_TAIL(&verify->by_age, waiter, age_link);
    verify->waiter_count++;
    pthread_cond_signal(&verify->has_work);
    return VERIFY_WAIT;
}

enum verify_verdict verify_ask(struct verify *verify, const struct users *users, const char *name,
                               size_t name_size, const char *password, size_t password_size,
                               struct verify_waiter *waiter, int64_t now_ms)
{
    struct question question = {
        .users = users,
        .user = users_find(users, name, name_size),
        .name = name,
        .name_size = name_size,
        .password = password,
        .password_size = password_size,
    };
    make_digest(verify, question.digest, question.user, name, name_size, password, password_size);
    waiter->fingerprint = question.user ? question.user->fingerprint : 0;
    pthread_mutex_lock(&verify->mutex);
    enum verify_verdict verdict = ask(verify, &question, waiter, now_ms);
    pthread_mutex_unlock(&verify->mutex);
    return verdict;
}

/* A job that nobody waits for any more is kept for a while: its result may be of use. */
static void leave_job(struct verify *verify, struct verify_job *job, int64_t now_ms)
{
    if (!job || !job->lane || !TAILQ_EMPTY(&job->waiters))
        return;
    job->forsaken_ms = now_ms;
    move_job(job, &verify->quiet);
}

int64_t verify_tick(struct verify *verify, int64_t now_ms)
{
    struct verify_waiter *waiter;
    struct verify_job *job;
    pthread_mutex_lock(&verify->mutex);
    while ((waiter = TAILQ_FIRST(&verify->by_age)) && waiter->deadline_ms <= now_ms) {
        job = waiter->job;
        answer(verify, waiter, job ? VERIFY_OVERLOADED : VERIFY_SLOWED);
        leave_job(verify, job, now_ms);
    }
    while ((job = TAILQ_FIRST(&verify->quiet)) && TAILQ_EMPTY(&job->waiters) &&
           now_ms - job->forsaken_ms >= verify->patience_ms)
        drop_job(verify, job);
    int64_t wait_ms = waiter ? waiter->deadline_ms - now_ms : -1;
    pthread_mutex_unlock(&verify->mutex);
    return wait_ms;
}

struct verify_waiter *verify_take(struct verify *verify)
{
    pthread_mutex_lock(&verify->mutex);
    struct verify_waiter *waiter = TAILQ_FIRST(&verify->answered);
    if (waiter)
        TAILQ_REMOVE(&verify->answered, waiter, age_link);
    pthread_mutex_unlock(&verify->mutex);
    return waiter;
}

/* --- the workers --- */

static bool has_told_waiter(const struct verify *verify, const struct verify_job *job, int64_t now_ms)
{
    for (const struct verify_waiter *waiter = TAILQ_FIRST(&job->waiters); waiter;
         waiter = TAILQ_NEXT(waiter, job_link))
        if (has_credit(verify, &waiter->address, now_ms))
            return true;
    return false;
}

static bool is_worth_quiet_work(const struct verify *verify, const struct verify_job *job, int64_t now_ms)
{
    return !job->is_stranger && may_try_quietly(verify, job->name, job->name_size, now_ms);
}

/* The next job to hash for. Credit may have gone since it was asked for: the burst that used it up costs
 * twenty hashes, not its own length. */
static struct verify_job *pick_job(struct verify *verify, int64_t now_ms)
{
    struct verify_job *job;
    while ((job = TAILQ_FIRST(&verify->told)) && !has_told_waiter(verify, job, now_ms))
        move_job(job, &verify->quiet);
    if (job)
        return job;
    while ((job = TAILQ_FIRST(&verify->quiet)) && !is_worth_quiet_work(verify, job, now_ms))
        drop_job(verify, job);
    return job;
}

/* Those in credit are told and charged, each address once; the others keep waiting for their deadlines. */
static void conclude_bad(struct verify *verify, struct verify_job *job, int64_t now_ms)
{
    struct verify_waiter *waiter, *next;
    struct address charged = {.family = ADDRESS_NONE};
    bool is_charged = false;
    for (waiter = TAILQ_FIRST(&job->waiters); waiter; waiter = next) {
        next = TAILQ_NEXT(waiter, job_link);
        bool is_same = is_charged && memcmp(&charged, &waiter->address, sizeof charged) == 0;
        if (!is_same && !limits_take(verify->by_address, &waiter->address, sizeof waiter->address, now_ms))
            continue;
        charged = waiter->address;
        is_charged = true;
        answer(verify, waiter, VERIFY_BAD);
    }
    if (!is_charged)
        limits_take(verify->by_user, job->name, job->name_size, now_ms);
}

static void conclude(struct verify *verify, struct verify_job *job, enum secret_verdict verdict,
                     int64_t now_ms)
{
    struct verify_waiter *waiter;
    if (verdict == SECRET_EQUAL && job->is_stranger)
        verdict = SECRET_DIFFERENT;
    if (verdict == SECRET_EQUAL)
        remember(verify, job->digest);
    if (verdict == SECRET_DIFFERENT)
        conclude_bad(verify, job, now_ms);
    else
        while ((waiter = TAILQ_FIRST(&job->waiters)))
            answer(verify, waiter, verdict == SECRET_EQUAL ? VERIFY_GOOD : VERIFY_OVERLOADED);
    drop_job(verify, job);
}

static unsigned parts_of(const struct verify *verify, const struct verify_job *job)
{
    return (size_t)job->hash.memory_kib * 1024 > verify->part_bytes ? verify->part_count : 1;
}

/* The next job, in the caller's hands, with its memory given free; NULL when there is none, or too little memory
 * until others have ended. */
static struct verify_job *begin_job(struct verify *verify, int64_t now_ms)
{
    struct verify_job *job = pick_job(verify, now_ms);
    if (!job)
        return NULL;
    unsigned parts = parts_of(verify, job);
    verify->waits_for_all = verify->parts_taken + parts > verify->part_count;
    if (verify->waits_for_all)
        return NULL;
    move_job(job, NULL);
    TAILQ_INSERT_TAIL(&verify->running, job, link);
    verify->parts_taken += parts;
    give_reserves(verify, parts);
    return job;
}

static void end_job(struct verify *verify, struct verify_job *job, enum secret_verdict verdict,
                    int64_t now_ms)
{
    unsigned parts = parts_of(verify, job);
    TAILQ_REMOVE(&verify->running, job, link);
    verify->parts_taken -= parts;
    take_reserves(verify, parts);
    conclude(verify, job, verdict, now_ms);
    if (verify->waits_for_all)
        pthread_cond_broadcast(&verify->has_work);
    verify->waits_for_all = false;
}

bool verify_work(struct verify *verify, int64_t now_ms)
{
    pthread_mutex_lock(&verify->mutex);
    struct verify_job *job = begin_job(verify, now_ms);
    if (job) {
        pthread_mutex_unlock(&verify->mutex);
        enum secret_verdict verdict = secret_hash_check(&job->hash, job->password, job->password_size);
        pthread_mutex_lock(&verify->mutex);
        end_job(verify, job, verdict, now_ms);
    }
    bool has_answers = !TAILQ_EMPTY(&verify->answered);
    pthread_mutex_unlock(&verify->mutex);
    if (has_answers && verify->eventfd >= 0)
        eventfd_write(verify->eventfd, 1);
    return job;
}

static void *run(void *context)
{
    struct verify *verify = context;
    pthread_setname_np(pthread_self(), "auth-verify");
    setpriority(PRIO_PROCESS, (id_t)gettid(), WORKER_NICE); /* on Linux: of this thread */
    for (;;) {
        pthread_mutex_lock(&verify->mutex);
        while (!verify->is_stopping &&
               (verify->waits_for_all || (TAILQ_EMPTY(&verify->told) && TAILQ_EMPTY(&verify->quiet))))
            pthread_cond_wait(&verify->has_work, &verify->mutex);
        bool is_stopping = verify->is_stopping;
        pthread_mutex_unlock(&verify->mutex);
        if (is_stopping)
            return NULL;
        verify_work(verify, clock_now_ms());
    }
}

int verify_start(struct verify *verify, int eventfd)
{
    verify->eventfd = eventfd;
    int error = 0;
    while (!error && verify->thread_count < verify->part_count) {
        error = pthread_create(&verify->threads[verify->thread_count], NULL, run, verify);
        verify->thread_count += !error;
    }
    errno = error;
    return verify->thread_count > 0 ? 0 : -1;
}

void verify_stop(struct verify *verify)
{
    pthread_mutex_lock(&verify->mutex);
    verify->is_stopping = true;
    pthread_cond_broadcast(&verify->has_work);
    pthread_mutex_unlock(&verify->mutex);
    while (verify->thread_count > 0)
        pthread_join(verify->threads[--verify->thread_count], NULL);
}
