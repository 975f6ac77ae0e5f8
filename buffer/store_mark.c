/* SPDX-License-Identifier: MIT
 *
 * The mark and the write-ahead log as bytes. Knows the format of SQLite's log (sqlite.org/fileformat.html,
 * "WAL file format") and nothing else of SQLite. Never called while the database is open, but for the mark.
 */
#include "buffer/store_mark.h"

#include "buffer/crc32c.h"

#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

enum {
    LOG_HEADER = 32,
    FRAME_HEADER = 24,
    PAGE = 4096,
    FRAME = FRAME_HEADER + PAGE,
    LOG_VERSION = 3007000,
    MEND_SEARCHES = 16, /* about 50 ms each */
};
static const uint32_t mark_magic = 0x50584d31; /* PXM1 */
static const uint32_t log_magic = 0x377f0682;  /* the lowest bit: checksums by big-endian words */

static bool read_at(int fd, void *data, size_t size, off_t at)
{
    return pread(fd, data, size, at) == (ssize_t)size;
}

/* ---- the mark ---- */

static uint32_t crc_behind(const void *record, size_t size, const uint32_t *crc)
{
    const char *from = (const char *)(crc + 1);
    return crc32c(0, from, size - (size_t)(from - (const char *)record));
}

bool mark_read_head(int fd, struct mark_head *head)
{
    return read_at(fd, head, sizeof *head, 0) && head->magic == mark_magic &&
           head->crc == crc_behind(head, sizeof *head, &head->crc);
}

void mark_write_head(int fd, struct mark_head *head)
{
    head->magic = mark_magic;
    head->crc = crc_behind(head, sizeof *head, &head->crc);
    ssize_t ignored = pwrite(fd, head, sizeof *head, 0);
    (void)ignored;
}

static off_t chain_at(uint32_t number)
{
    return MARK_HEAD_BYTES + (off_t)(number - 1) * (off_t)sizeof(struct mark_chain);
}

bool mark_read_chain(int fd, uint32_t number, struct mark_chain *chain)
{
    return read_at(fd, chain, sizeof *chain, chain_at(number)) && chain->number == number &&
           chain->crc == crc_behind(chain, sizeof *chain, &chain->crc) &&
           memchr(chain->name, 0, sizeof chain->name);
}

void mark_write_chain(int fd, struct mark_chain *chain)
{
    chain->crc = crc_behind(chain, sizeof *chain, &chain->crc);
    ssize_t ignored = pwrite(fd, chain, sizeof *chain, chain_at(chain->number));
    (void)ignored;
}

/* ---- the log ---- */

static uint32_t big(const unsigned char *at)
{
    return (uint32_t)at[0] << 24 | (uint32_t)at[1] << 16 | (uint32_t)at[2] << 8 | at[3];
}

static void put_big(unsigned char *at, uint32_t value)
{
    for (int byte = 0; byte < 4; byte++)
        at[byte] = (unsigned char)(value >> (24 - 8 * byte));
}

struct sum {
    uint32_t a, b;
    bool is_big;
};

static void sum_add(struct sum *sum, const unsigned char *data, size_t size)
{
    for (size_t i = 0; i < size; i += 8) {
        uint32_t words[2];
        memcpy(words, data + i, sizeof words);
        if (sum->is_big) {
            words[0] = big(data + i);
            words[1] = big(data + i + 4);
        } else if (__BYTE_ORDER__ == __ORDER_BIG_ENDIAN__) {
            words[0] = __builtin_bswap32(words[0]);
            words[1] = __builtin_bswap32(words[1]);
        }
        sum->a += words[0] + sum->b;
        sum->b += words[1] + sum->a;
    }
}

static uint32_t whole_frames(int fd)
{
    struct stat about;
    if (fstat(fd, &about) != 0 || about.st_size < LOG_HEADER)
        return 0;
    return (uint32_t)((about.st_size - LOG_HEADER) / FRAME);
}

static bool inspect(int fd, struct mark_log *log, unsigned char *frame)
{
    unsigned char header[LOG_HEADER];
    log->frames_there = whole_frames(fd);
    if (!read_at(fd, header, sizeof header, 0))
        return true;
    struct sum sum = {.is_big = big(header) & 1};
    sum_add(&sum, header, 24);
    if ((big(header) & ~1u) != log_magic || big(header + 4) != LOG_VERSION || big(header + 8) != PAGE ||
        big(header + 24) != sum.a || big(header + 28) != sum.b)
        return true;
    log->has_header = true;
    log->salt[0] = big(header + 16);
    log->salt[1] = big(header + 20);
    for (uint32_t i = 0; i < log->frames_there; i++) {
        if (!read_at(fd, frame, FRAME, LOG_HEADER + (off_t)i * FRAME))
            return false;
        sum_add(&sum, frame, 8);
        sum_add(&sum, frame + FRAME_HEADER, PAGE);
        if (big(frame) == 0 || big(frame + 8) != log->salt[0] || big(frame + 12) != log->salt[1] ||
            big(frame + 16) != sum.a || big(frame + 20) != sum.b)
            break;
        if (big(frame + 4) != 0)
            log->frames = i + 1;
    }
    return true;
}

bool mark_inspect_log(const char *path, struct mark_log *log)
{
    *log = (struct mark_log){0};
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    if (fd < 0)
        return false;
    unsigned char *frame = malloc(FRAME);
    bool is_read = frame && inspect(fd, log, frame);
    free(frame);
    close(fd);
    return is_read;
}

static struct sum sum_frame(struct sum sum, const unsigned char *frame)
{
    sum_add(&sum, frame, 8);
    sum_add(&sum, frame + FRAME_HEADER, PAGE);
    return sum;
}

static bool has_sum(const unsigned char *frame, struct sum sum)
{
    return big(frame + 16) == sum.a && big(frame + 20) == sum.b;
}

/* Turns the one bit back whose flipping explains the checksum. It is a weak one: where several would do, none is
 * touched, and the rows' own checksums find the wrong one. */
static void mend_bit(unsigned char *frame, struct sum before)
{
    int found = 0, found_at = 0, found_bit = 0;
    for (int at = 0; at < FRAME; at = at == 7 ? FRAME_HEADER : at + 1)
        for (int bit = 0; bit < 8; bit++) {
            frame[at] ^= (unsigned char)(1 << bit);
            if (has_sum(frame, sum_frame(before, frame))) {
                found++;
                found_at = at;
                found_bit = bit;
            }
            frame[at] ^= (unsigned char)(1 << bit);
        }
    if (found == 1)
        frame[found_at] ^= (unsigned char)(1 << found_bit);
}

static struct sum sum_of_header(unsigned char header[LOG_HEADER], const uint32_t salt[2])
{
    bool is_big = __BYTE_ORDER__ == __ORDER_BIG_ENDIAN__;
    put_big(header, log_magic | is_big);
    put_big(header + 4, LOG_VERSION);
    put_big(header + 8, PAGE);
    put_big(header + 16, salt[0]);
    put_big(header + 20, salt[1]);
    struct sum sum = {.is_big = is_big};
    sum_add(&sum, header, 24);
    return sum;
}

/* Two chains of checksums: the one that was written, to find what is wrong, and the one that is made. A frame
 * whose page makes no sense becomes a copy of its neighbour, which is harmless; leaving it out would not be. */
static bool mend(int fd, const uint32_t salt[2], uint32_t frames, unsigned char *frame)
{
    unsigned char header[LOG_HEADER], *neighbour = frame + FRAME;
    if (whole_frames(fd) < frames || !read_at(fd, header, sizeof header, 0) ||
        !read_at(fd, neighbour, FRAME, LOG_HEADER + (frames > 1 ? (off_t)FRAME : 0)))
        return false;
    struct sum stored = {.a = big(header + 24), .b = big(header + 28)};
    struct sum made = sum_of_header(header, salt);
    stored.is_big = made.is_big;
    put_big(header + 24, made.a);
    put_big(header + 28, made.b);
    if (pwrite(fd, header, sizeof header, 0) != (ssize_t)sizeof header)
        return false;
    uint32_t largest_page = 0, searches = 0;
    for (uint32_t i = 0; i < frames; i++) {
        off_t at = LOG_HEADER + (off_t)i * FRAME;
        if (!read_at(fd, frame, FRAME, at))
            return false;
        if (i == 0 && has_sum(frame, sum_frame(made, frame)))
            stored = made; /* the flipped bit was in the header */
        if (!has_sum(frame, sum_frame(stored, frame)) && searches++ < MEND_SEARCHES)
            mend_bit(frame, stored);
        stored.a = big(frame + 16);
        stored.b = big(frame + 20);
        uint32_t page = big(frame), size = big(frame + 4);
        bool is_plausible = page > 0 && (page >> 28) == 0 && (size >> 28) == 0;
        if (!is_plausible)
            memcpy(frame, neighbour, FRAME);
        size = big(frame + 4);
        largest_page = size > 0 ? size : big(frame) > largest_page ? big(frame) : largest_page;
        if (i + 1 == frames && size == 0)
            put_big(frame + 4, largest_page); /* the mark says that a commit ended here */
        put_big(frame + 8, salt[0]);
        put_big(frame + 12, salt[1]);
        made = sum_frame(made, frame);
        put_big(frame + 16, made.a);
        put_big(frame + 20, made.b);
        if (pwrite(fd, frame, FRAME, at) != FRAME)
            return false;
        memcpy(neighbour, frame, FRAME);
    }
    return ftruncate(fd, LOG_HEADER + (off_t)frames * FRAME) == 0 && fsync(fd) == 0;
}

bool mark_is_log(const char *path, const uint32_t salt[2], uint32_t frames)
{
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    if (fd < 0)
        return false;
    uint32_t others = whole_frames(fd) < frames ? 2 : 0;
    for (uint32_t i = 0; i < frames && others < 2; i++) {
        unsigned char header[FRAME_HEADER];
        others += !read_at(fd, header, sizeof header, LOG_HEADER + (off_t)i * FRAME) ||
                  big(header + 8) != salt[0] || big(header + 12) != salt[1];
    }
    close(fd);
    return others < 2;
}

bool mark_mend_log(const char *path, const uint32_t salt[2], uint32_t frames)
{
    int fd = open(path, O_RDWR | O_CLOEXEC);
    if (fd < 0)
        return false;
    unsigned char *pages = malloc(2 * FRAME);
    bool is_mended = pages && mend(fd, salt, frames, pages);
    free(pages);
    close(fd);
    return is_mended;
}
