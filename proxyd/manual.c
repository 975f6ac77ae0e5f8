/* SPDX-License-Identifier: MIT
 *
 * The build runs this to make the manual pages: copies a page from standard input to standard output, and writes
 * the entries of the tables that the code itself uses into it.
 *
 *     @list keys.queue       one entry for each key of that section, in the table's order
 *     @about max_age         what the page says of that entry besides; any order, none is required
 *     …
 *     @end
 *     @version               .Os with the version
 *
 * A list that does not exist, or an @about without an entry, ends the build.
 */
#include "proxies/ledger.h"
#include "proxyd/commands.h"
#include "proxyd/config_keys.h"

#include <ctype.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { ABOUT_MAX = 100 };

/* Table text as roff: a hyphen stays one, a sentence begins on its own line, nothing is taken for a request. */
static void put(const char *text)
{
    for (; *text != '\0'; text++) {
        if (text[0] == '.' && text[1] == ' ' && isupper((unsigned char)text[2]))
            fputs(".\n\\&", stdout), text++;
        else if (*text == '-')
            fputs("\\-", stdout);
        else if (*text == '\\')
            fputs("\\e", stdout);
        else if (*text == '"')
            fputs("\\(dq", stdout);
        else
            putchar(*text);
    }
}

static void put_line(const char *text, const char *end)
{
    fputs("\\&", stdout);
    put(text);
    puts(end);
}

/* ---- The tables ---- */

/* The key at `index` of the section `part`; "" where the table has one of another section. */
static const char *key_name(int part, size_t index)
{
    size_t count;
    const struct config_key *keys = config_keys(&count);
    if (index >= count)
        return NULL;
    return (int)keys[index].section == part ? keys[index].name : "";
}

static void print_key(size_t index)
{
    size_t count;
    const struct config_key *key = &config_keys(&count)[index];
    char kind[200], limits[400];
    config_key_kind(key, kind, sizeof(kind));
    config_key_limits(key, limits, sizeof(limits));
    printf(".It Ic %s\n", key->name);
    put_line(kind, ".");
    if (limits[0])
        put_line(limits, "");
    puts(".br");
    put_line(key->help, ".");
}

static const char *command_name(int part, size_t index)
{
    if (index >= COMMAND_COUNT)
        return NULL;
    const struct command *command = command_info((enum command_id)index);
    return (int)command->is_remote == part ? command->name : "";
}

/* "ID...|drop" as `Ar ID ... | Cm drop`: capitals are for the reader to replace, the rest stands as it is. */
static void print_arguments(const char *text)
{
    while (*text != '\0') {
        size_t size = strspn(text, "ABCDEFGHIJKLMNOPQRSTUVWXYZ");
        const char *macro = "Ar";
        if (size == 0) {
            size = strspn(text, "abcdefghijklmnopqrstuvwxyz");
            macro = "Cm";
        }
        if (size > 0)
            printf(" %s %.*s", macro, (int)size, text);
        else if (strncmp(text, "...", 3) == 0)
            size = (size_t)printf(" ...") - 1;
        else if (*text == '[' || *text == ']')
            size = (size_t)printf(*text == '[' ? " Oo" : " Oc") - 2;
        else if (*text == '|')
            size = (size_t)printf(" |") - 1;
        else
            size = 1;
        text += size;
    }
}

static void print_command(size_t index)
{
    const struct command *command = command_info((enum command_id)index);
    printf(".It Ic %s", command->name);
    print_arguments(command->arguments);
    putchar('\n');
    fputs("\\&", stdout);
    putchar(toupper((unsigned char)command->help[0]));
    put(command->help + 1);
    puts(".");
}

static const char *reason_name(int part, size_t index)
{
    (void)part;
    return index < REASON_COUNT ? reason_info((enum reason)index)->name : NULL;
}

static void print_reason(size_t index)
{
    const struct reason_info *info = reason_info((enum reason)index);
    fputs(".It Li ", stdout);
    put(info->name);
    printf(", %d\n", info->code);
    fputs("\\&", stdout);
    putchar(toupper((unsigned char)info->text[0]));
    put(info->text + 1);
    printf(" (JSON\\-RPC \\-%d).\n", -info->jsonrpc_code);
}

static const char *drop_word(int part, size_t index)
{
    (void)part;
    return index < DROP_COUNT ? drop_name((enum drop)index) : NULL;
}

static void print_drop(size_t index)
{
    printf(".It Li %s\n", drop_name((enum drop)index));
}

static const struct table {
    const char *name;
    const char *(*entry)(int part, size_t index); /* NULL after the last, "" for one of another part */
    int part;
    void (*print)(size_t index);
} tables[] = {
    {"keys.daemon", key_name, CONFIG_DAEMON, print_key},
    {"keys.chain", key_name, CONFIG_CHAIN, print_key},
    {"keys.frontend", key_name, CONFIG_FRONTEND, print_key},
    {"keys.backend", key_name, CONFIG_BACKEND, print_key},
    {"keys.verify", key_name, CONFIG_VERIFY, print_key},
    {"keys.workers", key_name, CONFIG_WORKERS, print_key},
    {"keys.queue", key_name, CONFIG_QUEUE, print_key},
    {"commands.remote", command_name, true, print_command},
    {"commands.local", command_name, false, print_command},
    {"reasons", reason_name, 0, print_reason},
    {"drops", drop_word, 0, print_drop},
};

/* ---- The page ---- */

struct about {
    char *name;
    char *text;
    bool is_used;
};

static unsigned line_number;

static _Noreturn void fail(const char *what, const char *name)
{
    fprintf(stderr, "manual: line %u: %s \"%s\"\n", line_number, what, name);
    exit(EXIT_FAILURE);
}

/* The next line without its newline, to be freed; NULL at the end. */
static char *read_line(void)
{
    char *line = NULL;
    size_t capacity = 0;
    ssize_t size = getline(&line, &capacity, stdin);
    if (size < 0) {
        free(line);
        return NULL;
    }
    line_number++;
    line[strcspn(line, "\n")] = '\0';
    return line;
}

/* The word behind `directive` where the line is one; NULL otherwise. */
static const char *word_of(const char *line, const char *directive)
{
    size_t size = strlen(directive);
    return strncmp(line, directive, size) == 0 && line[size] == ' ' ? line + size + 1 : NULL;
}

/* What stands between @list and @end. Returns the number of abouts. */
static size_t read_abouts(struct about *abouts, const char *table)
{
    size_t count = 0, text_size = 0;
    FILE *text = NULL;
    for (char *line; (line = read_line()) != NULL; free(line)) {
        const char *name = word_of(line, "@about");
        bool is_end = strcmp(line, "@end") == 0;
        if ((name || is_end) && text) {
            fclose(text);
            text = NULL;
        }
        if (is_end) {
            free(line);
            return count;
        }
        if (name && count < ABOUT_MAX) {
            abouts[count] = (struct about){.name = strdup(name)};
            text = open_memstream(&abouts[count++].text, &text_size);
        } else if (text && !name) {
            fprintf(text, "%s\n", line);
        } else {
            fail("neither @about nor @end", line);
        }
    }
    fail("there is no @end of", table);
}

static void print_table(const char *name)
{
    const struct table *table = tables, *end = tables + sizeof(tables) / sizeof(tables[0]);
    while (table < end && strcmp(table->name, name) != 0)
        table++;
    if (table == end)
        fail("there is no table", name);
    struct about abouts[ABOUT_MAX];
    size_t count = read_abouts(abouts, name);
    const char *entry;
    for (size_t index = 0; (entry = table->entry(table->part, index)) != NULL; index++) {
        if (!entry[0])
            continue;
        table->print(index);
        for (size_t i = 0; i < count; i++) {
            if (strcmp(abouts[i].name, entry) != 0)
                continue;
            fputs(abouts[i].text, stdout);
            abouts[i].is_used = true;
        }
    }
    for (size_t i = 0; i < count; i++) {
        if (!abouts[i].is_used)
            fail("the table has no", abouts[i].name);
        free(abouts[i].name);
        free(abouts[i].text);
    }
}

int main(void)
{
    for (char *line; (line = read_line()) != NULL; free(line)) {
        const char *table = word_of(line, "@list");
        if (table)
            print_table(table);
        else if (strcmp(line, "@version") == 0)
            puts(".Os \"proxyd " PROXYD_VERSION "\"");
        else
            puts(line);
    }
    return fflush(stdout) == 0 ? EXIT_SUCCESS : EXIT_FAILURE;
}
