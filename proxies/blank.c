/* SPDX-License-Identifier: MIT
 *
 * Blank memory for libzmq's objects. Its answer to a PING that is shorter than the protocol says repeats up to 16 bytes
 * that the connection's decoder has never written: without this, of an object that was there before, such as the
 * decoder that read another peer's name and password. An executable's symbols are found before those of any library.
 */
#include <stdlib.h>

#if __SIZEOF_SIZE_T__ == 8
#define NEW_NOTHROW "_ZnwmRKSt9nothrow_t"
#else
#define NEW_NOTHROW "_ZnwjRKSt9nothrow_t"
#endif

#ifndef __SANITIZE_ADDRESS__ /* which fills new memory itself, and wants it freed as it was got */

/* C++'s operator new(size, std::nothrow), by which libzmq makes whatever belongs to one connection. */
void *blank_new(size_t size, const void *nothrow) __asm__(NEW_NOTHROW);

void *blank_new(size_t size, const void *nothrow)
{
    (void)nothrow;
    return calloc(1, size > 0 ? size : 1);
}

#endif
