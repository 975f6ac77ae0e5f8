/* links: auth/users_edit.c auth/users.c auth/digest.c auth/secret.c */
/* SPDX-License-Identifier: MIT
 *
 * `proxyctl passwd` from inside: one line changes and nothing else does.
 */
#include "auth/users.h"
#include "auth/users_edit.h"

#include <fcntl.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>

#define HASH "$argon2id$v=19$m=8,t=1,p=1$AAECAwQFBgcICQoLDA0ODw$AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8"

static char directory[64], path[96], err[256], text[8192];

static int make_directory(void **state)
{
    (void)state;
    strcpy(directory, "/tmp/proxyd-edit-XXXXXX");
    snprintf(path, sizeof path, "%s/users", mkdtemp(directory));
    return 0;
}

static int remove_directory(void **state)
{
    (void)state;
    unlink(path);
    return rmdir(directory); /* fails when a temporary file was left */
}

static void write_users(const char *content, mode_t mode)
{
    FILE *file = fopen(path, "w");
    assert_non_null(file);
    fputs(content, file);
    assert_int_equal(fchmod(fileno(file), mode), 0);
    fclose(file);
}

static const char *read_users(void)
{
    FILE *file = fopen(path, "r");
    assert_non_null(file);
    text[fread(text, 1, sizeof text - 1, file)] = '\0';
    fclose(file);
    return text;
}

static mode_t mode_of_users(void)
{
    struct stat status;
    assert_int_equal(lstat(path, &status), 0);
    return status.st_mode & 07777;
}

static int edit(const char *name, const char *password, const char *chains)
{
    struct users_change change = {name, password, password ? strlen(password) : 0, chains, false};
    return users_edit(path, &change, err, sizeof err);
}

static int delete (const char *name)
{
    struct users_change change = {.name = name, .is_removal = true};
    return users_edit(path, &change, err, sizeof err);
}

static void fail_on_problem(void *context, const char *problem)
{
    (void)context;
    fail_msg("%s", problem);
}

static void assert_password(const char *name, const char *password, enum secret_verdict verdict)
{
    struct users *users = users_load(path, USERS_PASSWORDS, 64 * 1024 * 1024, fail_on_problem, NULL);
    const struct user *user = users_find(users, name, strlen(name));
    assert_non_null(user);
    assert_int_equal(secret_hash_check(&user->hash, password, strlen(password)), verdict);
    users_free(users);
}

static void first_user_makes_a_private_file(void **state)
{
    (void)state;
    assert_int_equal(edit("a", "pw", NULL), 0);
    assert_int_equal(mode_of_users(), 0600);
    assert_password("a", "pw", SECRET_EQUAL);
    assert_int_equal(edit("b", "pw2", "calls,x-*"), 0);
    assert_password("a", "pw", SECRET_EQUAL);
    assert_password("b", "pw2", SECRET_EQUAL);
    assert_non_null(strstr(read_users(), ":calls,x-*\n"));
}

static void change_touches_one_line_only(void **state)
{
    (void)state;
    write_users("# top\n\na:" HASH "\n  b:" HASH ":calls\n# end, no newline\nc:" HASH ":x", 0640);
    assert_int_equal(edit("b", "new", NULL), 0);
    read_users();
    assert_ptr_equal(strstr(text, "# top\n\na:" HASH "\nb:$argon2id$v=19$m=19456"), text);
    assert_non_null(strstr(text, ":calls\n# end, no newline\nc:" HASH ":x"));
    assert_int_equal(mode_of_users(), 0640);
    assert_password("b", "new", SECRET_EQUAL);
}

static void chains_change_without_the_password(void **state)
{
    (void)state;
    write_users("a:" HASH ":old\nb:" HASH, 0600);
    assert_int_equal(edit("a", NULL, "new,n-*"), 0);
    assert_string_equal(read_users(), "a:" HASH ":new,n-*\nb:" HASH);
    assert_int_equal(edit("a", NULL, "*"), 0);
    assert_string_equal(read_users(), "a:" HASH "\nb:" HASH);
    assert_int_equal(edit("b", NULL, "x"), 0);
    assert_string_equal(read_users(), "a:" HASH "\nb:" HASH ":x\n");
}

static void new_user_after_a_line_without_newline(void **state)
{
    (void)state;
    write_users("a:" HASH, 0600);
    assert_int_equal(edit("b", "pw", NULL), 0);
    assert_ptr_equal(strstr(read_users(), "a:" HASH "\nb:$argon2id$"), text);
}

static void deleting_leaves_the_rest(void **state)
{
    (void)state;
    write_users("# a:\na:" HASH "\nab:" HASH "\n", 0600);
    assert_int_equal(delete ("a"), 0);
    assert_string_equal(read_users(), "# a:\nab:" HASH "\n");
    assert_int_equal(delete ("a"), -1);
    assert_non_null(strstr(err, "no such user"));
    assert_string_equal(read_users(), "# a:\nab:" HASH "\n");
}

static void change_that_makes_no_sense_leaves_the_file(void **state)
{
    (void)state;
    char long_password[300];
    memset(long_password, 'x', sizeof long_password - 1);
    long_password[sizeof long_password - 1] = '\0';
    assert_int_equal(edit("a", NULL, "calls"), -1);
    assert_int_equal(delete ("a"), -1);
    assert_int_equal(access(path, F_OK), -1);
    write_users("a:" HASH "\n", 0600);
    assert_int_equal(edit("a", NULL, NULL), -1);
    assert_int_equal(edit("a", "", NULL), -1);
    assert_int_equal(edit("a", long_password, NULL), -1);
    assert_int_equal(edit("a", "pw", "a b"), -1);
    assert_int_equal(edit("a", "pw", ""), -1);
    assert_int_equal(edit("b", NULL, "calls"), -1);
    assert_int_equal(edit("b:c", "pw", NULL), -1);
    assert_int_equal(edit("b\nc", "pw", NULL), -1);
    assert_int_equal(edit("#b", "pw", NULL), -1);
    assert_string_equal(read_users(), "a:" HASH "\n");
}

static void symbolic_link_is_not_followed(void **state)
{
    (void)state;
    char target[96];
    snprintf(target, sizeof target, "%s/target", directory);
    assert_int_equal(symlink(target, path), 0);
    assert_int_equal(edit("a", "pw", NULL), -1);
    assert_non_null(strstr(err, "symbolic link"));
    assert_int_equal(access(target, F_OK), -1);
}

static void editors_at_the_same_time_all_count(void **state)
{
    (void)state;
    enum { EDITORS = 8, EDITS = 25 };
    char name[16], chains[16], line[256];
    write_users("", 0600);
    for (int i = 0; i < EDITORS; i++) {
        snprintf(line, sizeof line, "%su%d:" HASH "\n", i ? "" : "# shared\n", i);
        FILE *file = fopen(path, "a");
        fputs(line, file);
        fclose(file);
    }
    pid_t children[EDITORS];
    for (int i = 0; i < EDITORS; i++) {
        children[i] = fork();
        if (children[i] != 0)
            continue;
        snprintf(name, sizeof name, "u%d", i);
        for (int k = 1; k <= EDITS; k++) {
            snprintf(chains, sizeof chains, "c%d", k);
            if (edit(name, NULL, chains) < 0)
                _exit(1);
        }
        _exit(0);
    }
    for (int i = 0; i < EDITORS; i++) {
        int status;
        assert_int_equal(waitpid(children[i], &status, 0), children[i]);
        assert_int_equal(status, 0);
    }
    read_users();
    for (int i = 0; i < EDITORS; i++) {
        snprintf(line, sizeof line, "u%d:" HASH ":c%d\n", i, EDITS);
        assert_non_null(strstr(text, line));
    }
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, make_directory, remove_directory)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(first_user_makes_a_private_file),    TEST(change_touches_one_line_only),
        TEST(chains_change_without_the_password), TEST(new_user_after_a_line_without_newline),
        TEST(deleting_leaves_the_rest),           TEST(change_that_makes_no_sense_leaves_the_file),
        TEST(symbolic_link_is_not_followed),      TEST(editors_at_the_same_time_all_count),
    };
    return cmocka_run_group_tests_name("users_edit", tests, NULL, NULL);
}
