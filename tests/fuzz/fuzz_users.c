/* links: auth/users.c auth/digest.c auth/secret.c */
/* SPDX-License-Identifier: MIT
 *
 * Any bytes as a users file and as a keys file: no crash, and what was accepted can be found again.
 */
#include "auth/users.h"
#include "tests/fuzz/fuzz.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static void count_problem(void *context, const char *text)
{
    FUZZ_CHECK(strncmp(text, "users:", 6) == 0);
    ++*(unsigned *)context;
}

static void check_user(const struct users *users, const struct user *user)
{
    char id[USERS_ID_BYTES], *everybody[] = {"*"};
    FUZZ_CHECK(users_name_is_valid(user->name, user->name_size));
    FUZZ_CHECK(strlen(user->name) == user->name_size);
    FUZZ_CHECK(users_find(users, user->name, user->name_size) == user);
    users_write_id(user, id);
    bool is_granted = users_grants(user, "calls", everybody, 1);
    FUZZ_CHECK(users_decide(users, id, "calls", everybody, 1) == (is_granted ? user->name : NULL));
    FUZZ_CHECK(is_granted || user->chains);
}

static void parse(const uint8_t *data, size_t size, enum users_kind kind)
{
    unsigned problem_count = 0;
    struct users *users =
        users_parse("users", (const char *)data, size, kind, 64 * 1024 * 1024, count_problem, &problem_count);
    FUZZ_CHECK((users == NULL) == (problem_count > 0));
    for (size_t i = 0; users && i < users_count(users); i++) {
        const struct user *user = users_any(users, i);
        check_user(users, user);
        FUZZ_CHECK(kind != USERS_KEYS || users_find_key(users, user->key) == user);
    }
    users_free(users);
}

FUZZ_TARGET(fuzz_users)
{
    parse(data, size, USERS_PASSWORDS);
    parse(data, size, USERS_KEYS);
    return 0;
}
