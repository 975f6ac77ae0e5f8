/* SPDX-License-Identifier: MIT
 *
 * Peer addresses and ranges; see address.h.
 */
#include "auth/address.h"

#include <arpa/inet.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { TEXT_MAX = 80 };

static const uint8_t mapped_prefix[12] = {[10] = 0xff, [11] = 0xff};

static bool parse_ip(struct address *address, const char *text)
{
    memset(address, 0, sizeof *address);
    if (inet_pton(AF_INET, text, address->bytes) == 1) {
        address->family = ADDRESS_IPV4;
    } else if (inet_pton(AF_INET6, text, address->bytes) == 1) {
        address->family = ADDRESS_IPV6;
    } else {
        memset(address, 0, sizeof *address);
        return false;
    }
    return true;
}

static bool is_mapped(const struct address *address)
{
    return address->family == ADDRESS_IPV6 &&
           memcmp(address->bytes, mapped_prefix, sizeof mapped_prefix) == 0;
}

static void unmap(struct address *address)
{
    memmove(address->bytes, address->bytes + sizeof mapped_prefix, 4);
    memset(address->bytes + 4, 0, sizeof address->bytes - 4);
    address->family = ADDRESS_IPV4;
}

static void parse_local(struct address *address, const char *text)
{
    char *end;
    unsigned long user = strtoul(text, &end, 10);
    if (end == text || *end != ':' || user > UINT32_MAX)
        return;
    uint32_t id = (uint32_t)user;
    address->family = ADDRESS_LOCAL;
    memcpy(address->bytes, &id, sizeof id);
}

void address_parse(struct address *address, const char *text, size_t size)
{
    static const char local[] = "localhost:";
    char copy[TEXT_MAX];
    memset(address, 0, sizeof *address);
    if (size >= sizeof copy)
        return;
    memcpy(copy, text, size);
    copy[size] = '\0';
    if (strncmp(copy, local, sizeof local - 1) == 0) {
        parse_local(address, copy + sizeof local - 1);
        return;
    }
    copy[strcspn(copy, "%")] = '\0'; /* the interface of a link-local address */
    if (parse_ip(address, copy) && is_mapped(address))
        unmap(address);
}

/* Clears what stands behind the first `bits` bits. */
static void mask(struct address *address, unsigned bits)
{
    for (unsigned i = 0; i < sizeof address->bytes; i++) {
        unsigned kept = bits > i * 8 ? bits - i * 8 : 0;
        if (kept < 8)
            address->bytes[i] &= (uint8_t)(0xff00 >> kept);
    }
}

int address_range_parse(struct address_range *range, const char *text, char *err, size_t err_size)
{
    char copy[TEXT_MAX];
    snprintf(copy, sizeof copy, "%s", text);
    char *slash = strchr(copy, '/');
    if (slash)
        *slash = '\0';
    if (strlen(text) >= sizeof copy || !parse_ip(&range->base, copy)) {
        snprintf(err, err_size, "\"%s\" is not an address or a range such as 10.0.0.0/8 or fd00::/8", text);
        return -1;
    }
    unsigned width = range->base.family == ADDRESS_IPV4 ? 32 : 128;
    char *end = NULL;
    unsigned long bits = slash ? strtoul(slash + 1, &end, 10) : width;
    if (slash && (slash[1] < '0' || slash[1] > '9' || *end || bits > width)) {
        snprintf(err, err_size, "\"%s\": the prefix must be a number from 0 to %u", text, width);
        return -1;
    }
    if (is_mapped(&range->base) && bits >= 8 * sizeof mapped_prefix) {
        unmap(&range->base);
        bits -= 8 * sizeof mapped_prefix;
    }
    range->bits = (uint8_t)bits;
    mask(&range->base, range->bits);
    return 0;
}

bool address_is_in(const struct address *address, const struct address_range *range)
{
    if (address->family != range->base.family)
        return false;
    struct address masked = *address;
    mask(&masked, range->bits);
    return memcmp(masked.bytes, range->base.bytes, sizeof masked.bytes) == 0;
}

struct address address_group(const struct address *address)
{
    struct address group = *address;
    if (group.family == ADDRESS_IPV6)
        mask(&group, 64);
    return group;
}
