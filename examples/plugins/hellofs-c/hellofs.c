/* hellofs-c: a folder with one file, as a native plugin of callfs.
 *
 * callfs-plugin.h says what else a plugin can have, and what holds for all of it.
 */
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "callfs-plugin.h"

typedef struct {
    char greeting[256];
    int64_t since;
    FileInfoC info;                         /* what the last call gave */
    FileInfoArray list;
} Hello;

void *PluginNew(void) {
    Hello *hello = calloc(1, sizeof *hello);
    if (hello) {
        strcpy(hello->greeting, "Hello from C plugin!");
        hello->since = (int64_t)time(NULL);
    }
    return hello;
}

const char *PluginName(void *plugin) { (void)plugin; return "hellofs-c"; }

void PluginFree(void *plugin) { free(plugin); }

const char *PluginGetReadme(void *plugin) {
    (void)plugin;
    return "# hellofs-c\n\nOne file, `/hello`. Option: `greeting`, at most 255 bytes.\n";
}

/* The options of the mount, as JSON: {"greeting":"..."}. A real plugin brings a parser. */
static const char *greeting_in(const char *config, size_t *length) {
    const char *found = strstr(config, "\"greeting\":\""), *end;
    if (!found)
        return NULL;
    found += strlen("\"greeting\":\"");
    end = strpbrk(found, "\"\\");
    *length = end ? (size_t)(end - found) : 0;
    return end && *end == '"' ? found : NULL;
}

const char *PluginValidate(void *plugin, const char *config) {
    size_t length = 0;
    (void)plugin;
    if (strcmp(config, "{}") == 0)
        return NULL;
    if (!greeting_in(config, &length))
        return "invalid option: hellofs-c has one, greeting, a text without quotes and backslashes";
    return length < sizeof ((Hello *)0)->greeting ? NULL : "invalid greeting: it has more than 255 bytes";
}

const char *PluginInitialize(void *plugin, const char *config) {
    size_t length = 0;
    const char *greeting = greeting_in(config, &length);
    if (greeting) {
        memcpy(((Hello *)plugin)->greeting, greeting, length);
        ((Hello *)plugin)->greeting[length] = 0;
    }
    return NULL;
}

static FileInfoC *hello_file(Hello *hello) {
    memset(&hello->info, 0, sizeof hello->info);
    hello->info.Name = "hello";
    hello->info.Size = (int64_t)strlen(hello->greeting);
    hello->info.Mode = 0444;
    hello->info.ModTime = hello->since;
    hello->info.MetaName = "hellofs-c";
    hello->info.MetaType = "file";
    return &hello->info;
}

FileInfoC *FSStat(void *plugin, const char *path) {
    FileInfoC *info = hello_file(plugin);
    if (strcmp(path, "/hello") == 0)
        return info;
    if (strcmp(path, "/") != 0)
        return NULL;                        /* there is no such file */
    info->Name = "/";
    info->Size = 0;
    info->Mode = 0555;
    info->IsDir = 1;
    return info;
}

FileInfoArray *FSReadDir(void *plugin, const char *path, int *out_count) {
    Hello *hello = plugin;
    if (strcmp(path, "/") != 0) {
        *out_count = -1;
        return NULL;
    }
    hello->list.Items = hello_file(hello);
    hello->list.Count = *out_count = 1;
    return &hello->list;
}

/* At most `size` bytes (-1: all) from `offset` on. */
const char *FSRead(void *plugin, const char *path, long long offset, long long size, int *out_len) {
    Hello *hello = plugin;
    long long length = (long long)strlen(hello->greeting);
    if (strcmp(path, "/hello") != 0) {
        *out_len = -1;
        return "no such file";
    }
    if (offset < 0 || offset > length)
        offset = length;
    length -= offset;
    *out_len = (int)(size >= 0 && size < length ? size : length);
    return hello->greeting + offset;
}
