/* links: buffer/histogram.c */
/* SPDX-License-Identifier: MIT
 *
 * Durations in buckets: which one, how they add up, what is recent.
 */
#include "buffer/histogram.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>

static const struct histogram empty;

static void every_duration_lies_between_the_bounds_of_its_bucket(void **state)
{
    (void)state;
    for (uint64_t us = 0; us < UINT64_C(1) << 40; us += us / 97 + 1) {
        int bucket = (int)histogram_bucket(us);
        assert_true(bucket == 0 || us >= histogram_bound_us(bucket - 1));
        assert_true(bucket == HISTOGRAM_BOUNDS || us < histogram_bound_us(bucket));
    }
    assert_int_equal(histogram_bucket(UINT64_MAX), HISTOGRAM_BOUNDS);
}

static void bounds_rise_from_32_us_to_67_s_by_a_quarter_at_most(void **state)
{
    (void)state;
    assert_int_equal(histogram_bound_us(0), 32);
    assert_int_equal(histogram_bound_us(HISTOGRAM_BOUNDS - 1), 67108864);
    for (int i = 1; i < HISTOGRAM_BOUNDS; i++) {
        assert_true(histogram_bound_us(i) > histogram_bound_us(i - 1));
        assert_true(histogram_bound_us(i) * 4 <= histogram_bound_us(i - 1) * 5);
    }
}

static void quantiles_are_right_within_a_fifth(void **state)
{
    (void)state;
    struct histogram histogram = empty;
    struct histogram_stats stats;
    for (uint64_t us = 1; us <= 10000; us++)
        histogram_add(&histogram, us * 10, 0);
    histogram_read(&histogram, 0, &stats);
    assert_int_equal(stats.total, 10000);
    assert_int_equal(stats.sum_us, UINT64_C(10000) * 10001 / 2 * 10);
    assert_in_range(stats.p50_us, 50000 * 4 / 5, 50000 * 6 / 5);
    assert_in_range(stats.p99_us, 99000 * 4 / 5, 99000 * 6 / 5);
}

static void what_is_above_all_bounds_counts(void **state)
{
    (void)state;
    struct histogram histogram = empty;
    struct histogram_stats stats;
    histogram_add(&histogram, 3600000000, 0);
    histogram_read(&histogram, 0, &stats);
    assert_int_equal(stats.counts[HISTOGRAM_BOUNDS], 1);
    assert_int_equal(stats.p50_us, 67108864);
}

static void quantiles_forget_and_totals_do_not(void **state)
{
    (void)state;
    struct histogram histogram = empty;
    struct histogram_stats stats;
    histogram_add(&histogram, 1000000, 0);
    histogram_add(&histogram, 1000, 60000);
    histogram_read(&histogram, 60000, &stats);
    assert_int_equal(stats.recent_total, 2);
    histogram_add(&histogram, 1000, 120000);
    histogram_read(&histogram, 120000, &stats);
    assert_int_equal(stats.recent_total, 2);
    assert_in_range(stats.p99_us, 800, 1200);
    histogram_read(&histogram, 300000, &stats);
    assert_int_equal(stats.recent_total, 0);
    assert_int_equal(stats.p99_us, 0);
    assert_int_equal(stats.total, 3);
    histogram_add(&histogram, 1000, 300000);
    histogram_read(&histogram, 300000, &stats);
    assert_int_equal(stats.recent_total, 1);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_duration_lies_between_the_bounds_of_its_bucket),
        cmocka_unit_test(bounds_rise_from_32_us_to_67_s_by_a_quarter_at_most),
        cmocka_unit_test(quantiles_are_right_within_a_fifth),
        cmocka_unit_test(what_is_above_all_bounds_counts),
        cmocka_unit_test(quantiles_forget_and_totals_do_not),
    };
    return cmocka_run_group_tests_name("histogram", tests, NULL, NULL);
}
