/* links: auth/users.c auth/digest.c auth/secret.c */
/* SPDX-License-Identifier: MIT
 *
 * Users and keys files, good and bad; the decision for a message; trees that are swapped under readers.
 */
#include "auth/users.h"

#include <fcntl.h>
#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cmocka.h>

#define HASH  "$argon2id$v=19$m=8,t=1,p=1$AAECAwQFBgcICQoLDA0ODw$AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8"
#define OTHER "$argon2id$v=19$m=8,t=1,p=1$BAECAwQFBgcICQoLDA0ODw$AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8"
#define KEY   "rq:rM>}U?@Lns47E1%kR.o@n%FcmmsL/@{H8]yf7"
#define KEY_2 "Yne@$w-vo<fVvi]a<NY6T1ed:M$fCG*[IaLV{hID"

enum { LIMIT_BYTES = 64 * 1024 * 1024 };

static char *const everybody[] = {"*"};

struct told {
    unsigned count;
    char text[4096];
};

static void remember(void *context, const char *text)
{
    struct told *told = context;
    told->count++;
    strncat(told->text, text, sizeof told->text - strlen(told->text) - 2);
    strcat(told->text, "\n");
}

static struct users *parse_kind(const char *text, size_t size, enum users_kind kind, struct told *told)
{
    memset(told, 0, sizeof *told);
    return users_parse("users", text, size, kind, LIMIT_BYTES, remember, told);
}

static struct users *parse(const char *text)
{
    struct told told;
    struct users *users = parse_kind(text, strlen(text), USERS_PASSWORDS, &told);
    assert_string_equal(told.text, "");
    assert_non_null(users);
    return users;
}

static void write_id(const struct users *users, const char *name, char id[USERS_ID_BYTES])
{
    const struct user *user = users_find(users, name, strlen(name));
    assert_non_null(user);
    users_write_id(user, id);
}

static void file_with_everything_is_read(void **state)
{
    (void)state;
    struct users *users = parse("# the fleet\n"
                                "\n"
                                "pi-1:" HASH "\n"
                                "  pi 2:" HASH ":calls,alarm-*  \r\n"
                                "\t# indented\n"
                                "zo\xc3\xab:" HASH ":*");
    assert_int_equal(users_count(users), 3);
    assert_non_null(users_find(users, "pi-1", 4));
    assert_string_equal(users_find(users, "pi 2", 4)->chains, "calls,alarm-*");
    assert_non_null(users_find(users, "zo\xc3\xab", 4));
    assert_null(users_find(users, "pi-", 3));
    assert_null(users_find(users, "pi-1\0x", 6));
    assert_null(users_find(users, "", 0));
    users_free(users);
}

static void empty_file_has_no_users(void **state)
{
    (void)state;
    struct users *users = parse("");
    assert_int_equal(users_count(users), 0);
    assert_null(users_find(users, "a", 1));
    assert_null(users_any(users, 17));
    assert_null(users_decide(users, "a#0000000000000000", "calls", everybody, 1));
    users_free(users);
}

static void every_problem_is_told_with_its_line(void **state)
{
    (void)state;
    struct told told;
    static const char text[] = "good:" HASH "\n"
                               "no colon\n"
                               ":" HASH "\n"
                               "bad\x01name:" HASH "\n"
                               "bad\xff:" HASH "\n"
                               "bad\xc0\xaf:" HASH "\n"
                               "bad\xed\xa0\x80:" HASH "\n"
                               "hash:secret\n"
                               "chains:" HASH ":\n"
                               "chains:" HASH ":a,,b\n"
                               "chains:" HASH ":a b\n"
                               "chains:" HASH ":a:b\n"
                               "nul\0:" HASH "\n"
                               "good:" HASH "\n";
    assert_null(parse_kind(text, sizeof text - 1, USERS_PASSWORDS, &told));
    assert_int_equal(told.count, 13);
    for (int line = 2; line <= 14; line++) {
        char prefix[32];
        snprintf(prefix, sizeof prefix, "users:%d: ", line);
        assert_non_null(strstr(told.text, prefix));
    }
    assert_non_null(strstr(told.text, "users:14: user \"good\" stands in line 1 already"));
    assert_null(strstr(told.text, "secret"));
}

static void name_may_be_as_long_as_an_id_allows(void **state)
{
    (void)state;
    char name[USERS_NAME_MAX + 1], text[1024], id[USERS_ID_BYTES];
    memset(name, 'n', sizeof name);
    snprintf(text, sizeof text, "%.*s:%s\n", USERS_NAME_MAX, name, HASH);
    struct users *users = parse(text);
    users_write_id(users_find(users, name, USERS_NAME_MAX), id);
    assert_int_equal(strlen(id), 255);
    assert_non_null(users_decide(users, id, "calls", everybody, 1));
    users_free(users);
    assert_false(users_name_is_valid(name, USERS_NAME_MAX + 1));
}

static void keys_may_hold_colons(void **state)
{
    (void)state;
    struct told told;
    static const char text[] = "pi-1:" KEY "\npi-2:" KEY_2 ":calls\n";
    struct users *users = parse_kind(text, sizeof text - 1, USERS_KEYS, &told);
    assert_non_null(users);
    const struct user *first = users_find(users, "pi-1", 4), *second = users_find(users, "pi-2", 4);
    assert_null(first->chains);
    assert_string_equal(second->chains, "calls");
    assert_ptr_equal(users_find_key(users, first->key), first);
    assert_ptr_equal(users_find_key(users, second->key), second);
    uint8_t unknown[USERS_KEY_BYTES] = {0};
    assert_null(users_find_key(users, unknown));
    users_free(users);
}

static void bad_keys_are_told(void **state)
{
    (void)state;
    struct told told;
    static const char text[] = "short:abc\n"
                               "long:" KEY "x\n"
                               "alphabet:~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~\n"
                               "a:" KEY "\n"
                               "b:" KEY ":calls\n";
    assert_null(parse_kind(text, sizeof text - 1, USERS_KEYS, &told));
    assert_int_equal(told.count, 4);
    assert_non_null(strstr(told.text, "users:5: user \"b\" has the key of \"a\" in line 4"));
}

static void patterns_match_like_a_shell(void **state)
{
    (void)state;
    static const struct {
        const char *pattern, *text;
        bool matches;
    } cases[] = {
        {"", "", true},
        {"", "a", false},
        {"*", "", true},
        {"*", "abc", true},
        {"abc", "abc", true},
        {"abc", "ab", false},
        {"abc", "abcd", false},
        {"a?c", "abc", true},
        {"a?c", "ac", false},
        {"pi-*", "pi-", true},
        {"pi-*", "pi", false},
        {"*-1", "a-1-1", true},
        {"*a*b", "xaxb", true},
        {"*a*b", "xaxbx", false},
        {"**?", "x", true},
        {"?", "", false},
        {"[a]", "a", false},
        {"A", "a", false},
        {"*ab*ab*", "abxab", true},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++)
        assert_int_equal(users_match(cases[i].pattern, strlen(cases[i].pattern), cases[i].text),
                         cases[i].matches);
}

static void both_lists_must_grant(void **state)
{
    (void)state;
    struct users *users = parse("a:" HASH ":calls,alarm-*\nb:" HASH "\n");
    const struct user *a = users_find(users, "a", 1), *b = users_find(users, "b", 1);
    char *const none[] = {"x*"}, *const some[] = {"x*", "a"};
    assert_true(users_grants(a, "calls", everybody, 1));
    assert_true(users_grants(a, "alarm-7", everybody, 1));
    assert_false(users_grants(a, "call", everybody, 1));
    assert_true(users_grants(b, "anything", everybody, 1));
    assert_false(users_grants(b, "anything", none, 1));
    assert_true(users_grants(a, "calls", some, 2));
    assert_false(users_grants(b, "calls", some, 2));
    assert_false(users_grants(b, "calls", everybody, 0));
    users_free(users);
}

static void unchanged_user_stays_in_across_a_reload(void **state)
{
    (void)state;
    char id[USERS_ID_BYTES];
    struct users *before = parse("a:" HASH "\nb:" HASH "\n");
    write_id(before, "a", id);
    struct users *after = parse("# moved\nc:" OTHER "\na:" HASH ":calls\n");
    const char *name = users_decide(after, id, "calls", everybody, 1);
    assert_non_null(name);
    assert_string_equal(name, "a");
    assert_null(users_decide(after, id, "other", everybody, 1));
    users_free(before);
    users_free(after);
}

static void removed_or_changed_user_is_denied(void **state)
{
    (void)state;
    char id[USERS_ID_BYTES];
    struct users *before = parse("a:" HASH "\n");
    write_id(before, "a", id);
    assert_non_null(users_decide(before, id, "calls", everybody, 1));
    struct users *removed = parse("b:" HASH "\n"), *changed = parse("a:" OTHER "\n");
    assert_null(users_decide(removed, id, "calls", everybody, 1));
    assert_null(users_decide(changed, id, "calls", everybody, 1));
    users_free(before);
    users_free(removed);
    users_free(changed);
}

static void ids_nobody_gave_are_denied(void **state)
{
    (void)state;
    struct users *users = parse("a:" HASH "\nb#1:" HASH "\n");
    char id[USERS_ID_BYTES], other[USERS_ID_BYTES + 8];
    write_id(users, "b#1", id);
    assert_string_equal(users_decide(users, id, "calls", everybody, 1), "b#1");
    static const char *const ids[] = {
        "", "a", "a#", "#", "a#0000000000000000", "a#zzzzzzzzzzzzzzzz", "a#-000000000000001"};
    for (size_t i = 0; i < sizeof ids / sizeof *ids; i++)
        assert_null(users_decide(users, ids[i], "calls", everybody, 1));
    assert_null(users_decide(users, NULL, "calls", everybody, 1));
    write_id(users, "a", id);
    snprintf(other, sizeof other, "%s0", id);
    assert_null(users_decide(users, other, "calls", everybody, 1));
    snprintf(other, sizeof other, "b#1%s", id + 1);
    assert_null(users_decide(users, other, "calls", everybody, 1));
    users_free(users);
}

static void file_that_others_can_read_is_refused(void **state)
{
    (void)state;
    char path[] = "/tmp/proxyd-users-XXXXXX";
    int fd = mkstemp(path);
    assert_int_equal(write(fd, "a:" HASH "\n", sizeof "a:" HASH), sizeof "a:" HASH);
    struct told told = {0};
    assert_int_equal(fchmod(fd, 0644), 0);
    assert_null(users_load(path, USERS_PASSWORDS, LIMIT_BYTES, remember, &told));
    assert_non_null(strstr(told.text, "mode 0644"));
    assert_int_equal(fchmod(fd, 0640), 0);
    struct users *users = users_load(path, USERS_PASSWORDS, LIMIT_BYTES, remember, &told);
    assert_int_equal(told.count, 1);
    assert_int_equal(users_count(users), 1);
    users_free(users);
    assert_null(users_load(path, USERS_PASSWORDS, 4096, remember, &told));
    assert_non_null(strstr(told.text, "above auth_memory"));
    close(fd);
    unlink(path);
}

static void view_follows_the_slot(void **state)
{
    (void)state;
    struct users_slot *slot = users_slot_new(parse("a:" HASH "\n"));
    struct users_view view = {.slot = slot};
    char id[USERS_ID_BYTES];
    const struct users *first = users_view_refresh(&view);
    write_id(first, "a", id);
    assert_ptr_equal(users_view_refresh(&view), first);
    users_slot_swap(slot, parse("b:" HASH "\n"));
    assert_non_null(users_decide(first, id, "calls", everybody, 1)); /* still ours until the refresh */
    assert_null(users_decide(users_view_refresh(&view), id, "calls", everybody, 1));
    users_view_close(&view);
    users_slot_free(slot);
}

struct race {
    struct users_slot *slot;
    atomic_bool is_over;
    atomic_uint wrong;
};

static void *read_users(void *context)
{
    struct race *race = context;
    struct users_view view = {.slot = race->slot};
    while (!race->is_over) {
        const struct users *users = users_view_refresh(&view);
        const struct user *user = users_find(users, "a", 1);
        if (!user || user->name_size != 1)
            race->wrong++;
        struct users *held = users_slot_hold(race->slot);
        if (users_count(held) != 1)
            race->wrong++;
        users_free(held);
    }
    users_view_close(&view);
    return NULL;
}

static void trees_are_swapped_under_readers(void **state)
{
    (void)state;
    struct race race = {.slot = users_slot_new(parse("a:" HASH "\n"))};
    pthread_t threads[2];
    for (int i = 0; i < 2; i++)
        assert_int_equal(pthread_create(&threads[i], NULL, read_users, &race), 0);
    for (int i = 0; i < 2000; i++)
        users_slot_swap(race.slot, parse(i % 2 ? "a:" HASH "\n" : "a:" OTHER "\n"));
    race.is_over = true;
    for (int i = 0; i < 2; i++)
        pthread_join(threads[i], NULL);
    assert_int_equal(race.wrong, 0);
    users_slot_free(race.slot);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(file_with_everything_is_read),
        cmocka_unit_test(empty_file_has_no_users),
        cmocka_unit_test(every_problem_is_told_with_its_line),
        cmocka_unit_test(name_may_be_as_long_as_an_id_allows),
        cmocka_unit_test(keys_may_hold_colons),
        cmocka_unit_test(bad_keys_are_told),
        cmocka_unit_test(patterns_match_like_a_shell),
        cmocka_unit_test(both_lists_must_grant),
        cmocka_unit_test(unchanged_user_stays_in_across_a_reload),
        cmocka_unit_test(removed_or_changed_user_is_denied),
        cmocka_unit_test(ids_nobody_gave_are_denied),
        cmocka_unit_test(file_that_others_can_read_is_refused),
        cmocka_unit_test(view_follows_the_slot),
        cmocka_unit_test(trees_are_swapped_under_readers),
    };
    return cmocka_run_group_tests_name("users", tests, NULL, NULL);
}
