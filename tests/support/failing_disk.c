/* A disk that fails, for LD_PRELOAD: what is written below one directory fails with EIO, once, at
 * the first place that is not in a list of places. A place is an operation and a path in which
 * digits and hashes count as one another. Every operation is logged.
 *
 *   cc -shared -fPIC -o failing_disk.so failing_disk.c -ldl
 */
#define _GNU_SOURCE
#include <ctype.h>
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <pthread.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <unistd.h>

static char below[PATH_MAX];      /* the directory; empty: nothing fails */
static char *spared;              /* places, each between newlines */
static int told = -1;             /* where the place that failed is written */
static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;

/* Called through ctypes. `report` gets the place that failed. */
void fail_below(const char *directory, const char *places, int report) {
    free(spared);
    spared = strdup(places);
    told = report;
    strncpy(below, directory, sizeof below - 1);
}

static void place_of(char *out, size_t room, const char *op, const char *path) {
    size_t n = snprintf(out, room, "\n%s .", op);
    const char *at = path + strlen(below);
    while (*at && n + 3 < room) {
        size_t word = 0, digits = 0;
        while (isalnum((unsigned char)at[word])) digits += !!isdigit((unsigned char)at[word++]);
        if (digits && word) out[n++] = '#', at += word;
        else if (word) while (word-- && n + 3 < room) out[n++] = *at++;
        else out[n++] = *at++;
    }
    out[n++] = '\n';
    out[n] = 0;
}

static int fails(const char *op, const char *path) {
    if (!*below || !path || strncmp(path, below, strlen(below))) return 0;
    char place[PATH_MAX + 32];
    place_of(place, sizeof place, op, path);
    pthread_mutex_lock(&lock);
    int now = told >= 0 && !strstr(spared, place);
    if (now) {
        syscall(SYS_write, told, place + 1, strlen(place) - 1);
        told = -1; /* once */
    }
    pthread_mutex_unlock(&lock);
    if (now) errno = EIO;
    return now;
}

static int fails_fd(const char *op, int fd) {
    if (!*below) return 0;
    char link[64], path[PATH_MAX];
    snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
    ssize_t n = readlink(link, path, sizeof path - 1);
    if (n < 0) return 0;
    path[n] = 0;
    return fails(op, path);
}

#define REAL(name) ((__typeof__(&name))dlsym(RTLD_NEXT, #name))

#define ON_FD(result, name, op, params, args) \
    result name params { return fails_fd(op, fd) ? -1 : REAL(name) args; }
ON_FD(ssize_t, write, "write", (int fd, const void *b, size_t n), (fd, b, n))
ON_FD(ssize_t, writev, "write", (int fd, const struct iovec *v, int n), (fd, v, n))
ON_FD(ssize_t, pwrite, "write", (int fd, const void *b, size_t n, off_t o), (fd, b, n, o))
ON_FD(ssize_t, pwrite64, "write", (int fd, const void *b, size_t n, off64_t o), (fd, b, n, o))
ON_FD(int, fsync, "sync", (int fd), (fd))
ON_FD(int, fdatasync, "sync", (int fd), (fd))
ON_FD(int, ftruncate, "truncate", (int fd, off_t n), (fd, n))
ON_FD(int, ftruncate64, "truncate", (int fd, off64_t n), (fd, n))

/* Of a directory that is there nothing is written. */
static const char *absent(const char *path) { return access(path, F_OK) ? path : NULL; }

#define ON_PATH(name, op, path, params, args) \
    int name params { return fails(op, path) ? -1 : REAL(name) args; }
ON_PATH(mkdir, "mkdir", absent(p), (const char *p, mode_t m), (p, m))
ON_PATH(mkdirat, "mkdir", absent(p), (int d, const char *p, mode_t m), (d, p, m))
ON_PATH(rename, "rename", q, (const char *p, const char *q), (p, q))
ON_PATH(renameat, "rename", q, (int d, const char *p, int e, const char *q), (d, p, e, q))

#define OPENS(name, before, names)                                        \
    int name(before const char *path, int flags, ...) {                   \
        mode_t mode = 0;                                                  \
        if (flags & (O_CREAT | O_TMPFILE)) {                              \
            va_list rest;                                                 \
            va_start(rest, flags);                                        \
            mode = va_arg(rest, mode_t);                                  \
            va_end(rest);                                                 \
        }                                                                 \
        if ((flags & O_ACCMODE) != O_RDONLY && fails("open", path)) return -1; \
        return REAL(name)(names path, flags, mode);                       \
    }
#define NOTHING
#define DIRECTORY int directory,
#define THE_DIRECTORY directory,
OPENS(open, NOTHING, NOTHING)
OPENS(open64, NOTHING, NOTHING)
OPENS(openat, DIRECTORY, THE_DIRECTORY)
OPENS(openat64, DIRECTORY, THE_DIRECTORY)
