/* SPDX-License-Identifier: MIT
 *
 * dlopen with an error that helps; see library.h. Never closes one: a library may leave threads and handlers behind.
 */
#include "proxies/library.h"

#include <assert.h>
#include <dlfcn.h>
#include <stdio.h>
#include <string.h>

int library_open(const struct library *library, void *table, size_t table_bytes, char *err, size_t err_size)
{
    void *handle = dlopen(library->soname, RTLD_NOW | RTLD_LOCAL);
    if (!handle) {
        snprintf(err, err_size, "cannot load %s (Debian package %s): %s", library->soname, library->package,
                 dlerror());
        return -1;
    }
    size_t count = 0;
    for (; library->names[count]; count++) {
        void *function = dlsym(handle, library->names[count]);
        if (!function) {
            snprintf(err, err_size, "%s (Debian package %s) has no %s", library->soname, library->package,
                     library->names[count]);
            return -1;
        }
        memcpy((char *)table + count * sizeof function, &function, sizeof function);
    }
    assert(count * sizeof(void *) == table_bytes);
    return 0;
}
