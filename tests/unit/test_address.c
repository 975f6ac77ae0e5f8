/* links: auth/address.c */
/* SPDX-License-Identifier: MIT
 *
 * Peer addresses as libzmq writes them, ranges in CIDR form, and who counts as one peer.
 */
#include "auth/address.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

static struct address address_of(const char *text)
{
    struct address address;
    address_parse(&address, text, strlen(text));
    return address;
}

static bool is_in(const char *address_text, const char *range_text)
{
    struct address address = address_of(address_text);
    struct address_range range;
    char err[160];
    assert_int_equal(address_range_parse(&range, range_text, err, sizeof err), 0);
    return address_is_in(&address, &range);
}

static void families_are_told_apart(void **state)
{
    (void)state;
    assert_int_equal(address_of("10.0.0.1").family, ADDRESS_IPV4);
    assert_int_equal(address_of("::ffff:10.0.0.1").family, ADDRESS_IPV4);
    assert_int_equal(address_of("2001:db8::1").family, ADDRESS_IPV6);
    assert_int_equal(address_of("fe80::1%eth0").family, ADDRESS_IPV6);
    assert_int_equal(address_of("localhost:1000:1000:4711").family, ADDRESS_LOCAL);
    static const char *const none[] = {"",
                                       "localhost",
                                       "localhost:",
                                       "localhost:x:1:2",
                                       "10.0.0",
                                       "10.0.0.1.",
                                       "localhost:4294967296:1:2",
                                       ":::",
                                       "example.org"};
    for (size_t i = 0; i < sizeof none / sizeof *none; i++)
        assert_int_equal(address_of(none[i]).family, ADDRESS_NONE);
    char long_text[300];
    memset(long_text, '1', sizeof long_text - 1);
    long_text[sizeof long_text - 1] = '\0';
    assert_int_equal(address_of(long_text).family, ADDRESS_NONE);
}

static void range_covers_its_prefix_and_no_more(void **state)
{
    (void)state;
    assert_true(is_in("10.1.2.3", "10.0.0.0/8"));
    assert_false(is_in("11.0.0.0", "10.0.0.0/8"));
    assert_true(is_in("192.168.1.127", "192.168.1.0/25"));
    assert_false(is_in("192.168.1.128", "192.168.1.0/25"));
    assert_true(is_in("192.168.1.9", "192.168.1.5/24"));
    assert_true(is_in("10.0.0.1", "10.0.0.1"));
    assert_false(is_in("10.0.0.2", "10.0.0.1"));
    assert_true(is_in("1.2.3.4", "0.0.0.0/0"));
    assert_true(is_in("2001:db8:0:1::5", "2001:db8::/32"));
    assert_false(is_in("2001:db9::5", "2001:db8::/32"));
    assert_true(is_in("fe80::1%eth0", "fe80::/10"));
    assert_false(is_in("::2", "::1"));
}

static void mapped_addresses_are_ipv4_on_both_sides(void **state)
{
    (void)state;
    assert_true(is_in("::ffff:10.1.2.3", "10.0.0.0/8"));
    assert_true(is_in("10.1.2.3", "::ffff:10.0.0.0/104"));
    assert_false(is_in("11.1.2.3", "::ffff:10.0.0.0/104"));
    assert_false(is_in("10.1.2.3", "::/0"));
    assert_false(is_in("::1", "0.0.0.0/0"));
}

static void local_peers_are_in_no_range(void **state)
{
    (void)state;
    assert_false(is_in("localhost:0:0:1", "0.0.0.0/0"));
    assert_false(is_in("nonsense", "0.0.0.0/0"));
}

static void range_that_is_none_is_refused(void **state)
{
    (void)state;
    static const char *const texts[] = {
        "",       "localhost", "10.0.0.0/33", "10.0.0.0/",   "10.0.0.0/x", "10.0.0.0/-1", "10.0.0.0/8 ",
        "10.0/8", "::/129",    "::1%lo/64",   "10.0.0.0/+8", "/8",         "10.0.0.0/8/8"};
    for (size_t i = 0; i < sizeof texts / sizeof *texts; i++) {
        struct address_range range;
        char err[160] = "";
        assert_int_equal(address_range_parse(&range, texts[i], err, sizeof err), -1);
        assert_true(strlen(err) > 0);
    }
}

static bool are_one_peer(const char *a_text, const char *b_text)
{
    struct address a = address_of(a_text), b = address_of(b_text);
    struct address a_group = address_group(&a), b_group = address_group(&b);
    return memcmp(&a_group, &b_group, sizeof a_group) == 0;
}

static void ipv6_neighbours_count_as_one_peer(void **state)
{
    (void)state;
    assert_true(are_one_peer("2001:db8::1", "2001:db8::ffff:1"));
    assert_false(are_one_peer("2001:db8::1", "2001:db8:0:1::1"));
    assert_false(are_one_peer("10.0.0.1", "10.0.0.2"));
    assert_true(are_one_peer("10.0.0.1", "::ffff:10.0.0.1"));
    assert_true(are_one_peer("localhost:1000:1:2", "localhost:1000:1:3"));
    assert_false(are_one_peer("localhost:1000:1:2", "localhost:1001:1:2"));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(families_are_told_apart),
        cmocka_unit_test(range_covers_its_prefix_and_no_more),
        cmocka_unit_test(mapped_addresses_are_ipv4_on_both_sides),
        cmocka_unit_test(local_peers_are_in_no_range),
        cmocka_unit_test(range_that_is_none_is_refused),
        cmocka_unit_test(ipv6_neighbours_count_as_one_peer),
    };
    return cmocka_run_group_tests_name("address", tests, NULL, NULL);
}
