/* links: auth/keygen.c */
/* SPDX-License-Identifier: MIT
 *
 * CURVE pairs that belong together, and a secret file that is never overwritten.
 */
#include "auth/keygen.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cmocka.h>

static void public_key_follows_from_the_secret_one(void **state)
{
    (void)state;
    struct keygen_pair pair;
    char public_key[KEYGEN_TEXT_BYTES];
    assert_int_equal(keygen_make(&pair), 0);
    assert_int_equal(keygen_public(public_key, pair.secret_key), 0);
    assert_string_equal(public_key, pair.public_key);
    assert_int_equal(keygen_public(public_key, "too short"), -1);
    assert_int_equal(keygen_public(public_key, "~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~"), -1);
}

static void secret_is_saved_once_and_for_its_owner(void **state)
{
    (void)state;
    char directory[] = "/tmp/proxyd-keygen-XXXXXX", path[64], err[160], line[64] = "";
    assert_non_null(mkdtemp(directory));
    snprintf(path, sizeof path, "%s/key", directory);
    struct keygen_pair first, second;
    assert_int_equal(keygen_make(&first), 0);
    assert_int_equal(keygen_make(&second), 0);
    assert_int_equal(keygen_save_secret(path, &first, err, sizeof err), 0);
    assert_int_equal(keygen_save_secret(path, &second, err, sizeof err), -1);
    assert_non_null(strstr(err, path));
    struct stat status;
    assert_int_equal(stat(path, &status), 0);
    assert_int_equal(status.st_mode & 07777, 0600);
    FILE *file = fopen(path, "r");
    assert_non_null(fgets(line, sizeof line, file));
    fclose(file);
    assert_memory_equal(line, first.secret_key, strlen(first.secret_key));
    assert_string_equal(line + strlen(first.secret_key), "\n");
    unlink(path);
    rmdir(directory);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(public_key_follows_from_the_secret_one),
        cmocka_unit_test(secret_is_saved_once_and_for_its_owner),
    };
    return cmocka_run_group_tests_name("keygen", tests, NULL, NULL);
}
