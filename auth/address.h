/* SPDX-License-Identifier: MIT
 *
 * Where a peer comes from, as libzmq tells it: an IPv4 or IPv6 address, or the user id behind an ipc socket;
 * and address ranges in CIDR form. Pure. IPv4 inside IPv6 (::ffff:10.0.0.1) is IPv4 here, always.
 */
#ifndef PROXYD_AUTH_ADDRESS_H
#define PROXYD_AUTH_ADDRESS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum address_family { ADDRESS_NONE, ADDRESS_IPV4, ADDRESS_IPV6, ADDRESS_LOCAL };

/* Bytes only, all of them defined: usable as a key as it is. */
struct address {
    uint8_t family;    /* enum address_family */
    uint8_t bytes[16]; /* IPv4: the first 4; local: the user id in the first 4 */
};

struct address_range {
    struct address base;
    uint8_t bits;
};

/* Reads what libzmq says: "10.0.0.1", "fe80::1%eth0", or for ipc "localhost:UID:GID:PID". Anything else
 * becomes ADDRESS_NONE. */
void address_parse(struct address *address, const char *text, size_t size);

/* Reads "10.0.0.0/8", "2001:db8::/32" or a single address. Bits behind the prefix are ignored. -1 with a
 * reason in `err`. */
int address_range_parse(struct address_range *range, const char *text, char *err, size_t err_size);

/* True when the address lies in the range; never for a local peer or none. */
bool address_is_in(const struct address *address, const struct address_range *range);

/* What counts as one peer: an IPv4 address, an IPv6 /64, a local user. */
struct address address_group(const struct address *address);

#endif
