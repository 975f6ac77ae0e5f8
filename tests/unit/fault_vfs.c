/* SPDX-License-Identifier: MIT
 *
 * The shim. Every file is a fault_file with the real one behind it.
 */
#include "tests/unit/fault_vfs.h"

#include <sqlite3.h>
#include <stdatomic.h>
#include <string.h>
#include <time.h>

static sqlite3_vfs *real;
static sqlite3_vfs shim;
static atomic_uint_fast64_t count, at, hits;
static atomic_int kind;
static atomic_bool is_for_good;
static atomic_uint sync_delay_ms;

struct fault_file {
    sqlite3_file base;
    sqlite3_file *real; /* lies behind */
};

static sqlite3_file *behind(sqlite3_file *file)
{
    return ((struct fault_file *)file)->real;
}

/* What this operation must come to. */
static enum fault_kind next(bool is_write)
{
    uint64_t mine = atomic_fetch_add(&count, 1) + 1;
    enum fault_kind now = (enum fault_kind)atomic_load(&kind);
    if (now == FAULT_NONE || mine < atomic_load(&at) ||
        (mine > atomic_load(&at) && !atomic_load(&is_for_good)))
        return FAULT_NONE;
    if (now == FAULT_FULL && !is_write)
        return FAULT_NONE;
    atomic_fetch_add(&hits, 1);
    return now;
}

static int shim_close(sqlite3_file *file)
{
    return behind(file)->pMethods ? behind(file)->pMethods->xClose(behind(file)) : SQLITE_OK;
}

static int shim_read(sqlite3_file *file, void *data, int size, sqlite3_int64 offset)
{
    return behind(file)->pMethods->xRead(behind(file), data, size, offset);
}

static int shim_write(sqlite3_file *file, const void *data, int size, sqlite3_int64 offset)
{
    enum fault_kind fault = next(true);
    if (fault == FAULT_FULL)
        return SQLITE_FULL;
    if (fault == FAULT_IO)
        return SQLITE_IOERR_WRITE;
    int code = behind(file)->pMethods->xWrite(behind(file), data, size, offset);
    return fault == FAULT_LATE ? SQLITE_IOERR_WRITE : code;
}

static int shim_truncate(sqlite3_file *file, sqlite3_int64 size)
{
    enum fault_kind fault = next(false);
    if (fault == FAULT_IO)
        return SQLITE_IOERR_TRUNCATE;
    int code = behind(file)->pMethods->xTruncate(behind(file), size);
    return fault == FAULT_LATE ? SQLITE_IOERR_TRUNCATE : code;
}

static int shim_sync(sqlite3_file *file, int flags)
{
    enum fault_kind fault = next(false);
    unsigned delay_ms = atomic_load(&sync_delay_ms);
    if (delay_ms > 0)
        nanosleep(&(struct timespec){.tv_sec = delay_ms / 1000, .tv_nsec = (long)(delay_ms % 1000) * 1000000},
                  NULL);
    if (fault == FAULT_IO)
        return SQLITE_IOERR_FSYNC;
    int code = behind(file)->pMethods->xSync(behind(file), flags);
    return fault == FAULT_LATE ? SQLITE_IOERR_FSYNC : code;
}

static int shim_size(sqlite3_file *file, sqlite3_int64 *size)
{
    return behind(file)->pMethods->xFileSize(behind(file), size);
}

static int shim_lock(sqlite3_file *file, int level)
{
    return behind(file)->pMethods->xLock(behind(file), level);
}

static int shim_unlock(sqlite3_file *file, int level)
{
    return behind(file)->pMethods->xUnlock(behind(file), level);
}

static int shim_check_lock(sqlite3_file *file, int *result)
{
    return behind(file)->pMethods->xCheckReservedLock(behind(file), result);
}

static int shim_control(sqlite3_file *file, int what, void *argument)
{
    return behind(file)->pMethods->xFileControl(behind(file), what, argument);
}

static int shim_sector(sqlite3_file *file)
{
    return behind(file)->pMethods->xSectorSize(behind(file));
}

static int shim_device(sqlite3_file *file)
{
    return behind(file)->pMethods->xDeviceCharacteristics(behind(file));
}

/* Version 1 methods have no shared memory: a store that did not lock exclusively could not open its log. */
static const sqlite3_io_methods methods = {
    .iVersion = 1,
    .xClose = shim_close,
    .xRead = shim_read,
    .xWrite = shim_write,
    .xTruncate = shim_truncate,
    .xSync = shim_sync,
    .xFileSize = shim_size,
    .xLock = shim_lock,
    .xUnlock = shim_unlock,
    .xCheckReservedLock = shim_check_lock,
    .xFileControl = shim_control,
    .xSectorSize = shim_sector,
    .xDeviceCharacteristics = shim_device,
};

static int shim_open(sqlite3_vfs *vfs, const char *name, sqlite3_file *file, int flags, int *out_flags)
{
    (void)vfs;
    struct fault_file *mine = (struct fault_file *)file;
    memset(mine, 0, (size_t)shim.szOsFile);
    mine->real = (sqlite3_file *)(mine + 1);
    enum fault_kind fault = next(false);
    if (fault == FAULT_IO || fault == FAULT_LATE)
        return SQLITE_CANTOPEN;
    int code = real->xOpen(real, name, mine->real, flags, out_flags);
    mine->base.pMethods = mine->real->pMethods ? &methods : NULL;
    return code;
}

static int shim_delete(sqlite3_vfs *vfs, const char *name, int sync_directory)
{
    (void)vfs;
    return next(false) == FAULT_IO ? SQLITE_IOERR_DELETE : real->xDelete(real, name, sync_directory);
}

void fault_install(void)
{
    real = sqlite3_vfs_find(NULL);
    shim = *real;
    shim.zName = "fault";
    shim.szOsFile = (int)sizeof(struct fault_file) + real->szOsFile;
    shim.xOpen = shim_open;
    shim.xDelete = shim_delete;
    sqlite3_vfs_register(&shim, 1);
}

void fault_arm(enum fault_kind new_kind, uint64_t new_at, bool new_for_good)
{
    atomic_store(&kind, FAULT_NONE);
    atomic_store(&count, 0);
    atomic_store(&hits, 0);
    atomic_store(&at, new_at);
    atomic_store(&is_for_good, new_for_good);
    atomic_store(&kind, (int)new_kind);
}

void fault_disarm(void)
{
    atomic_store(&kind, FAULT_NONE);
}

uint64_t fault_count(void)
{
    return atomic_load(&count);
}

uint64_t fault_hits(void)
{
    return atomic_load(&hits);
}

void fault_delay_syncs(unsigned ms)
{
    atomic_store(&sync_delay_ms, ms);
}
