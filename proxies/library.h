/* SPDX-License-Identifier: MIT
 *
 * Libraries that only some configurations need: opened when asked for, by their soname, so that a daemon which does
 * not ask pays nothing for them. The functions are typed by the library's own header, which only its door includes:
 *
 *     #define FUNCTIONS(X) X(MHD_start_daemon) X(MHD_stop_daemon)
 *
 *     static struct { FUNCTIONS(LIBRARY_MEMBER) } mhd;
 *
 *     static const struct library library = {
 *         .soname = "libmicrohttpd.so.12", .package = "libmicrohttpd12", .names = LIBRARY_NAMES(FUNCTIONS)};
 *
 *     if (library_open(&library, &mhd, sizeof mhd, err, err_size) == 0)
 *         mhd.MHD_start_daemon(…);
 */
#ifndef PROXYD_PROXIES_LIBRARY_H
#define PROXYD_PROXIES_LIBRARY_H

#include <stddef.h>

#define LIBRARY_MEMBER(function) __typeof__(function) *function;
#define LIBRARY_NAME(function)   #function,
#define LIBRARY_NAMES(functions) ((const char *const[]){functions(LIBRARY_NAME) NULL})

struct library {
    const char *soname;
    const char *package;      /* of Debian, which has it */
    const char *const *names; /* of its functions, in the order of the table; then NULL */
};

/* Opens the library, for as long as the process lives, and fills `table`, a struct of LIBRARY_MEMBERs in the order of
 * the names. -1 with a reason in `err` that names the library and its package. */
int library_open(const struct library *library, void *table, size_t table_bytes, char *err, size_t err_size);

#endif
