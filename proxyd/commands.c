/* SPDX-License-Identifier: MIT
 *
 * The table of commands; see commands.h. A new command is a row here and a handler in control.c (when the
 * daemon does it) or in proxyctl.c.
 */
#include "proxyd/commands.h"

#include <string.h>

static const struct command commands[COMMAND_COUNT] = {
    [COMMAND_STATUS] = {"status", "", "every chain: its state, and what became of its messages", "csj", 0, 0,
                        .is_remote = true},
    [COMMAND_TOP] = {"top", "", "the same again and again, with rates; q ends it", "csnN", 0, 0,
                     .is_remote = true},
    [COMMAND_SHOW] = {"show", "CHAIN", "one chain: configuration, upstreams, counters", "csj", 1, 1,
                      .is_remote = true, .takes_chain = true},
    [COMMAND_PAUSE] = {"pause", "CHAIN", "stop sending; intake goes on, into the queue", "csj", 1, 1,
                       .is_remote = true, .takes_chain = true},
    [COMMAND_RESUME] = {"resume", "CHAIN", "end a pause or a drain", "csj", 1, 1, .is_remote = true,
                        .takes_chain = true},
    [COMMAND_DRAIN] = {"drain", "CHAIN", "refuse new messages (shutting-down), empty the queue", "csj", 1, 1,
                       .is_remote = true, .takes_chain = true},
    [COMMAND_RELOAD] = {"reload", "", "read the configuration, users and keys again", "csj", 0, 0,
                        .is_remote = true},
    [COMMAND_STOP] = {"stop", "", "end the daemon in order, within drain_timeout", "csj", 0, 0,
                      .is_remote = true},
    [COMMAND_QUEUE] = {"queue", "CHAIN list|peek ID|drop ID...|export FILE",
                       "what is queued and in flight; \"all\" drops every ID", "csj", 2, -1,
                       .is_remote = true, .takes_chain = true},
    [COMMAND_DEAD] = {"dead", "CHAIN list|retry ID...|drop ID...",
                      "dead letters; \"all\" stands for every ID", "csj", 2, -1, .is_remote = true,
                      .takes_chain = true},
    [COMMAND_TICKET] = {"ticket", "CHAIN TICKET", "what became of a buffered call", "csj", 2, 2,
                        .is_remote = true, .takes_chain = true},
    [COMMAND_PASSWD] = {"passwd", "FILE USER", "add or change a user in a users file, or --delete", "iCD", 2,
                        2},
    [COMMAND_KEYGEN] = {"keygen", "NAME", "make NAME.key, and print the line for a file of CURVE keys", "", 1,
                        1},
    [COMMAND_CALL] = {"call", "ENDPOINT FRAME...", "send one request, print each frame of its reply", "jupt",
                      2, -1},
    [COMMAND_SERVE] = {"serve", "ENDPOINT", "answer requests with their own frames, and print them", "jd", 1,
                       1},
    [COMMAND_PUBLISH] = {"publish", "ENDPOINT [FRAME...]",
                         "once subscribed to, publish the frames, or each line of input", "t", 1, -1},
    [COMMAND_SUBSCRIBE] = {"subscribe", "ENDPOINT [TOPIC...]", "print publications", "jNup", 1, -1},
};

const struct command *command_info(enum command_id id)
{
    return &commands[id];
}

enum command_id command_find(const char *name)
{
    int id = 0;
    while (id < COMMAND_COUNT && strcmp(commands[id].name, name) != 0)
        id++;
    return id;
}
