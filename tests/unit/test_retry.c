/* SPDX-License-Identifier: MIT */
/* links: proxies/retry.c */
#include "proxies/retry.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>

static void delay_stays_within_its_exponential_bound(void **state)
{
    (void)state;
    static const int64_t bounds[] = {200, 400, 800, 1600, 2000, 2000, 2000};
    for (uint32_t failures = 1; failures <= sizeof bounds / sizeof *bounds; failures++) {
        int64_t longest = 0;
        for (int i = 0; i < 5000; i++) {
            int64_t delay = retry_delay_ms(failures, 200, 2000, retry_random());
            assert_in_range(delay, 1, bounds[failures - 1]);
            longest = delay > longest ? delay : longest;
        }
        assert_true(longest > bounds[failures - 1] * 9 / 10);
    }
}

static void delay_is_spread_over_the_whole_bound(void **state)
{
    (void)state;
    int early = 0;
    for (int i = 0; i < 10000; i++)
        early += retry_delay_ms(4, 200, 2000, retry_random()) <= 800;
    assert_in_range(early, 4500, 5500);
}

static void delay_survives_the_ends_of_its_ranges(void **state)
{
    (void)state;
    assert_int_equal(retry_delay_ms(1, 0, 0, 7), 1);
    assert_in_range(retry_delay_ms(UINT32_MAX, INT64_MAX / 2, INT64_MAX, UINT32_MAX), 1, INT64_MAX);
    assert_in_range(retry_delay_ms(64, 1, INT64_MAX, UINT32_MAX), 1, INT64_MAX);
}

static void failures_during_one_wait_count_once(void **state)
{
    (void)state;
    struct backoff backoff = {0};
    backoff_fail(&backoff, 1000, 200, 2000, 199);
    assert_int_equal(backoff.until_ms, 1200);
    for (int i = 0; i < 10; i++)
        backoff_fail(&backoff, 1100, 200, 2000, 199);
    assert_int_equal(backoff.failures, 1);
    assert_int_equal(backoff.until_ms, 1200);
    backoff_fail(&backoff, 1200, 200, 2000, 399);
    assert_int_equal(backoff.failures, 2);
    assert_int_equal(backoff.until_ms, 1600);
}

static void success_starts_from_the_base_again(void **state)
{
    (void)state;
    struct backoff backoff = {0};
    for (int64_t now_ms = 0; now_ms < 100000; now_ms += 10000)
        backoff_fail(&backoff, now_ms, 200, 2000, 1999);
    assert_int_equal(backoff.failures, 10);
    backoff_reset(&backoff);
    backoff_fail(&backoff, 100000, 200, 2000, 199);
    assert_int_equal(backoff.until_ms, 100200);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(delay_stays_within_its_exponential_bound),
        cmocka_unit_test(delay_is_spread_over_the_whole_bound),
        cmocka_unit_test(delay_survives_the_ends_of_its_ranges),
        cmocka_unit_test(failures_during_one_wait_count_once),
        cmocka_unit_test(success_starts_from_the_base_again),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
