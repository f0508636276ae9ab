/* All that a native plugin may export. Only PluginNew is needed (other PFS servers want PluginName, too); what is missing
 * answers 501.
 *
 * - Texts are UTF-8 and end in NUL; paths begin with "/", the root is "/".
 * - The host frees nothing that it is given, and looks at it only until the next call of the same instance. Its own texts
 *   and data are there only during the call.
 * - "Error or NULL": NULL means that it is done; a text says why not. "no such file", "already exists", "permission denied",
 *   "not empty", "not supported", "is a directory", "invalid ..." get the status that fits, other texts 502.
 * - Calls into one instance come one at a time, from any thread, unless PluginThreadSafe gives 1.
 */
#ifndef CALLFS_PLUGIN_H
#define CALLFS_PLUGIN_H
#include <stdint.h>

typedef struct {                            /* 64 bytes, fields at 0 8 16 24 32 40 48 56 */
    const char *Name;                       /* for FSReadDir; without "/" */
    int64_t Size;                           /* below 0: not known */
    uint32_t Mode;                          /* permission bits; 0: the usual ones */
    int64_t ModTime;                        /* seconds since 1970; 0: not known */
    int32_t IsDir;
    const char *MetaName, *MetaType;        /* the plugin; what this is to it ("control": reading takes something out) */
    const char *MetaContent;                /* JSON: a map of texts, or NULL */
} FileInfoC;

typedef struct {
    FileInfoC *Items;
    int Count;
} FileInfoArray;

void *PluginNew(void);                      /* an instance, for one mount; NULL: an error */
const char *PluginName(void *plugin);       /* the type that `mount` takes; else the file's name */
int PluginThreadSafe(void);                 /* callfs only */
const char *PluginValidate(void *plugin, const char *config_json);      /* error or NULL; then, with the same options, */
const char *PluginInitialize(void *plugin, const char *config_json);    /* error or NULL */
const char *PluginShutdown(void *plugin);   /* the last call but PluginFree */
void PluginFree(void *plugin);
const char *PluginGetReadme(void *plugin);

/* At most `size` bytes (-1: all) from `offset` on, none behind the end; *out_len below 0: an error, whose text (NULL: no such
 * file) is the result. */
const char *FSRead(void *plugin, const char *path, long long offset, long long size, int *out_len);
FileInfoC *FSStat(void *plugin, const char *path);                      /* NULL: no such file */
FileInfoArray *FSReadDir(void *plugin, const char *path, int *out_count);       /* NULL, and *out_count not 0: no such directory */
/* The whole content of a file, which is made if need be. The result, or NULL, is told to whoever writes; a text that sounds
 * like a refusal ("permission denied", "error ...") is taken for one. */
const char *FSWrite(void *plugin, const char *path, const char *data, int data_len);
const char *FSCreate(void *plugin, const char *path);                   /* error or NULL, as all of these: an empty file */
const char *FSMkdir(void *plugin, const char *path, unsigned int mode);
const char *FSRemove(void *plugin, const char *path);                   /* a file or an empty directory */
const char *FSRemoveAll(void *plugin, const char *path);
const char *FSRename(void *plugin, const char *old_path, const char *new_path);
const char *FSChmod(void *plugin, const char *path, unsigned int mode);

#endif
