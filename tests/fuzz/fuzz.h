/* SPDX-License-Identifier: MIT
 *
 * What reads bytes that we did not write has a fuzz target: one file `fuzz_NAME.c` with
 * `FUZZ_TARGET(fuzz_NAME)` and a kept corpus in corpus/NAME. `tests/fuzz/run NAME` lets libFuzzer loose on
 * it; a unit test replays the corpus through the same function.
 */
#ifndef PROXYD_TESTS_FUZZ_H
#define PROXYD_TESTS_FUZZ_H

#include <stddef.h>
#include <stdint.h>

typedef int fuzz_fn(const uint8_t *data, size_t size);

#ifdef WITH_LIBFUZZER
fuzz_fn LLVMFuzzerTestOneInput;
#define FUZZ_TARGET(name) int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
#else
#define FUZZ_TARGET(name)                                                                                    \
    fuzz_fn name;                                                                                            \
    int name(const uint8_t *data, size_t size)
#endif

/* A property that must hold for every input; violated, it ends the process in either build. */
#define FUZZ_CHECK(claim) ((claim) ? (void)0 : fuzz_failed(#claim, __FILE__, __LINE__))
#define fuzz_failed(claim, file, line)                                                                       \
    (fprintf(stderr, "%s:%d: violated: %s\n", (file), (line), (claim)), abort())

/* Runs a target over every file of a directory, each in a heap block of its exact size. Returns how many
 * there were. */
unsigned fuzz_replay(fuzz_fn *target, const char *directory);

#endif
