/* SPDX-License-Identifier: MIT */
/* links: proxies/lru.c proxies/retry.c */
#include "proxies/lru.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

struct entry {
    struct lru_entry entry;
    int value;
};

static void put(struct lru *lru, uint64_t key, int value)
{
    struct entry *entry = lru_add(lru, key);
    assert_non_null(entry);
    assert_int_equal(entry->value, 0);
    entry->value = value;
}

static void gives_back_what_was_added(void **state)
{
    (void)state;
    struct lru *lru = lru_new(sizeof(struct entry), 10000);
    for (uint64_t i = 0; i < 10000; i++)
        put(lru, i * 4096, (int)i);
    for (uint64_t i = 0; i < 10000; i += 999)
        assert_int_equal(((struct entry *)lru_find(lru, i * 4096))->value, i);
    assert_null(lru_find(lru, 1));
    lru_free(lru);
}

static void a_full_table_forgets_what_was_not_asked_for_longest(void **state)
{
    (void)state;
    struct lru *lru = lru_new(sizeof(struct entry), 3);
    for (int i = 1; i <= 3; i++)
        put(lru, (uint64_t)i, i);
    assert_non_null(lru_find(lru, 1));
    put(lru, 4, 4);
    assert_null(lru_find(lru, 2));
    assert_non_null(lru_find(lru, 3));
    put(lru, 5, 5);
    assert_null(lru_find(lru, 1));
    assert_int_equal(((struct entry *)lru_find(lru, 5))->value, 5);
    lru_free(lru);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(gives_back_what_was_added),
        cmocka_unit_test(a_full_table_forgets_what_was_not_asked_for_longest),
    };
    return cmocka_run_group_tests_name("lru", tests, NULL, NULL);
}
