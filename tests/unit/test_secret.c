/* links: auth/secret.c */
/* SPDX-License-Identifier: MIT
 *
 * Hashes made and read back, costs refused before they are paid, files that others can read.
 */
#include "auth/secret.h"

#include <fcntl.h>
#include <setjmp.h>
#include <sodium.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>

#define SALT "AAECAwQFBgcICQoLDA0ODw"
#define TAG  "AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8"

enum { CHEAP_KIB = 8, CHEAP_PASSES = 1, LIMIT_BYTES = 64 * 1024 * 1024 };

static struct secret_hash make(const char *password)
{
    char text[SECRET_TEXT_BYTES], err[256];
    struct secret_hash hash;
    assert_int_equal(secret_hash_make(text, password, strlen(password), CHEAP_KIB, CHEAP_PASSES), 0);
    assert_int_equal(secret_hash_parse(&hash, text, strlen(text), LIMIT_BYTES, err, sizeof err), 0);
    return hash;
}

static void only_the_same_bytes_are_equal(void **state)
{
    (void)state;
    struct secret_hash hash = make("correct horse");
    assert_int_equal(secret_hash_check(&hash, "correct horse", 13), SECRET_EQUAL);
    assert_int_equal(secret_hash_check(&hash, "correct hors", 12), SECRET_DIFFERENT);
    assert_int_equal(secret_hash_check(&hash, "correct horse\0", 14), SECRET_DIFFERENT);
    assert_int_equal(secret_hash_check(&hash, "", 0), SECRET_DIFFERENT);
}

static void default_hash_is_what_libsodium_verifies(void **state)
{
    (void)state;
    char text[SECRET_TEXT_BYTES];
    assert_int_equal(secret_hash_make(text, "pw", 2, SECRET_MEMORY_KIB, SECRET_PASSES), 0);
    assert_non_null(strstr(text, "$argon2id$v=19$m=19456,t=2,p=1$"));
    assert_int_equal(crypto_pwhash_str_verify(text, "pw", 2), 0);
    struct secret_hash hash;
    char err[256];
    assert_int_equal(secret_hash_parse(&hash, text, strlen(text), LIMIT_BYTES, err, sizeof err), 0);
    assert_int_equal(secret_hash_check(&hash, "pw", 2), SECRET_EQUAL);
}

static void two_hashes_of_one_password_differ(void **state)
{
    (void)state;
    struct secret_hash a = make("pw"), b = make("pw");
    assert_memory_not_equal(a.salt, b.salt, sizeof a.salt);
    assert_memory_not_equal(a.tag, b.tag, sizeof a.tag);
}

static void text_that_is_no_hash_is_refused(void **state)
{
    (void)state;
    static const char *const texts[] = {
        "",
        "secret",
        "$argon2id$",
        "$argon2i$v=19$m=8,t=1,p=1$" SALT "$" TAG,
        "$argon2id$v=16$m=8,t=1,p=1$" SALT "$" TAG,
        "$argon2id$v=19$m=8,t=1,p=2$" SALT "$" TAG,
        "$argon2id$v=19$m=08,t=1,p=1$" SALT "$" TAG,
        "$argon2id$v=19$m=8,t=0,p=1$" SALT "$" TAG,
        "$argon2id$v=19$m=8,t=,p=1$" SALT "$" TAG,
        "$argon2id$v=19$m=-8,t=1,p=1$" SALT "$" TAG,
        "$argon2id$v=19$m=4294967304,t=1,p=1$" SALT "$" TAG,
        "$argon2id$v=19$m=99999999999999999999999999,t=1,p=1$" SALT "$" TAG,
        "$argon2id$v=19$m=8,t=1,p=1$" SALT "A$" TAG,
        "$argon2id$v=19$m=8,t=1,p=1$" SALT "$" TAG "A",
        "$argon2id$v=19$m=8,t=1,p=1$" SALT "$" TAG " ",
        "$argon2id$v=19$m=8,t=1,p=1$" SALT "$AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh9",
        "$argon2id$v=19$m=8,t=1,p=1$AAECAwQFBgcICQoLDA0OD!$" TAG,
    };
    for (size_t i = 0; i < sizeof texts / sizeof *texts; i++) {
        struct secret_hash hash;
        char err[256] = "";
        assert_int_equal(secret_hash_parse(&hash, texts[i], strlen(texts[i]), LIMIT_BYTES, err, sizeof err),
                         -1);
        assert_non_null(strstr(err, "not an Argon2id hash"));
    }
}

static void assert_cost_refused(const char *costs, size_t limit_bytes, const char *reason)
{
    char text[256], err[256] = "";
    struct secret_hash hash;
    snprintf(text, sizeof text, "$argon2id$v=19$%s,p=1$" SALT "$" TAG, costs);
    assert_int_equal(secret_hash_parse(&hash, text, strlen(text), limit_bytes, err, sizeof err), -1);
    assert_non_null(strstr(err, reason));
}

static void costs_beyond_the_caps_are_refused(void **state)
{
    (void)state;
    assert_cost_refused("m=7,t=1", LIMIT_BYTES, "below the least");
    assert_cost_refused("m=65537,t=1", LIMIT_BYTES, "above auth_memory");
    assert_cost_refused("m=65536,t=5", LIMIT_BYTES, "work");
    assert_cost_refused("m=8,t=4294967295", LIMIT_BYTES, "work");
    char text[256], err[256];
    struct secret_hash hash;
    snprintf(text, sizeof text, "$argon2id$v=19$m=65536,t=4,p=1$" SALT "$" TAG);
    assert_int_equal(secret_hash_parse(&hash, text, strlen(text), LIMIT_BYTES, err, sizeof err), 0);
}

static void dummy_costs_the_same_and_matches_nothing(void **state)
{
    (void)state;
    struct secret_hash model = make("pw"), dummy;
    secret_hash_dummy(&dummy, &model);
    assert_int_equal(dummy.memory_kib, model.memory_kib);
    assert_int_equal(dummy.passes, model.passes);
    assert_int_equal(secret_hash_check(&dummy, "pw", 2), SECRET_DIFFERENT);
}

static void short_memory_is_not_a_wrong_password(void **state)
{
    (void)state;
#if defined(__SANITIZE_ADDRESS__)
    skip(); /* the sanitizer needs the address space */
#else
    struct secret_hash hash = make("pw");
    hash.memory_kib = 1024 * 1024;
    pid_t child = fork();
    if (child == 0) {
        struct rlimit limit = {.rlim_cur = 256 * 1024 * 1024, .rlim_max = 256 * 1024 * 1024};
        setrlimit(RLIMIT_AS, &limit);
        _exit(secret_hash_check(&hash, "pw", 2) == SECRET_NO_MEMORY ? 0 : 1);
    }
    int status;
    assert_int_equal(waitpid(child, &status, 0), child);
    assert_true(WIFEXITED(status) && WEXITSTATUS(status) == 0);
#endif
}

struct scratch {
    char directory[64];
    char path[128];
};

static void write_file(const char *path, const void *data, size_t size, mode_t mode)
{
    unlink(path);
    int fd = open(path, O_WRONLY | O_CREAT | O_EXCL, 0600);
    assert_true(fd >= 0);
    assert_int_equal(write(fd, data, size), size);
    assert_int_equal(fchmod(fd, mode), 0);
    close(fd);
}

static int scratch_make(void **state)
{
    struct scratch *scratch = calloc(1, sizeof *scratch);
    strcpy(scratch->directory, "/tmp/proxyd-secret-XXXXXX");
    if (!scratch || !mkdtemp(scratch->directory))
        return -1;
    snprintf(scratch->path, sizeof scratch->path, "%s/pw", scratch->directory);
    *state = scratch;
    return 0;
}

static int scratch_remove(void **state)
{
    struct scratch *scratch = *state;
    unlink(scratch->path);
    rmdir(scratch->directory);
    free(scratch);
    return 0;
}

static void password_file_loses_one_newline(void **state)
{
    struct scratch *scratch = *state;
    char err[256];
    size_t size;
    write_file(scratch->path, "two words\n\n", 11, 0640);
    char *password = secret_read_password(scratch->path, &size, err, sizeof err);
    assert_non_null(password);
    assert_int_equal(size, 10);
    assert_string_equal(password, "two words\n");
    secret_free(password, size);
}

static void assert_password_refused(const struct scratch *scratch, const char *reason)
{
    char err[256] = "";
    size_t size;
    assert_null(secret_read_password(scratch->path, &size, err, sizeof err));
    assert_non_null(strstr(err, scratch->path));
    assert_non_null(strstr(err, reason));
}

static void password_file_that_cannot_be_right_is_refused(void **state)
{
    struct scratch *scratch = *state;
    char long_password[300];
    memset(long_password, 'x', sizeof long_password);
    write_file(scratch->path, "pw\n", 3, 0604);
    assert_password_refused(scratch, "mode 0604");
    write_file(scratch->path, "\n", 1, 0600);
    assert_password_refused(scratch, "empty");
    write_file(scratch->path, "a\0b", 3, 0600);
    assert_password_refused(scratch, "NUL");
    write_file(scratch->path, long_password, sizeof long_password, 0600);
    assert_password_refused(scratch, "255");
    unlink(scratch->path);
    assert_password_refused(scratch, "No such file");
    assert_int_equal(symlink("/dev/null", scratch->path), 0);
    assert_password_refused(scratch, "symbolic link");
    unlink(scratch->path);
    assert_int_equal(mkfifo(scratch->path, 0600), 0);
    assert_password_refused(scratch, "regular file");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(only_the_same_bytes_are_equal),
        cmocka_unit_test(default_hash_is_what_libsodium_verifies),
        cmocka_unit_test(two_hashes_of_one_password_differ),
        cmocka_unit_test(text_that_is_no_hash_is_refused),
        cmocka_unit_test(costs_beyond_the_caps_are_refused),
        cmocka_unit_test(dummy_costs_the_same_and_matches_nothing),
        cmocka_unit_test(short_memory_is_not_a_wrong_password),
        cmocka_unit_test_setup_teardown(password_file_loses_one_newline, scratch_make, scratch_remove),
        cmocka_unit_test_setup_teardown(password_file_that_cannot_be_right_is_refused, scratch_make,
                                        scratch_remove),
    };
    return cmocka_run_group_tests_name("secret", tests, NULL, NULL);
}
