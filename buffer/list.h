/* SPDX-License-Identifier: MIT
 *
 * Intrusive doubly linked lists: a thing in flight is on exactly one list, and the list is its state.
 * A `struct list` is either a head or a link inside another struct; nothing here allocates.
 */
#ifndef PROXYD_BUFFER_LIST_H
#define PROXYD_BUFFER_LIST_H

#include <stdbool.h>
#include <stddef.h>

struct list {
    struct list *prev, *next;
};

/* The struct that holds `link` as its member. */
#define LIST_ENTRY(link, type, member) ((type *)(void *)((char *)(link)-offsetof(type, member)))

/* Walks the links of `head`; the _SAFE form allows removing the current one. */
#define LIST_EACH(link, head) for (struct list *link = (head)->next; link != (head); link = link->next)
#define LIST_EACH_SAFE(link, following, head)                                                                \
    for (struct list *link = (head)->next, *following = link->next; link != (head);                          \
         link = following, following = link->next)

static inline void list_init(struct list *head)
{
    head->prev = head->next = head;
}

static inline bool list_is_empty(const struct list *head)
{
    return head->next == head;
}

static inline void list_insert_after(struct list *at, struct list *link)
{
    link->prev = at;
    link->next = at->next;
    at->next->prev = link;
    at->next = link;
}

static inline void list_append(struct list *head, struct list *link)
{
    list_insert_after(head->prev, link);
}

static inline void list_prepend(struct list *head, struct list *link)
{
    list_insert_after(head, link);
}

/* Takes `link` off its list and leaves it as an empty list, so that removing twice is harmless. */
static inline void list_remove(struct list *link)
{
    link->prev->next = link->next;
    link->next->prev = link->prev;
    list_init(link);
}

/* The first link, or NULL. */
static inline struct list *list_first(const struct list *head)
{
    return list_is_empty(head) ? NULL : head->next;
}

#endif
