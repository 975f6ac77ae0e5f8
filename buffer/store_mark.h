/* SPDX-License-Identifier: MIT
 *
 * The mark: a small file beside a database, rewritten after each commit and never synced while in use. It
 * says how far the write-ahead log reached and what each chain held, so that a log which SQLite would take
 * for a shorter one (one flipped bit ends it silently) is found out, and mended where its frames are still
 * there. After a power cut the mark may be old: then it claims nothing.
 *
 *   +--------------------------+----------+----------+---
 *   | struct mark_head, padded | chain 1  | chain 2  | …      each part with its own CRC
 *   +--------------------------+----------+----------+---
 */
#ifndef PROXYD_BUFFER_STORE_MARK_H
#define PROXYD_BUFFER_STORE_MARK_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* As on disk, in the machine's byte order; the mark does not travel. */
struct mark_head {
    uint32_t magic;
    uint32_t crc; /* of what follows */
    uint64_t commit;
    uint32_t salt[2]; /* of the log */
    uint32_t frames;  /* which that commit left in it; 0: nothing is in the log alone */
    uint32_t synced;  /* of them, on the medium */
    uint32_t is_clean;
    uint32_t version; /* of the schema */
    int64_t store_ms; /* the store's clock, and the machine's at that moment */
    int64_t boot_ms;
    int64_t wall_ms;
    char boot_id[39];
    bool is_doubtful; /* a write or sync failed: the log has to be copied before it is relied on */
};
_Static_assert(sizeof(bool) == 1, "a mark keeps its size");

struct mark_chain {
    uint32_t crc; /* of what follows */
    uint32_t number;
    uint64_t commit; /* of the head that this belongs to */
    uint64_t live;
    uint64_t dead;
    uint64_t next_number; /* of the next message */
    uint32_t is_sending;
    uint32_t unused;
    char name[72];
};

enum { MARK_HEAD_BYTES = 256 };

/* Reads the head. False when there is none or it is damaged. */
bool mark_read_head(int fd, struct mark_head *head);
/* Reads the record of chain `number` (from 1). False when there is none or it is damaged. */
bool mark_read_chain(int fd, uint32_t number, struct mark_chain *chain);
/* Both fill in magic and CRC. Errors are ignored: the mark is only ever a witness. */
void mark_write_head(int fd, struct mark_head *head);
void mark_write_chain(int fd, struct mark_chain *chain);

/* What a log holds. */
struct mark_log {
    bool has_header; /* a sound one: otherwise SQLite will not look at the rest */
    uint32_t salt[2];
    uint32_t frames;       /* that SQLite will accept, up to the last commit */
    uint32_t frames_there; /* whole ones in the file, of any content */
};

/* Looks through the log at `path`; false when it is not there or cannot be read. */
bool mark_inspect_log(const char *path, struct mark_log *log);

/* Whether the first `frames` frames of the log bear this salt, but for one at most. */
bool mark_is_log(const char *path, const uint32_t salt[2], uint32_t frames);

/* Makes the first `frames` frames of the log acceptable again by new checksums, whatever became of their
 * content: rows have their own. False when that was not possible. */
bool mark_mend_log(const char *path, const uint32_t salt[2], uint32_t frames);

#endif
