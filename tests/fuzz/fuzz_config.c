/* links: proxyd/config.c proxyd/config_keys.c proxyd/config_source.c proxies/endpoint.c proxies/kinds.c */
/* links: proxies/dialect.c proxies/dialect_raw.c proxies/dialect_pyzmqrpc.c proxies/dialect_jsonrpc.c */
/* links: proxies/dialect_red.c proxies/dialect_zmqframework.c proxies/dialect_json.c proxies/json_span.c */
/* links: proxies/ledger.c buffer/message.c */
/* links: auth/address.c auth/digest.c auth/keygen.c auth/secret.c auth/users.c */
/* SPDX-License-Identifier: MIT
 *
 * Any bytes as a configuration: no crash, either a tree or problems that begin as they should, and nothing in
 * a tree that a chain could not run on. The kinds' parts are empty here: a loader never calls them.
 */
#include "proxies/back.h"
#include "proxies/front.h"
#include "proxies/websocket.h"
#include "proxyd/config.h"
#include "tests/fuzz/fuzz.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

const struct front_ops front_rep, front_sub;
const struct back_ops back_req, back_pub, back_workers;

/* The library is there, and not loaded. */
int websockets_check(char *err, size_t err_size)
{
    (void)err;
    (void)err_size;
    return 0;
}

/* libconfig 1.5 loses a text that a syntax error follows; LeakSanitizer asks here what it may overlook. */
const char *__lsan_default_suppressions(void);
const char *__lsan_default_suppressions(void)
{
    return "leak:libconfig.so";
}

static void check_problem(const char *line)
{
    const char *owner = strstr(line, ": daemon: ") ? strstr(line, ": daemon: ") : strstr(line, ": chain \"");
    FUZZ_CHECK(owner != NULL);
    FUZZ_CHECK(strcspn(line, "\n\r\033") == strlen(line));
}

static void check_credentials(const struct credentials *credentials)
{
    FUZZ_CHECK((credentials->username == NULL) == (credentials->password == NULL));
    FUZZ_CHECK(credentials->password == NULL || strlen(credentials->password) <= 255);
}

static void check_chain(const struct chain_conf *chain)
{
    FUZZ_CHECK(chain->kind != NULL && chain->dialect != NULL);
    FUZZ_CHECK(strlen(chain->name) >= 1 && strlen(chain->name) <= 64);
    FUZZ_CHECK(chain->frontend.endpoints.count > 0 && chain->backend.endpoints.count > 0);
    FUZZ_CHECK(chain->backend.window > 0 && chain->backend.hwm > 0);
    FUZZ_CHECK(chain->backend.backoff_ms > 0 && chain->backend.backoff_ms <= chain->backend.backoff_max_ms);
    FUZZ_CHECK(chain->frontend.backoff_ms > 0 &&
               chain->frontend.backoff_ms <= chain->frontend.backoff_max_ms);
    FUZZ_CHECK(chain->queue.max_bytes >= 0 && chain->queue.max_messages >= 0 && chain->queue.max_age_ms >= 0);
    check_credentials(&chain->frontend.credentials);
    check_credentials(&chain->backend.credentials);
}

FUZZ_TARGET(fuzz_config)
{
    char path[64];
    struct config_problems problems;
    int fd = memfd_create("config", MFD_CLOEXEC);
    FUZZ_CHECK(fd >= 0 && write(fd, data, size) == (ssize_t)size);
    snprintf(path, sizeof(path), "/proc/self/fd/%d", fd);
    struct config *config = config_load(path, &problems);
    FUZZ_CHECK((config == NULL) == (problems.count > 0));
    for (size_t i = 0; i < problems.count; i++)
        check_problem(problems.lines[i]);
    for (size_t i = 0; config && i < config->chain_count; i++)
        check_chain(config->chains[i]);
    config_problems_close(&problems);
    config_free(config);
    close(fd);
    return 0;
}
