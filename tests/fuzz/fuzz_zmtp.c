/* links: proxies/zmtp.c */
/* SPDX-License-Identifier: MIT
 *
 * Any bytes as a peer's stream: however they are cut, the verdict and what is counted are the same, and the
 * counts keep their limits. The first byte says where to cut.
 */
#include "proxies/zmtp.h"
#include "tests/fuzz/fuzz.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static const struct zmtp_limits limits = {.max_bytes = 300, .max_frames = 5};

static enum zmtp_verdict read_in_pieces(struct zmtp *stream, const uint8_t *data, size_t size, size_t piece)
{
    enum zmtp_verdict verdict = ZMTP_FINE;
    for (size_t at = 0; at < size && verdict == ZMTP_FINE; at += piece)
        verdict = zmtp_read(stream, &limits, data + at, piece < size - at ? piece : size - at);
    return verdict;
}

FUZZ_TARGET(fuzz_zmtp)
{
    if (size < 1)
        return 0;
    struct zmtp_claim whole_claim = {0}, cut_claim = {0};
    struct zmtp whole, cut;
    memset(&whole, 0, sizeof whole);
    memset(&cut, 0, sizeof cut);
    whole.claim = &whole_claim;
    cut.claim = &cut_claim;
    enum zmtp_verdict verdict = zmtp_read(&whole, &limits, data + 1, size - 1);
    FUZZ_CHECK(read_in_pieces(&cut, data + 1, size - 1, data[0] + 1U) == verdict);
    if (verdict != ZMTP_FINE)
        return 0;
    FUZZ_CHECK(whole.left == cut.left && whole.bytes == cut.bytes && whole.frames == cut.frames);
    FUZZ_CHECK(whole.has_finished_handshake == cut.has_finished_handshake);
    FUZZ_CHECK(memcmp(&whole_claim, &cut_claim, sizeof whole_claim) == 0);
    FUZZ_CHECK(whole.bytes <= limits.max_bytes && whole.frames <= limits.max_frames);
    return 0;
}
