/* SPDX-License-Identifier: MIT
 *
 * The commands of proxyctl that try endpoints out without a daemon: one caller, server, publisher or
 * subscriber. They print frames as text, bytes that are none as \xNN, and complain on stderr.
 */
#ifndef PROXYD_PROXYD_TRYOUT_H
#define PROXYD_PROXYD_TRYOUT_H

#include "proxies/conf.h"

#include <stdbool.h>
#include <stdint.h>

struct tryout {
    const char *endpoint;
    char **words; /* the frames to send, or the topics */
    int word_count;
    const struct credentials *credentials; /* NULL = none */
    int64_t timeout_ms;
    int64_t delay_ms; /* serve: before each answer */
    int64_t count;    /* subscribe: ends after so many; 0 = goes on */
    bool is_json;     /* a message is printed as an array of frames */
};

/* Each runs the command and returns the exit status of proxyctl. */

/* Sends the words as one request and prints the reply, a frame a line. */
int tryout_call(const struct tryout *tryout);

/* Answers every request with its own frames and prints it, a request a line, until a signal. */
int tryout_serve(const struct tryout *tryout);

/* Once somebody has subscribed, sends the words as one message, or each line of standard input as one. */
int tryout_publish(const struct tryout *tryout);

/* Prints each publication, a message a line, until a signal or `count`. */
int tryout_subscribe(const struct tryout *tryout);

#endif
