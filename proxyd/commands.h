/* SPDX-License-Identifier: MIT
 *
 * The commands, in one table with their help: what proxyctl offers, and, for those the daemon carries out,
 * the methods of its control socket under the same names.
 */
#ifndef PROXYD_PROXYD_COMMANDS_H
#define PROXYD_PROXYD_COMMANDS_H

#include <stdbool.h>

enum command_id {
    COMMAND_STATUS,
    COMMAND_TOP,
    COMMAND_SHOW,
    COMMAND_PAUSE,
    COMMAND_RESUME,
    COMMAND_DRAIN,
    COMMAND_RELOAD,
    COMMAND_STOP,
    COMMAND_QUEUE,
    COMMAND_DEAD,
    COMMAND_TICKET,
    COMMAND_PASSWD,
    COMMAND_KEYGEN,
    COMMAND_CALL,
    COMMAND_SERVE,
    COMMAND_PUBLISH,
    COMMAND_SUBSCRIBE,
    COMMAND_COUNT
};

struct command {
    const char *name;
    const char *arguments; /* as usage shows them */
    const char *help;      /* one line */
    const char *options;   /* the short letters of the options it takes */
    int least_arguments;
    int most_arguments; /* -1 = any number */
    bool is_remote;     /* asks the daemon; otherwise proxyctl does it by itself */
    bool takes_chain;   /* its first argument is the name of a chain */
};

/* The facts about a command; static. */
const struct command *command_info(enum command_id id);

/* The command of that name; COMMAND_COUNT when there is none. */
enum command_id command_find(const char *name);

#endif
