/* SPDX-License-Identifier: MIT */
/* links: proxies/endpoint.c */
#include "proxies/endpoint.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>

#include <cmocka.h>

static struct endpoint parsed(const char *text, bool binds)
{
    struct endpoint endpoint;
    char err[400] = "";
    if (endpoint_parse(&endpoint, text, binds, err, sizeof(err)) != 0)
        fail_msg("%s", err);
    assert_string_equal(endpoint.text, text);
    return endpoint;
}

static void refused(const char *text, bool binds, const char *because)
{
    struct endpoint endpoint;
    char err[400] = "";
    assert_int_equal(endpoint_parse(&endpoint, text, binds, err, sizeof(err)), -1);
    if (strstr(err, because) == NULL)
        fail_msg("\"%s\" does not say \"%s\"", err, because);
    assert_null(endpoint.text);
    assert_null(endpoint.host);
}

static void expect_tcp(const char *text, bool binds, const char *host, int port)
{
    struct endpoint endpoint = parsed(text, binds);
    assert_int_equal(endpoint.transport, TRANSPORT_TCP);
    assert_string_equal(endpoint.host, host);
    assert_int_equal(endpoint.port, port);
    endpoint_close(&endpoint);
}

static void tcp_gives_host_and_port(void **state)
{
    (void)state;
    expect_tcp("tcp://central:6000", false, "central", 6000);
    expect_tcp("tcp://10.0.0.7:1", false, "10.0.0.7", 1);
    expect_tcp("tcp://my_host.example.com:65535", false, "my_host.example.com", 65535);
    expect_tcp("tcp://*:5555", true, "*", 5555);
    expect_tcp("tcp://eth0.100:5555", true, "eth0.100", 5555);
}

static void ipv6_loses_its_brackets(void **state)
{
    (void)state;
    expect_tcp("tcp://[::1]:5555", false, "::1", 5555);
    expect_tcp("tcp://[fe80::1%eth0]:5555", false, "fe80::1%eth0", 5555);
    refused("tcp://::1:5555", false, "in brackets");
    refused("tcp://[::1]", false, "no port");
    refused("tcp://[]:5555", false, "no IPv6 address");
    refused("tcp://[fe80::1%]:5555", false, "no IPv6 address");
    refused("tcp://[central]:5555", false, "no IPv6 address");
}

static void any_port_is_for_binding_only(void **state)
{
    (void)state;
    expect_tcp("tcp://127.0.0.1:*", true, "127.0.0.1", 0);
    expect_tcp("tcp://127.0.0.1:0", true, "127.0.0.1", 0);
    refused("tcp://127.0.0.1:*", false, "not connected to");
    refused("tcp://127.0.0.1:0", false, "not connected to");
    refused("tcp://*:5555", false, "not connected to");
}

static void bad_ports_are_refused(void **state)
{
    (void)state;
    const char *const bad[] = {"tcp://a:65536",       "tcp://a:",    "tcp://a:-1",
                               "tcp://a:99999999999", "tcp://a:80x", "tcp://a:5/"};
    for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++)
        refused(bad[i], true, "the port must be");
    refused("tcp://a", true, "no port");
}

static void bad_hosts_are_refused(void **state)
{
    (void)state;
    char text[300];
    refused("tcp://:5555", true, "no host");
    refused("tcp://user@host:5555", false, "written as username");
    refused("tcp://256.0.0.1:5555", false, "not an IPv4 address");
    refused("tcp://10.0.0.1:0;central:5555", false, "source address");
    refused("tcp://cen tral:5555", false, "blanks");
    refused("tcp://a\n:5555", false, "control characters");
    refused("tcp://m\xc3\xbcnchen:5555", false, "ASCII");
    snprintf(text, sizeof(text), "tcp://%0254d:5555", 0);
    refused(text, false, "not a host name");
}

static void a_password_in_an_endpoint_is_refused_and_not_repeated(void **state)
{
    (void)state;
    const char *const texts[] = {"tcp://site:secret@h:1",      ">tcp://site:secret@h:1",
                                 "ws://site:secret@h/",        "ws://site:secret@h:x/y",
                                 "ws://site:secret/@h:1/",     "http://site:secret@h:1",
                                 "wss://site:s@secret@[::1]:1"};
    for (size_t i = 0; i < sizeof(texts) / sizeof(texts[0]); i++) {
        struct endpoint endpoint;
        char err[400] = "";
        assert_int_equal(endpoint_parse(&endpoint, texts[i], false, err, sizeof(err)), -1);
        assert_null(strstr(err, "secret"));
    }
    refused("tcp://site:secret@h:1", false, "endpoint \"...@h:1\": a user name is written as username");
}

static void prefix_forces_the_direction(void **state)
{
    (void)state;
    struct endpoint bound = parsed("@tcp://*:5555", false);
    struct endpoint connected = parsed(">tcp://central:5555", true);
    assert_true(bound.is_bind);
    assert_string_equal(bound.address, "tcp://*:5555");
    assert_false(connected.is_bind);
    assert_string_equal(connected.address, "tcp://central:5555");
    endpoint_close(&bound);
    endpoint_close(&connected);
}

static void ipc_must_fit_into_a_socket_address(void **state)
{
    (void)state;
    char text[200];
    struct endpoint endpoint;
    snprintf(text, sizeof(text), "ipc:///%0106d", 0);
    endpoint = parsed(text, true);
    assert_int_equal(endpoint.transport, TRANSPORT_IPC);
    assert_null(endpoint.host);
    endpoint_close(&endpoint);
    snprintf(text, sizeof(text), "ipc:///%0107d", 0);
    refused(text, true, "107 bytes");
    refused("ipc://", true, "no path");
    refused("ipc://@", true, "no path");
    refused("ipc://*", true, "no path");
}

static void only_known_transports_are_taken(void **state)
{
    (void)state;
    struct endpoint endpoint = parsed("inproc://link", true);
    assert_int_equal(endpoint.transport, TRANSPORT_INPROC);
    endpoint_close(&endpoint);
    refused("inproc://", true, "1 to 255 bytes");
    refused("inproc://zeromq.zap.01", true, "RFC 27");
    refused("udp://*:5555", true, "begins with");
    refused("", true, "begins with");
    refused("@", true, "begins with");
    refused("TCP://a:1", true, "begins with");
}

static bool collide(const char *a, const char *b)
{
    struct endpoint left = parsed(a, true);
    struct endpoint right = parsed(b, true);
    bool answer = endpoint_collides(&left, &right);
    assert_int_equal(answer, endpoint_collides(&right, &left));
    endpoint_close(&left);
    endpoint_close(&right);
    return answer;
}

static void one_place_bound_twice_collides(void **state)
{
    (void)state;
    assert_true(collide("tcp://*:5555", "tcp://127.0.0.1:5555"));
    assert_true(collide("tcp://0.0.0.0:5555", "tcp://eth0:5555"));
    assert_true(collide("tcp://[::]:5555", "tcp://127.0.0.1:5555"));
    assert_true(collide("tcp://LocalHost:5555", "@tcp://localhost:5555"));
    assert_true(collide("tcp://[::1]:5555", "tcp://[0:0:0:0:0:0:0:1]:5555"));
    assert_true(collide("tcp://[::ffff:127.0.0.1]:5555", "tcp://127.0.0.1:5555"));
    assert_true(collide("tcp://[0::0]:5555", "tcp://eth0:5555"));
    assert_true(collide("tcp://*:5555", "tcp://[::]:5555"));
    assert_true(collide("tcp://*:5555", "tcp://[::ffff:127.0.0.1]:5555"));
    assert_true(collide("ipc:///run/a", "ipc:///run/a"));
    assert_true(collide("inproc://a", "inproc://a"));
}

static void different_places_do_not_collide(void **state)
{
    (void)state;
    assert_false(collide("tcp://*:5555", "tcp://*:5556"));
    assert_false(collide("tcp://127.0.0.1:5555", "tcp://127.0.0.2:5555"));
    assert_false(collide("tcp://[::1]:5555", "tcp://127.0.0.1:5555"));
    assert_false(collide("tcp://*:5555", "tcp://[::1]:5555"));
    assert_false(collide("tcp://[fd00::1]:5555", "tcp://0.0.0.0:5555"));
    assert_false(collide("tcp://*:*", "tcp://*:0"));
    assert_false(collide("ipc:///run/a", "ipc:///run/b"));
    assert_false(collide("ipc://a", "inproc://a"));
    assert_false(collide("tcp://*:5555", ">tcp://127.0.0.1:5555"));
}

static bool is_local(const char *text)
{
    struct endpoint endpoint = parsed(text, true);
    bool answer = endpoint_is_local(&endpoint);
    endpoint_close(&endpoint);
    return answer;
}

static void loopback_is_local(void **state)
{
    (void)state;
    assert_true(is_local("ipc:///run/a"));
    assert_true(is_local("inproc://a"));
    assert_true(is_local("tcp://localhost:1"));
    assert_true(is_local("tcp://127.3.2.1:1"));
    assert_true(is_local("tcp://[::1]:1"));
    assert_true(is_local("tcp://[::ffff:127.0.0.1]:1"));
    assert_false(is_local("tcp://*:1"));
    assert_false(is_local("tcp://128.0.0.1:1"));
    assert_false(is_local("tcp://[::]:1"));
    assert_false(is_local("tcp://central:1"));
}

static void expect_websocket(const char *text, const char *host, int port, const char *authority,
                             const char *path)
{
    size_t size;
    struct endpoint endpoint = parsed(text, true);
    assert_true(endpoint_is_websocket(&endpoint));
    assert_false(endpoint.is_bind);
    assert_string_equal(endpoint.host, host);
    assert_int_equal(endpoint.port, port);
    assert_memory_equal(endpoint_authority(&endpoint, &size), authority, strlen(authority));
    assert_int_equal(size, strlen(authority));
    assert_string_equal(endpoint_path(&endpoint), path);
    endpoint_close(&endpoint);
}

static void websocket_gives_host_port_and_path(void **state)
{
    (void)state;
    expect_websocket("ws://127.0.0.1:6133", "127.0.0.1", 6133, "127.0.0.1:6133", "");
    expect_websocket(">ws://bot.example", "bot.example", 80, "bot.example", "");
    expect_websocket("wss://bot.example/rpc/v3?key=a:b", "bot.example", 443, "bot.example",
                     "/rpc/v3?key=a:b");
    expect_websocket("ws://[::1]/", "::1", 80, "[::1]", "/");
    expect_websocket("ws://[::1]:99/a@b", "::1", 99, "[::1]:99", "/a@b");
    refused("@ws://a", false, "never bound");
    refused("wss://[::1]/", false, "but a name");
    refused("ws://u:p@a/", false, "written as username");
    refused("ws://a/#b", false, "fragment");
    refused("ws://a?b", false, "behind a path");
    refused("ws:///a", false, "no host");
    refused("ws://a:/b", false, "the port");
    refused("ws://::1/b", false, "in brackets");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(tcp_gives_host_and_port),
        cmocka_unit_test(ipv6_loses_its_brackets),
        cmocka_unit_test(any_port_is_for_binding_only),
        cmocka_unit_test(bad_ports_are_refused),
        cmocka_unit_test(bad_hosts_are_refused),
        cmocka_unit_test(a_password_in_an_endpoint_is_refused_and_not_repeated),
        cmocka_unit_test(prefix_forces_the_direction),
        cmocka_unit_test(ipc_must_fit_into_a_socket_address),
        cmocka_unit_test(only_known_transports_are_taken),
        cmocka_unit_test(one_place_bound_twice_collides),
        cmocka_unit_test(different_places_do_not_collide),
        cmocka_unit_test(loopback_is_local),
        cmocka_unit_test(websocket_gives_host_port_and_path),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
