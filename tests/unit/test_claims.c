/* links: proxies/claims.c */
/* SPDX-License-Identifier: MIT
 *
 * Whose a routing id is, while its connections come and go.
 */
#include "proxies/claims.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <string.h>

#include <cmocka.h>

static struct claims claims;

static int set_up(void **state)
{
    (void)state;
    claims_init(&claims, 7);
    return 0;
}

static int tear_down(void **state)
{
    (void)state;
    claims_clear(&claims);
    return 0;
}

static struct claim *take(uint64_t port, const char *user, const char *id, int64_t now_ms)
{
    struct zmtp_claim said = {.user_bytes = (uint8_t)strlen(user), .id_bytes = (uint8_t)strlen(id)};
    memcpy(said.user, user, said.user_bytes);
    memcpy(said.id, id, said.id_bytes);
    return claims_take(&claims, port, &said, now_ms);
}

/* A connection that came, was let in, and went. */
static void visit(const char *user, const char *id, int64_t now_ms)
{
    struct claim *claim = take(1, user, id, now_ms);
    assert_non_null(claim);
    claims_prove(claim);
    claims_leave(&claims, claim, now_ms);
}

static void a_name_is_its_users_alone(void **state)
{
    (void)state;
    struct claim *first = take(1, "anna", "fixed", 0), *second = take(1, "anna", "fixed", 0);
    assert_ptr_equal(first, second);
    assert_null(take(1, "bert", "fixed", 0));
    assert_null(take(1, "ann", "fixed", 0));
    struct claim *other_name = take(1, "bert", "fixed2", 0), *other_port = take(2, "bert", "fixed", 0);
    assert_non_null(other_name);
    assert_non_null(other_port);
    claims_prove(first);
    claims_leave(&claims, first, 0);
    claims_leave(&claims, second, 0);
    claims_leave(&claims, other_name, 0);
    claims_leave(&claims, other_port, 0);
}

static void it_stays_theirs_for_a_while(void **state)
{
    (void)state;
    visit("anna", "fixed", 100);
    assert_null(take(1, "bert", "fixed", 100 + CLAIMS_KEPT_MS - 1));
    visit("anna", "fixed", 200);
    assert_null(take(1, "bert", "fixed", 100 + CLAIMS_KEPT_MS));
    visit("bert", "fixed", 200 + CLAIMS_KEPT_MS);
    assert_null(take(1, "anna", "fixed", 200 + CLAIMS_KEPT_MS));
}

static void who_was_not_let_in_reserves_nothing(void **state)
{
    (void)state;
    struct claim *impostor = take(1, "anna", "fixed", 0);
    assert_null(take(1, "bert", "fixed", 0));
    claims_leave(&claims, impostor, 0);
    visit("bert", "fixed", 0);
}

static void the_oldest_of_too_many_is_forgotten(void **state)
{
    (void)state;
    char id[16];
    for (int i = 0; i <= CLAIMS_KEPT; i++) {
        snprintf(id, sizeof id, "id-%d", i);
        visit("anna", id, i);
    }
    assert_int_equal(claims.left_count, CLAIMS_KEPT);
    assert_null(take(1, "bert", "id-1", CLAIMS_KEPT));
    visit("bert", "id-0", CLAIMS_KEPT);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(a_name_is_its_users_alone, set_up, tear_down),
        cmocka_unit_test_setup_teardown(it_stays_theirs_for_a_while, set_up, tear_down),
        cmocka_unit_test_setup_teardown(who_was_not_let_in_reserves_nothing, set_up, tear_down),
        cmocka_unit_test_setup_teardown(the_oldest_of_too_many_is_forgotten, set_up, tear_down),
    };
    return cmocka_run_group_tests_name("claims", tests, NULL, NULL);
}
