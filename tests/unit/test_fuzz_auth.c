/* links: tests/fuzz/replay.c tests/fuzz/fuzz_users.c tests/fuzz/fuzz_zap_frames.c */
/* links: auth/users.c auth/digest.c auth/secret.c auth/zap_frames.c auth/address.c */
/* SPDX-License-Identifier: MIT
 *
 * The kept corpora of the fuzz targets of auth/, replayed.
 */
#include "tests/fuzz/fuzz.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>

fuzz_fn fuzz_users, fuzz_zap_frames;

static void users_corpus_holds(void **state)
{
    (void)state;
    assert_in_range(fuzz_replay(fuzz_users, "tests/fuzz/corpus/users"), 10, 10000);
}

static void zap_frames_corpus_holds(void **state)
{
    (void)state;
    assert_in_range(fuzz_replay(fuzz_zap_frames, "tests/fuzz/corpus/zap_frames"), 10, 10000);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(users_corpus_holds),
        cmocka_unit_test(zap_frames_corpus_holds),
    };
    return cmocka_run_group_tests_name("fuzz_auth", tests, NULL, NULL);
}
