/* SPDX-License-Identifier: MIT
 *
 * The parts that one program of the benchmark can play, each one file and one function: loads that measure
 * (meter.h), the servers behind, and what proxyd is compared with. All are told by their arguments, argv[0]
 * being the role's name, and return an exit status.
 */
#ifndef PROXYD_BENCH_ROLES_H
#define PROXYD_BENCH_ROLES_H

/* Loads */
int role_calls(int argc, char **argv);
int role_stream(int argc, char **argv);
int role_mqtt(int argc, char **argv);
int role_sync(int argc, char **argv);

/* Servers and references */
int role_echo(int argc, char **argv);
int role_slow_echo(int argc, char **argv);
int role_forward(int argc, char **argv);

/* Prints a message and ends the program with status 1 when `is_right` is false. */
void need(int is_right, const char *what);

#endif
