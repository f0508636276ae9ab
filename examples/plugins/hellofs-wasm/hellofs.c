/* A read-only filesystem of two files as a WebAssembly plugin of callfs. No libc: all it needs is here.
 *
 * The host puts the strings that it hands over into memory that it gets from `malloc`, and gives them back with `free`
 * before it calls again; what a function returns stays ours. Text ends in a NUL. An answer of two parts is one 64-bit
 * number: the first part in the low half, the second in the high half.
 */
typedef unsigned int u32;
typedef unsigned long long u64;
typedef long long i64;

#define EXPORT(name) __attribute__((export_name(#name))) name
#define IMPORT(name) __attribute__((import_module("env"), import_name(#name))) name
#define PAIR(low, high) ((u64)(u32)(low) | (u64)(u32)(high) << 32)

/* Reads of the folder that the mount option `host_path` names; 0 without one, and for a file that is not there. */
u64 IMPORT(host_fs_read)(const char *path, i64 offset, i64 size);

/* ---- memory: a stack is enough for a host that frees in the opposite order ---- */

static char heap[1 << 20];
static u32 used;

void *EXPORT(malloc)(u32 size) {
    if (size > sizeof heap - used - 8) return 0;
    void *found = heap + used;
    used += (size + 7) & ~7u;
    return found;
}

void EXPORT(free)(void *pointer) {
    if ((char *)pointer >= heap && (char *)pointer < heap + used) used = (u32)((char *)pointer - heap);
}

/* ---- the plugin ---- */

static const char hello[] = "Hello from WebAssembly plugin!\n";

static int same(const char *a, const char *b) {
    while (*a && *a == *b) a++, b++;
    return *a == *b;
}

int EXPORT(plugin_new)(void) { return 1; }
const char *EXPORT(plugin_name)(void) { return "hellofs-wasm"; }
const char *EXPORT(plugin_get_readme)(void) { return "# hellofs-wasm\n\n/hello greets; /host.txt is a file of the host.\n"; }

u64 EXPORT(fs_read)(const char *path, i64 offset, i64 size) {
    if (same(path, "/host.txt")) return host_fs_read("/host.txt", offset, size);
    if (!same(path, "/hello")) return 0;
    i64 length = sizeof hello - 1;
    if (offset > length) offset = length;
    if (size < 0 || size > length - offset) size = length - offset;
    return PAIR(hello + offset, size);
}

#define FILE_HELLO "{\"Name\":\"hello\",\"Size\":31,\"Mode\":292,\"ModTime\":0,\"IsDir\":false}"
#define FILE_HOST "{\"Name\":\"host.txt\",\"Size\":-1,\"Mode\":292,\"ModTime\":0,\"IsDir\":false}"
#define ROOT "{\"Name\":\"\",\"Size\":0,\"Mode\":365,\"ModTime\":0,\"IsDir\":true}"

u64 EXPORT(fs_stat)(const char *path) {
    if (same(path, "/")) return PAIR(ROOT, 0);
    if (same(path, "/hello")) return PAIR(FILE_HELLO, 0);
    if (same(path, "/host.txt")) return PAIR(FILE_HOST, 0);
    return PAIR(0, "no such file");
}

u64 EXPORT(fs_readdir)(const char *path) {
    if (same(path, "/")) return PAIR("[" FILE_HELLO "," FILE_HOST "]", 0);
    return PAIR(0, "no such directory");
}
