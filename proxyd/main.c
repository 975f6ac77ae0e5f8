/* SPDX-License-Identifier: MIT
 *
 * proxyd: the command line. Everything else is in daemon.c.
 */
#include "proxyd/config.h"
#include "proxyd/config_keys.h"
#include "proxyd/daemon.h"

#include <getopt.h>
#include <stdio.h>
#include <stdlib.h>

enum { STATUS_USAGE = 2, OPTION_PRINT_KEYS = 256 };

static const char usage[] =
    "usage: proxyd [-c FILE] [-t]\n"
    "\n"
    "  -c, --config FILE   the configuration (default " CONFIG_DEFAULT_PATH ")\n"
    "  -t, --test          check FILE and everything it names, print every problem, start nothing\n"
    "      --print-keys    print every configuration key with its type, default and meaning\n"
    "  -V, --version       print the version\n"
    "  -h, --help          print this\n"
    "\n"
    "It stays in the foreground and logs to stderr. SIGTERM and SIGINT stop it in order, a second one at\n"
    "once. Exit status: 0 done, 1 failed while running, 2 bad usage or configuration.\n";

static const struct option options[] = {
    {"config", required_argument, NULL, 'c'},
    {"test", no_argument, NULL, 't'},
    {"print-keys", no_argument, NULL, OPTION_PRINT_KEYS},
    {"version", no_argument, NULL, 'V'},
    {"help", no_argument, NULL, 'h'},
    {0},
};

/* Ends a run that only had to print: a full disk or a closed pipe is a failure too. */
static int printed(void)
{
    return fflush(stdout) == 0 ? EXIT_SUCCESS : EXIT_FAILURE;
}

static int run(const char *path, bool only_checks)
{
    struct config_problems problems;
    struct config *config = config_load(path, &problems);
    for (size_t i = 0; i < problems.count; i++)
        fprintf(stderr, "%s\n", problems.lines[i]);
    config_problems_close(&problems);
    if (!config)
        return STATUS_USAGE;

    if (only_checks) {
        printf("%s: OK (%zu %s)\n", path, config->chain_count, config->chain_count == 1 ? "chain" : "chains");
        int status = printed();
        config_free(config);
        return status;
    }
    return daemon_run(config);
}

int main(int argc, char **argv)
{
    const char *path = CONFIG_DEFAULT_PATH;
    bool only_checks = false;
    daemon_prepare();
    for (int option; (option = getopt_long(argc, argv, "c:tVh", options, NULL)) != -1;) {
        switch (option) {
        case 'c':
            path = optarg;
            break;
        case 't':
            only_checks = true;
            break;
        case OPTION_PRINT_KEYS:
            config_keys_print(stdout);
            return printed();
        case 'V':
            puts("proxyd " PROXYD_VERSION);
            return printed();
        case 'h':
            fputs(usage, stdout);
            return printed();
        default:
            fputs(usage, stderr);
            return STATUS_USAGE;
        }
    }
    if (optind < argc) {
        fprintf(stderr, "proxyd: unexpected argument \"%s\"\n%s", argv[optind], usage);
        return STATUS_USAGE;
    }
    return run(path, only_checks);
}
