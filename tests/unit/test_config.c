/* links: proxyd/config.c proxyd/config_keys.c proxyd/config_source.c proxies/endpoint.c proxies/kinds.c */
/* links: proxies/dialect.c proxies/dialect_raw.c proxies/dialect_pyzmqrpc.c proxies/dialect_jsonrpc.c */
/* links: proxies/dialect_red.c proxies/dialect_zmqframework.c proxies/dialect_json.c proxies/json_span.c */
/* links: proxies/ledger.c buffer/message.c */
/* links: auth/address.c auth/digest.c auth/keygen.c auth/secret.c auth/users.c */
/* links: tests/fuzz/fuzz_config.c tests/fuzz/replay.c */
/* SPDX-License-Identifier: MIT
 *
 * Files as a user writes them, and what the loader makes of them or says about them, to the letter. The
 * kinds' parts come empty from the fuzz target.
 */
#include "proxyd/config.h"

#include "proxies/dialect.h"
#include "proxies/door.h"
#include "proxies/kinds.h"
#include "proxyd/config_keys.h"
#include "tests/fuzz/fuzz.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cmocka.h>

fuzz_fn fuzz_config;

/* Each test runs in an empty folder of its own and calls its file "c". */
static char home[1000], folder[] = "/tmp/proxyd-config-XXXXXX";

static int enter(void **state)
{
    (void)state;
    strcpy(folder + strlen(folder) - 6, "XXXXXX");
    return getcwd(home, sizeof(home)) && mkdtemp(folder) && chdir(folder) == 0 ? 0 : -1;
}

static int leave(void **state)
{
    (void)state;
    char command[100];
    snprintf(command, sizeof(command), "rm -rf %s", folder);
    return chdir(home) == 0 && system(command) == 0 ? 0 : -1;
}

static void write_bytes(const char *path, const void *bytes, size_t size)
{
    FILE *file = fopen(path, "w");
    assert_non_null(file);
    assert_int_equal(fwrite(bytes, 1, size, file), size);
    fclose(file);
}

static void write_file(const char *path, const char *text)
{
    write_bytes(path, text, strlen(text));
}

/* All problems of the file, one a line; static. */
static const char *problems_of(const char *path,
                               struct config *(*load)(const char *, struct config_problems *))
{
    static char all[20000];
    struct config_problems problems;
    size_t size = 0;
    struct config *config = load(path, &problems);
    all[0] = '\0';
    for (size_t i = 0; i < problems.count; i++)
        size += (size_t)snprintf(all + size, sizeof(all) - size, "%s\n", problems.lines[i]);
    assert_int_equal(config == NULL, problems.count > 0);
    config_problems_close(&problems);
    config_free(config);
    return all;
}

static void expect(const char *text, const char *problems)
{
    write_file("c", text);
    assert_string_equal(problems_of("c", config_load), problems);
}

static struct config *loaded(const char *text)
{
    struct config_problems problems;
    write_file("c", text);
    struct config *config = config_load("c", &problems);
    if (!config)
        fail_msg("%s", problems.lines[0]);
    config_problems_close(&problems);
    return config;
}

/* A file with one chain "a" of which the interesting keys are given; everything stands on one line. */
static const char *chain_with(const char *kind, const char *front, const char *back, const char *rest)
{
    static char text[5000];
    bool is_rep = strstr(kind, "rep-") != NULL, is_req = strstr(kind, "-req") != NULL;
    snprintf(text, sizeof(text),
             "chains = ( { name = \"a\"; kind = \"%s\"; frontend = { endpoints = [ \"%s\" ]; %s };"
             " backend = { endpoints = [ \"%s\" ]; %s }; %s } );",
             kind, is_rep ? "tcp://*:1" : "tcp://in:1", front, is_req ? "tcp://out:2" : "tcp://*:2", back,
             rest);
    return text;
}

static void refuse_front(const char *kind, const char *front, const char *message)
{
    char problems[2000];
    snprintf(problems, sizeof(problems), "c:1: chain \"a\": %s\n", message);
    expect(chain_with(kind, front, "", ""), problems);
}

static void refuse_back(const char *kind, const char *back, const char *message)
{
    char problems[2000];
    snprintf(problems, sizeof(problems), "c:1: chain \"a\": %s\n", message);
    expect(chain_with(kind, "", back, ""), problems);
}

static void refuse_rest(const char *kind, const char *rest, const char *message)
{
    char problems[2000];
    snprintf(problems, sizeof(problems), "c:1: chain \"a\": %s\n", message);
    expect(chain_with(kind, "", "", rest), problems);
}

static void refuse_daemon(const char *keys, const char *message)
{
    char text[1000], problems[1000];
    snprintf(text, sizeof(text), "daemon = {\n %s\n};\n%s", keys, chain_with("rep-req", "", "", ""));
    snprintf(problems, sizeof(problems), "c:2: daemon: %s\n", message);
    expect(text, problems);
}

/* ---- What is loaded ---- */

static void defaults_are_those_of_the_contract(void **state)
{
    (void)state;
    struct config *config = loaded(chain_with("rep-req", "", "", ""));
    const struct daemon_conf *daemon = &config->daemon;
    const struct chain_conf *chain = config->chains[0];
    assert_string_equal(config->path, "c");
    assert_string_equal(daemon->state_dir, "/var/lib/proxyd");
    assert_string_equal(daemon->control, "ipc:///run/proxyd/control.sock");
    assert_string_equal(daemon->control_group, "");
    assert_string_equal(daemon->http, "");
    assert_string_equal(daemon->users, "/etc/proxyd/users");
    assert_int_equal(daemon->log_level, 2);
    assert_int_equal(daemon->log_format, 0);
    assert_int_equal(daemon->drain_timeout_ms, 5000);
    assert_int_equal(daemon->auth_memory_bytes, 64 << 20);
    assert_int_equal(daemon->max_connections, 4096);
    assert_int_equal(daemon->max_connections_per_address, 1024);
    assert_int_equal(config->chain_count, 1);
    assert_string_equal(chain->name, "a");
    assert_ptr_equal(chain->kind, kind_find("rep-req"));
    assert_ptr_equal(chain->dialect, dialect_find("raw"));
    assert_int_equal(chain->frontend.max_message_bytes, 1 << 20);
    assert_int_equal(chain->frontend.max_frames, 64);
    assert_null(chain->backend.credentials.username);
    assert_null(chain->backend.credentials.password);
    assert_int_equal(chain->backend.timeout_ms, 5000);
    assert_int_equal(chain->backend.retries, 0);
    assert_int_equal(chain->backend.backoff_ms, 200);
    assert_int_equal(chain->backend.backoff_max_ms, 2000);
    assert_int_equal(chain->backend.window, 16);
    assert_int_equal(chain->backend.correlation, CORRELATION_AUTO);
    assert_int_equal(chain->backend.balance, BALANCE_ROUND_ROBIN);
    assert_int_equal(chain->queue.max_messages, 10000);
    assert_int_equal(chain->queue.max_bytes, 64 << 20);
    assert_int_equal(chain->queue.max_age_ms, 30000);
    assert_int_equal(chain->queue.when_full, QUEUE_REJECT);
    assert_int_equal(chain->queue.max_attempts, 0);
    config_free(config);
}

static void defaults_follow_kind_and_dialect(void **state)
{
    (void)state;
    struct config *config = loaded(chain_with("sub-pub", "", "", "dialect = \"pyzmqrpc\";"));
    const struct chain_conf *chain = config->chains[0];
    assert_int_equal(chain->frontend.recreate_after_ms, 600000);
    assert_int_equal(chain->frontend.subscribe.count, 1);
    assert_string_equal(chain->frontend.subscribe.items[0], "");
    assert_int_equal(chain->backend.hwm, 1000);
    assert_int_equal(chain->backend.heartbeat_ms, 0);
    assert_int_equal(chain->queue.max_age_ms, 0);
    assert_int_equal(chain->queue.when_full, QUEUE_DROP_OLDEST);
    config_free(config);
    config = loaded(chain_with("sub-req", "", "", ""));
    assert_int_equal(config->chains[0]->frontend.recreate_after_ms, 0);
    config_free(config);
}

static void every_key_reaches_its_field(void **state)
{
    (void)state;
    struct config *config = loaded(
        "daemon = { state_dir = \"/s\"; control = \"ipc:///c\"; control_group = \"root\"; users = \"/u\";\n"
        "  log_level = \"debug\"; log_format = \"json\"; drain_timeout = \"1m\"; auth_memory = \"1GiB\";\n"
        "  max_connections = 7; max_connections_per_address = 0; };\n"
        "chains = (\n"
        "  { name = \"r-1._\"; kind = \"rep-req\"; dialect = \"pyzmqrpc\";\n"
        "    frontend = { endpoints = [ \"tcp://*:1\", \">tcp://b:2\" ]; max_message = \"3KiB\"; max_frames "
        "= 4; };\n"
        "    backend = { endpoints = ( \"tcp://a:1\" ); username = \"u\"; password = \"p\\x41\\n\"; timeout "
        "= \"2h\";\n"
        "      retries = 3; backoff = \"4ms\"; backoff_max = \"5s\"; window = 6; correlation = "
        "\"envelope\";\n"
        "      balance = \"all\"; };\n"
        "    queue = { max_messages = 8; max_bytes = \"9MiB\"; max_age = \"2d\"; when_full = \"block\"; }; "
        "},\n"
        "  { name = \"s\"; kind = \"sub-req\";\n"
        "    frontend = { endpoints = [ \"tcp://a:1\" ]; subscribe = [ \"x\", \"y\" ]; recreate_after = "
        "\"7s\";\n"
        "      backoff = \"8ms\"; backoff_max = \"9s\"; username = \"v\"; password = \"q\"; };\n"
        "    backend = { endpoints = [ \"tcp://a:1\" ]; }; queue = { max_attempts = 10; }; },\n"
        "  { name = \"p\"; kind = \"rep-pub\"; dialect = \"pyzmqrpc\"; frontend = { endpoints = [ "
        "\"ipc://@p\" ]; };\n"
        "    backend = { endpoints = [ \"inproc://p\" ]; heartbeat = \"11s\"; hwm = 12; }; } );\n");
    const struct daemon_conf *daemon = &config->daemon;
    const struct chain_conf *rep = config->chains[0], *sub = config->chains[1], *pub = config->chains[2];
    assert_string_equal(daemon->state_dir, "/s");
    assert_string_equal(daemon->control, "ipc:///c");
    assert_string_equal(daemon->control_group, "root");
    assert_string_equal(daemon->users, "/u");
    assert_int_equal(daemon->log_level, 3);
    assert_int_equal(daemon->log_format, 1);
    assert_int_equal(daemon->drain_timeout_ms, 60000);
    assert_int_equal(daemon->auth_memory_bytes, 1 << 30);
    assert_int_equal(daemon->max_connections, 7);
    assert_int_equal(daemon->max_connections_per_address, 0);
    assert_string_equal(rep->name, "r-1._");
    assert_string_equal(rep->dialect->name, "pyzmqrpc");
    assert_int_equal(rep->frontend.endpoints.count, 2);
    assert_true(rep->frontend.endpoints.items[0].is_bind);
    assert_false(rep->frontend.endpoints.items[1].is_bind);
    assert_int_equal(rep->frontend.max_message_bytes, 3 << 10);
    assert_int_equal(rep->frontend.max_frames, 4);
    assert_false(rep->backend.endpoints.items[0].is_bind);
    assert_string_equal(rep->backend.credentials.username, "u");
    assert_string_equal(rep->backend.credentials.password, "pA\n");
    assert_int_equal(rep->backend.timeout_ms, 2 * 3600 * 1000);
    assert_int_equal(rep->backend.retries, 3);
    assert_int_equal(rep->backend.backoff_ms, 4);
    assert_int_equal(rep->backend.backoff_max_ms, 5000);
    assert_int_equal(rep->backend.window, 6);
    assert_int_equal(rep->backend.correlation, CORRELATION_ENVELOPE);
    assert_int_equal(rep->backend.balance, BALANCE_ALL);
    assert_int_equal(rep->queue.max_messages, 8);
    assert_int_equal(rep->queue.max_bytes, 9 << 20);
    assert_int_equal(rep->queue.max_age_ms, 2 * 24 * 3600 * 1000);
    assert_int_equal(rep->queue.when_full, QUEUE_BLOCK);
    assert_false(sub->frontend.endpoints.items[0].is_bind);
    assert_int_equal(sub->frontend.subscribe.count, 2);
    assert_string_equal(sub->frontend.subscribe.items[1], "y");
    assert_int_equal(sub->frontend.recreate_after_ms, 7000);
    assert_int_equal(sub->frontend.backoff_ms, 8);
    assert_int_equal(sub->frontend.backoff_max_ms, 9000);
    assert_string_equal(sub->frontend.credentials.username, "v");
    assert_string_equal(sub->frontend.credentials.password, "q");
    assert_int_equal(sub->queue.max_attempts, 10);
    assert_true(pub->backend.endpoints.items[0].is_bind);
    assert_int_equal(pub->backend.heartbeat_ms, 11000);
    assert_int_equal(pub->backend.hwm, 12);
    config_free(config);
}

static void zero_switches_limits_off(void **state)
{
    (void)state;
    struct config *config =
        loaded(chain_with("rep-req", "max_message = 0; max_frames = 0;", "timeout = \"0\";",
                          "queue = { max_messages = 0; max_bytes = 0; max_age = 0; };"));
    assert_int_equal(config->chains[0]->frontend.max_message_bytes, 0);
    assert_int_equal(config->chains[0]->backend.timeout_ms, 0);
    assert_int_equal(config->chains[0]->queue.max_bytes, 0);
    assert_int_equal(config->chains[0]->queue.max_age_ms, 0);
    config_free(config);
}

static void what_changes_nothing_may_be_written(void **state)
{
    (void)state;
    config_free(loaded(chain_with("rep-req", "auth = \"none\"; rate = 0; burst = 0; users = [ \"*\" ];", "",
                                  "queue = { store = \"memory\"; drain_rate = 0; };")));
    config_free(loaded(chain_with("sub-pub", "", "auth = \"none\"; users = [ \"*\" ];", "")));
}

static void an_unwritten_backoff_gives_way(void **state)
{
    (void)state;
    struct config *config = loaded(chain_with("rep-req", "", "backoff = \"5s\";", ""));
    assert_int_equal(config->chains[0]->backend.backoff_max_ms, 5000);
    config_free(config);
    config = loaded(chain_with("sub-pub", "backoff_max = \"50ms\";", "", ""));
    assert_int_equal(config->chains[0]->frontend.backoff_ms, 50);
    config_free(config);
}

static void password_file_loses_one_newline(void **state)
{
    (void)state;
    write_file("pw", "secret\n\n");
    chmod("pw", 0640);
    struct config *config =
        loaded(chain_with("rep-req", "", "username = \"u\"; password_file = \"pw\";", ""));
    assert_string_equal(config->chains[0]->backend.credentials.password, "secret\n");
    config_free(config);
    char longest[256];
    memset(longest, 'x', 255);
    longest[255] = '\n';
    write_bytes("pw", longest, 256);
    config = loaded(chain_with("rep-req", "", "username = \"u\"; password_file = \"pw\";", ""));
    assert_int_equal(strlen(config->chains[0]->backend.credentials.password), 255);
    config_free(config);
}

static void daemon_alone_needs_no_sound_chains(void **state)
{
    (void)state;
    struct config_problems problems;
    write_file("c", "daemon = { control = \"ipc:///x\"; };\nchains = ( { kind = 5; } );\n");
    struct config *config = config_load_daemon("c", &problems);
    assert_non_null(config);
    assert_string_equal(config->daemon.control, "ipc:///x");
    assert_int_equal(config->chain_count, 0);
    config_free(config);
    config_problems_close(&problems);
    assert_string_equal(problems_of("missing", config_load_daemon), "missing: No such file or directory\n");
}

/* ---- What is refused ---- */

static void all_problems_come_in_the_order_of_the_file(void **state)
{
    (void)state;
    expect("chains = (\n"
           "  { name = \"a\";\n"
           "    kind = \"rep-req\";\n"
           "    backend = { endpoints = [ \"tcp://b:1\",\n"
           "                              \"tcp://b\",\n"
           "                              \"udp://b:1\"\n"
           "    ]; window = 0; };\n"
           "    frontend = {\n"
           "      endpoints = [ \"tcp://*:1\" ];\n"
           "      max_frames = \"many\"; }; },\n"
           "  { kind = \"rep-pub\"; backend = { }; }\n"
           ");\n"
           "daemon = {\n"
           "  log_level = \"loud\";\n"
           "};\n"
           "chain = 5;\n",
           "c:5: chain \"a\": backend.endpoints: endpoint \"tcp://b\": there is no port\n"
           "c:6: chain \"a\": backend.endpoints: endpoint \"udp://b:1\": an endpoint begins with tcp://, "
           "ipc://, inproc://, ws:// or wss://\n"
           "c:7: chain \"a\": backend.window must be from 1 to 100000\n"
           "c:10: chain \"a\": frontend.max_frames must be a whole number\n"
           "c:11: chain \"#2\": name is missing\n"
           "c:11: chain \"#2\": frontend is missing\n"
           "c:11: chain \"#2\": backend.endpoints is missing\n"
           "c:14: daemon: log_level must be one of error, warning, info, debug\n"
           "c:16: daemon: unknown key \"chain\"; did you mean \"chains\"?\n");
}

static void unreadable_file_is_named(void **state)
{
    (void)state;
    assert_string_equal(problems_of("missing", config_load), "missing: No such file or directory\n");
    assert_string_equal(problems_of(folder, config_load) + strlen(folder), ": Is a directory\n");
    assert_string_equal(problems_of("/dev/zero", config_load), "/dev/zero: this is not a regular file\n");
    write_file("c", "");
    assert_int_equal(truncate("c", 5 << 20), 0);
    assert_string_equal(problems_of("c", config_load), "c: all files together are larger than 4 MiB\n");
}

static void a_file_needs_chains(void **state)
{
    (void)state;
    expect("", "c:1: daemon: chains is missing\n");
    expect("\nchains = ( );", "c:2: daemon: there are no chains\n");
    expect("chains = { };", "c:1: daemon: chains must be a list of groups ( { ... }, { ... } )\n");
    expect("chains = (\n 5 );", "c:2: chain \"#1\": a chain must be a group { ... }\n");
}

static void syntax_errors_have_their_line(void **state)
{
    (void)state;
    expect("a = 1;\n\nb = ;\n", "c:3: daemon: syntax error\n");
    expect("a = 1;\nb = 2;\na = 3;\n", "c:3: daemon: duplicate setting name\n");
    expect("a = 1;\nb = \"open;\nc = 3;\n", "c:2: daemon: this text has no closing quote on its line\n");
    expect("a = 1;\n/* open\n\n", "c:2: daemon: this comment has no end\n");
    expect("a = \"\\x00\";\n", "c:1: daemon: a text cannot hold a NUL byte (\\x00)\n");
    expect("/* one\n two */ # three\n// four\n\n }", "c:5: daemon: syntax error\n");
    write_bytes("c", "a = 1;\n\0", 8);
    assert_string_equal(problems_of("c", config_load), "c:2: daemon: there is a NUL byte\n");
}

static void nesting_is_bounded(void **state)
{
    (void)state;
    char text[100] = "a = ";
    memset(text + 4, '(', 60);
    expect(text, "c:1: daemon: more than 32 brackets are open\n");
}

static void includes_keep_their_names_and_lines(void **state)
{
    (void)state;
    mkdir("d", 0700);
    write_file("d/daemon", "daemon = {\n  log_level = 5;\n @include \"rest\"\n  httb = \"\"; };\n");
    write_file("d/rest", "\n# a comment\n  users = 6;");
    expect("@include \"d/daemon\"\nchains = 7;\n",
           "d/daemon:2: daemon: log_level must be one of error, warning, info, debug\n"
           "d/rest:3: daemon: users must be a text \"...\"\n"
           "d/daemon:4: daemon: unknown key \"httb\"; did you mean \"http\"?\n"
           "c:2: daemon: chains must be a list of groups ( { ... }, { ... } )\n");
}

static void byte_order_mark_is_no_syntax_error(void **state)
{
    (void)state;
    write_file("more", "\xEF\xBB\xBF"
                       "chains = ( );\n");
    expect("\xEF\xBB\xBF"
           "@include \"more\"\n",
           "more:1: daemon: there are no chains\n");
    expect("daemon = {\n\xEF\xBB\xBF};\n", "c:2: daemon: syntax error\n");
}

static void bad_includes_are_refused(void **state)
{
    (void)state;
    expect("\n@include \"missing\"\n",
           "c:2: daemon: cannot include \"missing\": No such file or directory\n");
    expect("@include \"/\"\n", "c:1: daemon: cannot include \"/\": Is a directory\n");
    expect("@include \"/dev/zero\"\n",
           "c:1: daemon: cannot include \"/dev/zero\": this is not a regular file\n");
    expect("@include \"c\"\n", "c:1: daemon: includes are more than 10 deep\n");
    expect("@include missing\n", "c:1: daemon: syntax error\n");
    expect("# @include \"missing\"\nchains = ( );", "c:2: daemon: there are no chains\n");
}

static void wrong_types_say_what_is_right(void **state)
{
    (void)state;
    refuse_back("rep-req", "window = \"16\";", "backend.window must be a whole number");
    refuse_back("rep-req", "window = 1.5;", "backend.window must be a whole number");
    refuse_back("rep-req", "username = 5; password = \"x\";", "backend.username must be a text \"...\"");
    refuse_back("rep-req", "correlation = true;",
                "backend.correlation must be one of auto, lockstep, envelope");
    refuse_front("sub-req", "subscribe = \"x\";",
                 "frontend.subscribe must be a list of texts [ \"...\", \"...\" ]");
    refuse_front("sub-req", "subscribe = ( \"x\", 5 );",
                 "frontend.subscribe must be a list of texts [ \"...\", \"...\" ]");
    refuse_rest("rep-req", "queue = 5;", "queue must be a group { ... }");
    refuse_rest("rep-req", "dialect = 5;", "dialect must be a text \"...\"");
    expect("daemon = 5;\nchains = ( );", "c:1: daemon: daemon must be a group { ... }\n"
                                         "c:2: daemon: there are no chains\n");
    expect("chains = ( { name = \"a\"; kind = \"rep-req\"; frontend = 5; backend = [ ]; } );",
           "c:1: chain \"a\": frontend must be a group { ... }\n"
           "c:1: chain \"a\": backend must be a group { ... }\n");
}

static void numbers_beyond_their_range_are_refused(void **state)
{
    (void)state;
    refuse_back("rep-req", "window = -1;", "backend.window must be from 1 to 100000");
    refuse_back("rep-pub", "hwm = 0;", "backend.hwm must be from 1 to 10000000");
    refuse_front("rep-req", "max_frames = 4294967297;",
                 "frontend.max_frames must be from 1 to 1000000, or 0 = off");
    refuse_front("rep-req", "max_frames = 0x100000001;",
                 "frontend.max_frames must be from 1 to 1000000, or 0 = off");
    refuse_front("rep-req", "max_frames = 99999999999999999999;",
                 "frontend.max_frames must be from 1 to 1000000, or 0 = off");
    refuse_back("rep-req", "username = \"\"; password = \"x\";",
                "backend.username must have from 1 to 255 bytes");
    refuse_back("rep-req", "backoff = 0;", "backend.backoff must be from 1ms to 24h");
    refuse_daemon("drain_timeout = \"25h\";", "drain_timeout must be from 1ms to 24h");
}

static void durations_and_sizes_need_their_unit(void **state)
{
    (void)state;
    static const char *const durations[] = {"5",
                                            "\"5\"",
                                            "\"5 s\"",
                                            "\"1.5s\"",
                                            "\"s\"",
                                            "\"-5s\"",
                                            "\"5sec\"",
                                            "\"99999999999999999999s\"",
                                            "\"9223372036854775807s\"",
                                            "\"\"",
                                            "\"0x5s\""};
    static const char *const sizes[] = {"65536", "\"64M\"", "\"64MB\"", "\"64mib\"",
                                        "\"9223372036854775807KiB\""};
    for (size_t i = 0; i < sizeof(durations) / sizeof(durations[0]); i++) {
        char back[100];
        snprintf(back, sizeof(back), "timeout = %s;", durations[i]);
        refuse_back(
            "rep-req", back,
            "backend.timeout must be a duration with its unit, such as \"250ms\", \"5s\", \"10m\", \"24h\", "
            "\"7d\"");
    }
    refuse_rest("sub-req", "queue = { sync = \"never\"; };",
                "queue.sync must be a duration with its unit, such as \"250ms\", \"5s\", \"10m\", \"24h\", "
                "\"7d\", or "
                "\"always\"");
    refuse_rest("sub-req", "queue = { sync = \"2h\"; };", "queue.sync must be from 1ms to 1h, or 0 = always");
    for (size_t i = 0; i < sizeof(sizes) / sizeof(sizes[0]); i++) {
        char front[100];
        snprintf(front, sizeof(front), "max_message = %s;", sizes[i]);
        refuse_front(
            "rep-req", front,
            "frontend.max_message must be a size with its unit, such as \"512B\", \"64KiB\", \"64MiB\", "
            "\"1GiB\"");
    }
}

static void unknown_keys_are_guessed(void **state)
{
    (void)state;
    refuse_back("rep-req", "windwo = 3;", "unknown key \"backend.windwo\"; did you mean \"window\"?");
    refuse_back("rep-req", "max_age = \"5s\";", "unknown key \"backend.max_age\"; it belongs to queue");
    refuse_rest("rep-req", "queue = { name = \"a\"; };", "unknown key \"queue.name\"; it belongs to a chain");
    refuse_rest("rep-req", "elephant = 3;", "unknown key \"elephant\"");
    refuse_daemon("max_conections = 3;", "unknown key \"max_conections\"; did you mean \"max_connections\"?");
}

static void keys_of_other_kinds_are_refused(void **state)
{
    (void)state;
    refuse_front("rep-req", "subscribe = [ \"x\" ];", "frontend.subscribe belongs to SUB frontends only");
    refuse_front("rep-pub", "username = \"u\"; password = \"p\";",
                 "frontend.username belongs to SUB frontends only\n"
                 "c:1: chain \"a\": frontend.password belongs to SUB frontends only");
    refuse_back("sub-pub", "timeout = \"5s\";", "backend.timeout belongs to REQ backends only");
    refuse_back("sub-req", "hwm = 5;", "backend.hwm belongs to PUB backends only");
    refuse_back("sub-req", "retries = 5;", "backend.retries belongs to rep-req chains only");
    refuse_rest("rep-req", "queue = { max_attempts = 5; };",
                "queue.max_attempts belongs to buffered and sub-req chains only");
    refuse_rest("rep-req", "queue = { patience = \"5s\"; };",
                "queue.patience belongs to buffered chains only");
    refuse_rest("rep-req", "queue = { store = \"disk\"; };",
                "queue.store = \"disk\" belongs to buffered and sub-req chains only");
}

static void what_comes_later_is_not_yet_available(void **state)
{
    (void)state;
    refuse_rest("sub-req", "queue = { store = \"postgresql\"; };",
                "queue.store = \"postgresql\" is not yet available");
    refuse_rest("rep-req", "queue = { connection = \"password=secret\"; };",
                "queue.connection is not yet available");
}

/* ---- Who may come in ---- */

#define HASH                                                                                                 \
    "$argon2id$v=19$m=19456,t=2,p=1$AAAAAAAAAAAAAAAAAAAAAA$AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA"
/* A pair of RFC 26, and somebody else's public key. */
#define PUBLIC_KEY "Yne@$w-vo<fVvi]a<NY6T1ed:M$fCG*[IaLV{hID"
#define SECRET_KEY "D:)Q[IlAW!ahhC2ac:9*A}h:p?([4%wOTJ%JR%cs"
#define CLIENT_KEY "rq:rM>}U?@Lns47E1%kR.o@n%FcmmsL/@{H8]yf7"

static void write_secret(const char *path, const char *text)
{
    write_file(path, text);
    assert_int_equal(chmod(path, 0600), 0);
}

/* A chain "a" with plain users, whose file is "users". */
static const char *plain_with(const char *front)
{
    static char text[5000];
    snprintf(text, sizeof(text), "daemon = { users = \"users\"; };\n%s",
             chain_with("rep-req", front, "", ""));
    return text;
}

static void access_is_loaded(void **state)
{
    (void)state;
    write_secret("users", "pi-1:" HASH "\n");
    struct config *config =
        loaded(plain_with("auth = \"plain\"; users = [ \"pi-*\", \"x\" ];"
                          " allow = [ \"10.0.0.0/8\", \"::1\" ]; deny = [ \"10.1.0.0/16\" ];"
                          " rate = 5; burst = 9;"));
    const struct access_conf *access = &config->chains[0]->frontend.access;
    assert_int_equal(access->auth, DOOR_PLAIN);
    assert_int_equal(access->users.count, 2);
    assert_string_equal(access->users.items[0], "pi-*");
    assert_int_equal(access->allow.count, 2);
    assert_string_equal(access->deny.items[0], "10.1.0.0/16");
    assert_int_equal(access->rate, 5);
    assert_int_equal(access->burst, 9);
    config_free(config);
    config = loaded(chain_with("rep-req", "", "", ""));
    access = &config->chains[0]->frontend.access;
    assert_int_equal(access->auth, DOOR_NULL);
    assert_string_equal(access->users.items[0], "*");
    assert_int_equal(access->allow.count + access->deny.count, 0);
    assert_int_equal(access->rate + access->burst, 0);
    config_free(config);
}

static void curve_keys_are_loaded_for_both_directions(void **state)
{
    (void)state;
    write_secret("own.key", SECRET_KEY "\n");
    write_file("keys", "client:" CLIENT_KEY "\n");
    struct config *config = loaded(
        chain_with("rep-req", "auth = \"curve\"; curve_secret_key_file = \"own.key\"; curve_keys = \"keys\";",
                   "curve_server_key = \"" CLIENT_KEY "\"; curve_secret_key_file = \"own.key\";", ""));
    const struct access_conf *access = &config->chains[0]->frontend.access;
    const struct credentials *credentials = &config->chains[0]->backend.credentials;
    assert_int_equal(access->auth, DOOR_CURVE);
    assert_string_equal(access->curve_secret_key, SECRET_KEY);
    assert_string_equal(access->curve_keys, "keys");
    assert_null(config->chains[0]->frontend.credentials.curve_secret_key);
    assert_string_equal(credentials->curve_server_key, CLIENT_KEY);
    assert_string_equal(credentials->curve_secret_key, SECRET_KEY);
    assert_string_equal(credentials->curve_public_key, PUBLIC_KEY);
    config_free(config);
    config = loaded(
        chain_with("sub-pub", "curve_server_key = \"" CLIENT_KEY "\"; curve_secret_key_file = \"own.key\";",
                   "auth = \"curve\"; curve_secret_key_file = \"own.key\"; curve_keys = \"keys\";", ""));
    assert_string_equal(config->chains[0]->frontend.credentials.curve_public_key, PUBLIC_KEY);
    assert_string_equal(config->chains[0]->backend.access.curve_secret_key, SECRET_KEY);
    config_free(config);
}

static void what_asks_nobody_is_refused(void **state)
{
    (void)state;
    write_secret("users", "");
    refuse_front("rep-req", "users = [ \"pi-*\" ];",
                 "frontend.users has no auth = \"plain\" or \"curve\" beside it");
    refuse_front("rep-req", "burst = 3;", "frontend.burst has no rate beside it");
    refuse_front("sub-req", "deny = [ \"10.0.0.1\" ];",
                 "frontend.deny is for peers that connect to us; we connect to \"tcp://in:1\"");
    expect("daemon = { users = \"users\"; };\n"
           "chains = ( { name = \"a\"; kind = \"rep-req\"; frontend = { auth = \"plain\";\n"
           " endpoints = [ \"tcp://*:1\", \"inproc://x\", \">tcp://b:1\" ]; };"
           " backend = { endpoints = [ \"tcp://b:2\" ]; }; } );",
           "c:2: chain \"a\": frontend.auth: \"inproc://x\" never asks who connects\n"
           "c:2: chain \"a\": frontend.auth is for peers that connect to us; we connect to \">tcp://b:1\"\n");
    expect("daemon = { users = \"users\"; };\n"
           "chains = ( { name = \"a\"; kind = \"buffered-rep-req\"; queue = { store = \"memory\"; };\n"
           " frontend = { auth = \"plain\"; endpoints = [ \"tcp://*:1\" ]; tickets = [ \"inproc://x\" ]; };"
           " backend = { endpoints = [ \"tcp://b:2\" ]; }; } );",
           "c:3: chain \"a\": frontend.auth: \"inproc://x\" never asks who connects\n");
}

static void ranges_and_patterns_are_checked(void **state)
{
    (void)state;
    write_secret("users", "");
    write_file("c",
               plain_with("auth = \"plain\"; users = [ \"\" ];\nallow = [ \"10.0.0.0/33\",\n\"lan\" ];"));
    const char *problems = problems_of("c", config_load);
    assert_non_null(strstr(problems, "c:2: chain \"a\": frontend.users: \"\" is no pattern of user names\n"));
    assert_non_null(strstr(problems, "c:3: chain \"a\": frontend.allow: "));
    assert_non_null(strstr(problems, "c:4: chain \"a\": frontend.allow: "));
}

static void users_file_is_checked_once_somebody_asks_for_passwords(void **state)
{
    (void)state;
    const char *text = plain_with("auth = \"plain\";");
    expect(text, "c:1: daemon: users: users: No such file or directory\n");
    write_secret("users", "a:" HASH "\n# fine\nno hash\n");
    write_file("c", text);
    const char *problems = problems_of("c", config_load);
    assert_ptr_equal(strstr(problems, "c:1: daemon: users: users:3: "), problems);
    write_secret("users", "a:" HASH "\n");
    expect(text, "");
    assert_int_equal(chmod("users", 0644), 0);
    expect(text, "c:1: daemon: users: users: mode 0644 lets others in; chmod 0640 it\n");
    config_free(
        loaded("daemon = { users = \"nowhere\"; };"
               "chains = ( { name = \"a\"; kind = \"rep-req\"; frontend = { endpoints = [ \"tcp://*:1\" ]; };"
               " backend = { endpoints = [ \"tcp://b:2\" ]; }; } );"));
}

static void curve_needs_all_its_keys(void **state)
{
    (void)state;
    write_secret("own.key", SECRET_KEY "\n");
    write_secret("bad.key", "too short");
    write_file("keys", "client:" CLIENT_KEY "\n");
    write_file("bad.keys", "client:short\n");
    refuse_front("rep-req", "auth = \"curve\"; curve_keys = \"keys\";",
                 "frontend.auth = \"curve\" has no curve_secret_key_file beside it");
    refuse_front("rep-req", "auth = \"curve\"; curve_secret_key_file = \"own.key\";",
                 "frontend.auth = \"curve\" has no curve_keys beside it");
    refuse_front("rep-req", "curve_keys = \"keys\";",
                 "frontend.curve_keys has no auth = \"curve\" beside it");
    refuse_front("rep-req", "curve_secret_key_file = \"own.key\";",
                 "frontend.curve_secret_key_file has no auth = \"curve\" or curve_server_key beside it");
    refuse_front("rep-req", "curve_server_key = \"" CLIENT_KEY "\";",
                 "frontend.curve_server_key belongs to SUB frontends only");
    refuse_back("rep-req", "curve_server_key = \"" CLIENT_KEY "\";",
                "backend.curve_server_key has no curve_secret_key_file beside it");
    refuse_back("rep-req", "curve_server_key = \"short\"; curve_secret_key_file = \"own.key\";",
                "backend.curve_server_key is no CURVE key, which has 40 characters of Z85");
    refuse_back("rep-req", "curve_server_key = \"" CLIENT_KEY "\"; curve_secret_key_file = \"bad.key\";",
                "backend.curve_secret_key_file: bad.key: is no CURVE key, which has 40 characters of Z85");
    refuse_back("rep-pub", "curve_server_key = \"" CLIENT_KEY "\"; curve_secret_key_file = \"own.key\";",
                "backend.curve_server_key is shown to peers that we connect to; \"tcp://*:2\" is bound");
    refuse_back("rep-req",
                "username = \"u\"; password = \"p\"; curve_server_key = \"" CLIENT_KEY
                "\"; curve_secret_key_file = \"own.key\";",
                "backend.curve_server_key is given, and backend.username too");
    write_file("c",
               chain_with("rep-req",
                          "auth = \"curve\"; curve_secret_key_file = \"own.key\"; curve_keys = \"bad.keys\";",
                          "", ""));
    const char *problems = problems_of("c", config_load);
    assert_ptr_equal(strstr(problems, "c:1: chain \"a\": frontend.curve_keys: bad.keys:1: "), problems);
    assert_int_equal(chmod("own.key", 0644), 0);
    refuse_back("rep-req", "curve_server_key = \"" CLIENT_KEY "\"; curve_secret_key_file = \"own.key\";",
                "backend.curve_secret_key_file: own.key: mode 0644 lets others in; chmod 0640 it");
}

static void names_are_checked(void **state)
{
    (void)state;
    char known[500];
    snprintf(known, sizeof(known), "c:1: chain \"a\": unknown kind \"rep\"; known: %s\n", kind_names());
    expect(chain_with("rep", "", "", ""), known);
    refuse_rest("rep-req", "dialect = \"latin\";",
                "unknown dialect \"latin\"; known: raw, pyzmqrpc, jsonrpc, red, zmqframework");
    expect("chains = ( { name = \"a b\"; kind = \"rep-req\"; frontend = { endpoints = [ \"tcp://*:1\" ]; };"
           " backend = { endpoints = [ \"tcp://b:1\" ]; }; } );",
           "c:1: chain \"#1\": name must be letters, digits, \"_\", \".\" and \"-\"\n");
    expect("chains = ( { name = \"\"; kind = \"rep-req\"; frontend = { endpoints = [ \"tcp://*:1\" ]; };"
           " backend = { endpoints = [ \"tcp://b:1\" ]; }; } );",
           "c:1: chain \"#1\": name must have from 1 to 64 bytes\n");
    expect("chains = ( { name = \"a\"; kind = \"rep-req\"; frontend = { endpoints = [ \"tcp://*:1\" ]; };"
           " backend = { endpoints = [ \"tcp://b:1\" ]; }; },\n"
           " { name = \"a\"; kind = \"rep-req\"; frontend = { endpoints = [ \"tcp://*:2\" ]; };"
           " backend = { endpoints = [ \"tcp://b:1\" ]; }; } );",
           "c:2: chain \"a\": name is taken already (c:1)\n");
}

static void no_place_is_bound_twice(void **state)
{
    (void)state;
    expect("daemon = { control = \"ipc:///tmp/x\"; };\n"
           "chains = ( { name = \"a\"; kind = \"rep-pub\";\n"
           "  frontend = { endpoints = [ \"tcp://*:1\", \"tcp://127.0.0.1:1\" ]; };\n"
           "  backend = { endpoints = [ \"tcp://[::]:1\", \"ipc:///tmp/x\", \"tcp://*:2\" ]; }; },\n"
           " { name = \"b\"; kind = \"sub-req\";\n"
           "  frontend = { endpoints = [ \"tcp://127.0.0.1:1\", \"@tcp://127.0.0.1:2\" ]; };\n"
           "  backend = { endpoints = [ \"tcp://127.0.0.1:1\", \"tcp://127.0.0.1:1\" ]; }; } );\n",
           "c:3: chain \"a\": frontend.endpoints: endpoint \"tcp://127.0.0.1:1\" is bound already by chain "
           "\"a\" (c:3)\n"
           "c:4: chain \"a\": backend.endpoints: endpoint \"tcp://[::]:1\" is bound already by chain \"a\" "
           "(c:3)\n"
           "c:4: chain \"a\": backend.endpoints: endpoint \"ipc:///tmp/x\" is the control socket\n"
           "c:6: chain \"b\": frontend.endpoints: endpoint \"@tcp://127.0.0.1:2\" is bound already by chain "
           "\"a\" "
           "(c:4)\n");
}

static void http_is_an_address_and_a_port(void **state)
{
    (void)state;
    static const char *const bad[] = {
        "9633",      "127.0.0.1",        "127.0.0.1:0",          "127.0.0.1:*",     "::1:9633",
        "eth0:9633", "example.org:9633", "tcp://127.0.0.1:9633", "127.0.0.1:96333", "/tmp/x"};
    static const char *const good[] = {"127.0.0.1:9633", "[::1]:9633", "localhost:9633", "*:9633",
                                       "0.0.0.0:9633"};
    for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
        char keys[100];
        snprintf(keys, sizeof(keys), "http = \"%s\";", bad[i]);
        refuse_daemon(keys,
                      "http must be an address and a port, such as 127.0.0.1:9633, [::1]:9633 or *:9633");
    }
    for (size_t i = 0; i < sizeof(good) / sizeof(good[0]); i++) {
        char text[1000];
        snprintf(text, sizeof(text), "daemon = { http = \"%s\"; };\n%s", good[i],
                 chain_with("rep-req", "", "", ""));
        expect(text, "");
    }
    expect("daemon = { http = \"127.0.0.1:7\"; };\n"
           "chains = ( { name = \"a\"; kind = \"rep-req\";\n"
           "  frontend = { endpoints = [ \"tcp://*:7\" ]; }; backend = { endpoints = [ \"tcp://b:1\" ]; }; } "
           ");\n",
           "c:3: chain \"a\": frontend.endpoints: endpoint \"tcp://*:7\" is where http listens\n");
}

static void endpoints_must_be_usable(void **state)
{
    (void)state;
    expect("chains = ( { name = \"a\"; kind = \"rep-req\"; frontend = { endpoints = [ ]; };"
           " backend = { endpoints = [ \"tcp://*:1\" ]; }; } );",
           "c:1: chain \"a\": frontend.endpoints is empty\n"
           "c:1: chain \"a\": backend.endpoints: endpoint \"tcp://*:1\": \"*\" can be bound but not "
           "connected to\n");
    expect("chains = ( { name = \"a\"; kind = \"rep-req\"; frontend = { endpoints = [ \"ipc://no/x\", "
           "\"ipc://c/x\" ]; };"
           " backend = { endpoints = [ \"ipc://later/x\" ]; }; } );",
           "c:1: chain \"a\": frontend.endpoints: endpoint \"ipc://no/x\": no: No such file or directory\n"
           "c:1: chain \"a\": frontend.endpoints: endpoint \"ipc://c/x\": c: Not a directory\n");
    refuse_front("sub-pub", "subscribe = [ ];", "frontend.subscribe is empty");
    expect("chains = ( { name = \"a\"; kind = \"buffered-rep-req\"; backend = { endpoints = [ \"tcp://h:1\" "
           "]; };"
           " frontend = { endpoints = [ \"tcp://*:1\" ]; allow = [ ]; deny = [ ]; tickets = [ ]; };"
           " queue = { store = \"memory\"; }; } );",
           "");
}

static void control_must_be_private(void **state)
{
    (void)state;
    refuse_daemon("control = \"tcp://*:1\";",
                  "control must be an ipc endpoint, which file modes protect, or \"\"");
    refuse_daemon("control = \"ipc://@x\";",
                  "control must be an ipc endpoint, which file modes protect, or \"\"");
    refuse_daemon("control = \"/run/x\";",
                  "control: endpoint \"/run/x\": an endpoint begins with tcp://, ipc://, "
                  "inproc://, ws:// or wss://");
    refuse_daemon("control_group = \"no such group\";", "control_group: there is no group \"no such group\"");
}

static void credentials_come_in_pairs(void **state)
{
    (void)state;
    refuse_back("rep-req", "username = \"u\";",
                "backend.username has no password or password_file beside it");
    refuse_back("rep-req", "password = \"p\";", "backend.password has no username beside it");
    refuse_front("sub-req", "password_file = \"pw\";", "frontend.password_file has no username beside it");
    refuse_back("rep-req", "username = \"u\"; password = \"p\"; password_file = \"pw\";",
                "backend.password_file is given, and backend.password too");
    refuse_back("sub-pub", "username = \"u\"; password = \"p\";",
                "backend.username is shown to peers that we connect to; \"tcp://*:2\" is bound");
}

static void unusable_password_files_are_refused(void **state)
{
    (void)state;
    const char *back = "username = \"u\"; password_file = \"pw\";";
    char bytes[300];
    refuse_back("rep-req", back, "backend.password_file: pw: No such file or directory");
    write_file("pw", "secret\n");
    chmod("pw", 0644);
    refuse_back("rep-req", back, "backend.password_file: pw: mode 0644 lets others in; chmod 0640 it");
    chmod("pw", 0600);
    write_file("pw", "\n");
    refuse_back("rep-req", back, "backend.password_file: pw: is empty");
    write_bytes("pw", "a\0b", 3);
    refuse_back("rep-req", back, "backend.password_file: pw: holds a NUL byte");
    memset(bytes, 'x', sizeof(bytes));
    write_bytes("pw", bytes, 256);
    refuse_back("rep-req", back, "backend.password_file: pw: holds more than 255 bytes");
    unlink("pw");
    mkdir("pw", 0700);
    refuse_back("rep-req", back, "backend.password_file: pw: is not a regular file");
}

static void workers_and_verify_are_checked(void **state)
{
    (void)state;
    refuse_back("rep-req", "workers = { };", "backend.workers.heartbeat is missing");
    refuse_back("rep-req", "workers = 5;", "backend.workers must be a group { ... }");
    refuse_back("rep-req", "workers = { heartbeat = \"tcp://*:7\"; }; balance = \"all\";",
                "backend.balance belongs to REQ backends without workers only");
    refuse_back("rep-req", "workers = { heartbeat = \">tcp://a:7\"; };",
                "backend.workers.heartbeat: workers connect to us, over tcp or ipc; not so \">tcp://a:7\"");
    refuse_back("rep-req", "workers = { heartbeat = [ \"tcp://*:7\" ]; };",
                "backend.workers.heartbeat must be a text \"...\"");
    refuse_back("sub-req", "workers = { heartbeat = \"tcp://*:7\"; };",
                "backend.workers belongs to rep-req chains only");
    refuse_back("rep-req", "auth = \"plain\";",
                "backend.auth belongs to PUB backends and those with workers only");
    refuse_front("sub-pub", "verify = { };", "frontend.verify.endpoint is missing");
    refuse_front("sub-pub", "verify = { endpoint = \"tcp://a:7\"; username = \"u\"; };",
                 "frontend.verify.username has no password or password_file beside it");
    refuse_front("rep-pub", "verify = { endpoint = \"tcp://a:7\"; };",
                 "frontend.verify belongs to SUB frontends only");
}

static void no_problem_quotes_a_password(void **state)
{
    (void)state;
    char back[400], longest[300];
    memset(longest, 'x', sizeof(longest) - 1);
    longest[sizeof(longest) - 1] = '\0';
    snprintf(back, sizeof(back), "username = \"u\"; password = \"%s\";", longest);
    refuse_back("rep-req", back, "backend.password must have from 1 to 255 bytes");
    refuse_rest("sub-pub", "password = \"hunter2\";", "unknown key \"password\"; it belongs to frontend");
    refuse_back("sub-req", "pasword = \"hunter2\"; username = \"u\"; password = 5;",
                "unknown key \"backend.pasword\"; did you mean \"password\"?\n"
                "c:1: chain \"a\": backend.password must be a text \"...\"");
}

static void balance_all_goes_to_64_endpoints_at_most(void **state)
{
    (void)state;
    char more[4000] = "tcp://out:2", keys[4100];
    for (int i = 1; i < 64; i++)
        snprintf(more + strlen(more), sizeof(more) - strlen(more), "\", \"tcp://out:%d", 2 + i);
    snprintf(keys, sizeof(keys), "tcp://out:1\", \"%s", more);
    const char *format =
        "chains = ( { name = \"a\"; kind = \"rep-req\"; frontend = { endpoints = [ \"tcp://*:1\" ]; };"
        " backend = {\n balance = \"all\";\n endpoints = [ \"%s\" ]; }; } );";
    char text[5000];
    snprintf(text, sizeof(text), format, more);
    config_free(loaded(text));
    snprintf(text, sizeof(text), format, keys);
    expect(text, "c:2: chain \"a\": backend.balance: \"all\" goes with at most 64 endpoints\n");
}

static void contradictions_are_refused(void **state)
{
    (void)state;
    refuse_back("sub-pub", "heartbeat = \"5s\";", "backend.heartbeat: the dialect raw has no heartbeat");
    refuse_back("rep-req", "backoff = \"5s\"; backoff_max = \"4s\";",
                "backend.backoff is longer than backend.backoff_max");
    refuse_front("sub-req", "backoff = \"5s\"; backoff_max = \"4s\";",
                 "frontend.backoff is longer than frontend.backoff_max");
    expect(chain_with("rep-req", "max_message = \"2MiB\";", "", "queue = { max_bytes = \"1MiB\"; };"),
           "c:1: chain \"a\": frontend.max_message is larger than queue.max_bytes\n");
}

static void problems_cannot_rule_the_terminal(void **state)
{
    (void)state;
    refuse_rest("rep-req", "dialect = \"\x1b[2J\\n\";",
                "unknown dialect \"?[2J?\"; known: raw, pyzmqrpc, jsonrpc, red, zmqframework");
}

/* ---- The reference and the kept corpus ---- */

static void reference_names_every_key_within_80_columns(void **state)
{
    (void)state;
    char *text = NULL;
    size_t size, longest = 0;
    FILE *out = open_memstream(&text, &size);
    config_keys_print(out);
    fclose(out);
    for (const char *line = text; *line != '\0'; line += strcspn(line, "\n") + 1)
        longest = strcspn(line, "\n") > longest ? strcspn(line, "\n") : longest;
    assert_in_range(longest, 60, 80);
    assert_non_null(strstr(text, "\n  recreate_after               duration, default 0\n"));
    assert_non_null(strstr(text, "The default of pyzmqrpc is"));
    assert_non_null(strstr(text, "Not yet available: postgresql."));
    assert_non_null(strstr(text, "From 1 to 1000000, or 0 = off."));
    free(text);
}

static void expect_text(const char *name, int64_t number, const char *expected)
{
    char text[64];
    int64_t again;
    const struct config_key *key = config_key_find(CONFIG_QUEUE, name);
    config_key_text(key, number, text, sizeof(text));
    assert_string_equal(text, expected);
    assert_true(config_key_number(key, text, &again));
    assert_true(again == number);
}

static void numbers_are_written_as_a_user_would(void **state)
{
    (void)state;
    expect_text("max_age", 0, "0");
    expect_text("max_age", 250, "250ms");
    expect_text("max_age", 90000, "90s");
    expect_text("max_age", 7LL * 24 * 3600 * 1000, "7d");
    expect_text("max_bytes", 1000, "1000B");
    expect_text("max_bytes", 64 << 20, "64MiB");
    expect_text("max_messages", 10000, "10000");
    expect_text("when_full", QUEUE_REJECT, "reject");
    expect_text("when_full", QUEUE_BLOCK, "block");
    expect_text("sync", 0, "always");
    expect_text("sync", 100, "100ms");
}

static void corpus_holds(void **state)
{
    (void)state;
    assert_in_range(fuzz_replay(fuzz_config, "tests/fuzz/corpus/config"), 20, 10000);
}

#define IN_FOLDER(test) cmocka_unit_test_setup_teardown(test, enter, leave)

int main(void)
{
    const struct CMUnitTest tests[] = {
        IN_FOLDER(defaults_are_those_of_the_contract),
        IN_FOLDER(defaults_follow_kind_and_dialect),
        IN_FOLDER(every_key_reaches_its_field),
        IN_FOLDER(zero_switches_limits_off),
        IN_FOLDER(what_changes_nothing_may_be_written),
        IN_FOLDER(an_unwritten_backoff_gives_way),
        IN_FOLDER(password_file_loses_one_newline),
        IN_FOLDER(daemon_alone_needs_no_sound_chains),
        IN_FOLDER(all_problems_come_in_the_order_of_the_file),
        IN_FOLDER(unreadable_file_is_named),
        IN_FOLDER(a_file_needs_chains),
        IN_FOLDER(syntax_errors_have_their_line),
        IN_FOLDER(nesting_is_bounded),
        IN_FOLDER(includes_keep_their_names_and_lines),
        IN_FOLDER(byte_order_mark_is_no_syntax_error),
        IN_FOLDER(bad_includes_are_refused),
        IN_FOLDER(wrong_types_say_what_is_right),
        IN_FOLDER(numbers_beyond_their_range_are_refused),
        IN_FOLDER(durations_and_sizes_need_their_unit),
        IN_FOLDER(unknown_keys_are_guessed),
        IN_FOLDER(keys_of_other_kinds_are_refused),
        IN_FOLDER(what_comes_later_is_not_yet_available),
        IN_FOLDER(names_are_checked),
        IN_FOLDER(no_place_is_bound_twice),
        IN_FOLDER(http_is_an_address_and_a_port),
        IN_FOLDER(endpoints_must_be_usable),
        IN_FOLDER(control_must_be_private),
        IN_FOLDER(credentials_come_in_pairs),
        IN_FOLDER(unusable_password_files_are_refused),
        IN_FOLDER(access_is_loaded),
        IN_FOLDER(curve_keys_are_loaded_for_both_directions),
        IN_FOLDER(what_asks_nobody_is_refused),
        IN_FOLDER(ranges_and_patterns_are_checked),
        IN_FOLDER(users_file_is_checked_once_somebody_asks_for_passwords),
        IN_FOLDER(curve_needs_all_its_keys),
        IN_FOLDER(workers_and_verify_are_checked),
        IN_FOLDER(no_problem_quotes_a_password),
        IN_FOLDER(balance_all_goes_to_64_endpoints_at_most),
        IN_FOLDER(contradictions_are_refused),
        IN_FOLDER(problems_cannot_rule_the_terminal),
        cmocka_unit_test(reference_names_every_key_within_80_columns),
        cmocka_unit_test(numbers_are_written_as_a_user_would),
        cmocka_unit_test(corpus_holds),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
