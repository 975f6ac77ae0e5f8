/* links: auth/limits.c auth/secret.c */
/* SPDX-License-Identifier: MIT
 *
 * Token buckets: bursts, refill, independence of keys, and what a flood of keys does.
 */
#include "auth/limits.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

static unsigned take_all(struct limits *limits, const char *key, int64_t now_ms)
{
    unsigned taken = 0;
    while (taken < 1000 && limits_take(limits, key, strlen(key), now_ms))
        taken++;
    return taken;
}

static void bucket_gives_its_burst_and_then_its_rate(void **state)
{
    (void)state;
    struct limits *limits = limits_new(10, 1000, 5, 64);
    assert_int_equal(take_all(limits, "a", 0), 5);
    assert_int_equal(take_all(limits, "a", 99), 0);
    assert_int_equal(take_all(limits, "a", 100), 1);
    assert_int_equal(take_all(limits, "a", 299), 1);
    assert_int_equal(take_all(limits, "a", 300), 1);
    assert_int_equal(take_all(limits, "a", 100000), 5);
    limits_free(limits);
}

static void refused_takes_cost_nothing(void **state)
{
    (void)state;
    struct limits *limits = limits_new(1, 1000, 1, 64);
    assert_int_equal(take_all(limits, "a", 0), 1);
    for (int64_t now_ms = 1; now_ms < 1000; now_ms++)
        assert_false(limits_take(limits, "a", 1, now_ms));
    assert_true(limits_take(limits, "a", 1, 1000));
    limits_free(limits);
}

static void looking_takes_nothing(void **state)
{
    (void)state;
    struct limits *limits = limits_new(1, 1000, 1, 64);
    assert_true(limits_has(limits, "a", 1, 0));
    assert_true(limits_has(limits, "a", 1, 0));
    assert_true(limits_take(limits, "a", 1, 0));
    assert_false(limits_has(limits, "a", 1, 999));
    assert_true(limits_has(limits, "a", 1, 1000));
    limits_free(limits);
}

static void keys_do_not_share(void **state)
{
    (void)state;
    struct limits *limits = limits_new(1, 60000, 3, 64);
    assert_int_equal(take_all(limits, "a", 0), 3);
    assert_int_equal(take_all(limits, "b", 0), 3);
    assert_int_equal(take_all(limits, "", 0), 3);
    limits_free(limits);
}

static void flood_of_keys_forgets_the_least_debt_first(void **state)
{
    (void)state;
    struct limits *limits = limits_new(1, 60000, 100, 64);
    assert_int_equal(take_all(limits, "heavy", 0), 100);
    for (uint32_t i = 0; i < 100000; i++)
        assert_true(limits_take(limits, &i, sizeof i, 0));
    assert_false(limits_has(limits, "heavy", 5, 0));
    limits_free(limits);
}

static void extreme_rates_do_not_overflow(void **state)
{
    (void)state;
    struct limits *fast = limits_new(INT64_MAX, 1000, INT64_MAX, 8);
    assert_int_equal(take_all(fast, "a", 1000000000000), 1000);
    limits_free(fast);
    struct limits *slow = limits_new(1, INT64_MAX, INT64_MAX, 8);
    assert_true(limits_take(slow, "a", 1, 1000000000000));
    limits_free(slow);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(bucket_gives_its_burst_and_then_its_rate),
        cmocka_unit_test(refused_takes_cost_nothing),
        cmocka_unit_test(looking_takes_nothing),
        cmocka_unit_test(keys_do_not_share),
        cmocka_unit_test(flood_of_keys_forgets_the_least_debt_first),
        cmocka_unit_test(extreme_rates_do_not_overflow),
    };
    return cmocka_run_group_tests_name("limits", tests, NULL, NULL);
}
