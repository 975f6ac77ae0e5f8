/* links: proxies/library.c */
/* SPDX-License-Identifier: MIT
 *
 * Libraries that are opened when asked for; libm stands in for them.
 */
#include "proxies/library.h"

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>

#include <cmocka.h>

#define FUNCTIONS(X) X(floor) X(ceil)

static struct {
    FUNCTIONS(LIBRARY_MEMBER)
} table;

static void its_functions_can_be_called(void **state)
{
    (void)state;
    const struct library math = {"libm.so.6", "libc6", LIBRARY_NAMES(FUNCTIONS)};
    char err[256] = "";
    assert_int_equal(library_open(&math, &table, sizeof table, err, sizeof err), 0);
    volatile double number = 1.5;
    assert_true(table.floor(number) == 1.0 && table.ceil(number) == 2.0);
}

static void one_that_is_not_there_is_named_with_its_package(void **state)
{
    (void)state;
    const struct library none = {"libnosuch.so.7", "libnosuch7", LIBRARY_NAMES(FUNCTIONS)};
    char err[256] = "";
    assert_int_equal(library_open(&none, &table, sizeof table, err, sizeof err), -1);
    assert_non_null(strstr(err, "libnosuch.so.7 (Debian package libnosuch7)"));
}

static void a_function_that_it_does_not_have_is_named(void **state)
{
    (void)state;
    static const char *const names[] = {"floor", "no_such_function", NULL};
    const struct library old = {"libm.so.6", "libc6", names};
    char err[256] = "";
    assert_int_equal(library_open(&old, &table, sizeof table, err, sizeof err), -1);
    assert_string_equal(err, "libm.so.6 (Debian package libc6) has no no_such_function");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(its_functions_can_be_called),
        cmocka_unit_test(one_that_is_not_there_is_named_with_its_package),
        cmocka_unit_test(a_function_that_it_does_not_have_is_named),
    };
    return cmocka_run_group_tests_name("library", tests, NULL, NULL);
}
