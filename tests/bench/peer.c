/* SPDX-License-Identifier: MIT
 *
 * The benchmark's one C program: plays the role that its first argument names. Dies with the driver.
 */
#include "tests/bench/roles.h"

#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/resource.h>

static const struct role {
    const char *name, *usage;
    int (*play)(int argc, char **argv);
} roles[] = {
    {"calls",
     "[-c CALLERS] [-a ACTIVE] [-o OUTSTANDING] [-b BYTES] [-j] [-e echo|accepted|any] "
     "[-u USER -p PASSWORD] ENDPOINT…",
     role_calls},
    {"stream", "[-b BYTES] [-o OUTSTANDING] PUBLISH-AT SUBSCRIBE-TO", role_stream},
    {"mqtt", "[-c PUBLISHERS] [-b BYTES] HOST PORT", role_mqtt},
    {"sync", "FILE", role_sync},
    {"echo", "ENDPOINT…", role_echo},
    {"slow-echo", "MILLISECONDS ENDPOINT", role_slow_echo},
    {"forward", "rep-req|sub-pub {FRONTEND BACKEND}…", role_forward},
};

void need(int is_right, const char *what)
{
    if (is_right)
        return;
    fprintf(stderr, "%s: %s\n", what, strerror(errno));
    exit(1);
}

static void raise_descriptor_limit(void)
{
    struct rlimit limit;
    if (getrlimit(RLIMIT_NOFILE, &limit) != 0)
        return;
    limit.rlim_cur = limit.rlim_max;
    setrlimit(RLIMIT_NOFILE, &limit);
}

int main(int argc, char **argv)
{
    prctl(PR_SET_PDEATHSIG, SIGKILL);
    raise_descriptor_limit();
    for (size_t i = 0; argc > 1 && i < sizeof roles / sizeof *roles; i++) {
        if (strcmp(roles[i].name, argv[1]) == 0)
            return roles[i].play(argc - 1, argv + 1);
    }
    for (size_t i = 0; i < sizeof roles / sizeof *roles; i++)
        fprintf(stderr, "usage: %s %s %s\n", argv[0], roles[i].name, roles[i].usage);
    return 2;
}
