/* Errors: functions return nd_status; the first error of a thread is kept with its message and the
 * chain of calls it passed through.
 *
 * A function that finds an error calls ND_FAIL or ND_FAIL_IF with a message that names the file,
 * tensor, key or rank, what was expected and what was found. Callers pass it up with ND_TRY, which
 * adds one line to the trace; what they own is released by ND_AUTOFREE and ND_CLEANUP, or they use
 * ND_IF_OK. Nothing in the libraries exits. */
#pragma once

#include <stddef.h>

/* Up to ND_ESTOPPED a status is the exit code of the process; the others end with 1. */
typedef enum nd_status {
    ND_OK = 0,
    ND_ECONFIG = 2,     /* usage or configuration */
    ND_EDATA = 3,       /* a shard, a tokenizer or an input text */
    ND_ECHECKPOINT = 4, /* a checkpoint */
    ND_EPEER = 5,       /* another rank or the network */
    ND_ENUMERIC = 6,    /* NaN or Inf beyond recovery */
    ND_ESTOPPED = 75,   /* stopped on a signal after saving */
    ND_ENOMEM = 101,    /* memory, of host or device */
    ND_EIO,             /* a file or a system call, outside data and checkpoints */
    ND_EINTERNAL        /* a broken contract inside the program */
} nd_status;

/* These exit codes as text for --help. */
#define ND_EXIT_CODES                                                                              \
    "exit codes: 0 done, 1 out of memory, a failed system call or an internal error, 2 usage or\n" \
    "            configuration, 3 data, 4 checkpoint, 5 another rank or the network,\n"            \
    "            6 non-finite values, 75 stopped on a signal after saving\n"

/* The ending of a noun that is counted in a message. */
static inline const char *nd_s(long long count)
{
    return count == 1 ? "" : "s";
}

enum { ND_ERROR_TEXT_MAX = 2048 };

/* What went wrong, where, and the trace of callers. Copyable, so that a worker thread can hand its
 * error to the thread that joins it. */
typedef struct nd_error {
    nd_status status;
    int shared; /* 1: every rank of the job holds this same error */
    char message[ND_ERROR_TEXT_MAX];
    char trace[ND_ERROR_TEXT_MAX]; /* one "file:line: expression" a line, innermost first */
} nd_error;

#define ND_FAIL(status, ...) nd_error_raise((status), __FILE__, __LINE__, __VA_ARGS__)

#define ND_TRY(expression)                                                                         \
    do {                                                                                           \
        const nd_status nd_try_status_ = (expression);                                             \
        if (nd_try_status_ != ND_OK) {                                                             \
            nd_error_add_trace(__FILE__, __LINE__, #expression);                                   \
            return nd_try_status_;                                                                 \
        }                                                                                          \
    } while (0)

/* Fails and returns from the calling function when `condition` holds:
 * ND_FAIL_IF(!run, ND_ENOMEM, "no memory for a run"). */
#define ND_FAIL_IF(condition, ...)                                                                 \
    do {                                                                                           \
        if (condition)                                                                             \
            return ND_FAIL(__VA_ARGS__);                                                           \
    } while (0)

/* An expression: ND_OK when `condition` holds, otherwise the failure:
 * return ND_CHECK(list, ND_ENOMEM, "no memory for a list"). */
#define ND_CHECK(condition, ...) ((condition) ? ND_OK : ND_FAIL(__VA_ARGS__))

/* Evaluates `expression` only while the local `nd_status status` is ND_OK: for a chain of calls
 * followed by a cleanup. */
#define ND_IF_OK(expression)                                                                       \
    do {                                                                                           \
        if (status == ND_OK && (status = (expression)) != ND_OK)                                   \
            nd_error_add_trace(__FILE__, __LINE__, #expression);                                   \
    } while (0)

/* Ends a function that makes an object: returns `status`, and gives the object to the caller if
 * that is ND_OK, else destroys it. */
#define ND_RETURN_MADE(status, made, destroy, out)                                                 \
    do {                                                                                           \
        const nd_status nd_made_status_ = (status);                                                \
        if (nd_made_status_ == ND_OK)                                                              \
            *(out) = (made);                                                                       \
        else                                                                                       \
            destroy(made);                                                                         \
        return nd_made_status_;                                                                    \
    } while (0)

/* Before an initialized local that owns something: `release` gets its address when its scope ends,
 * on whichever path. */
#ifdef __CPPCHECK__ /* does not know the attribute and would report leaks */
#define ND_CLEANUP(release) static
#else
#define ND_CLEANUP(release) __attribute__((cleanup(release)))
#endif

/* The same for a pointer, which is freed. */
#define ND_AUTOFREE ND_CLEANUP(nd_autofree)
void nd_autofree(void *pointer);

/* Records the error unless this thread already holds one, and returns `status`. */
nd_status nd_error_raise(nd_status status, const char *file, int line, const char *format, ...)
    __attribute__((format(printf, 4, 5)));
void nd_error_add_trace(const char *file, int line, const char *expression);

/* The calling thread's first error since nd_error_clear(); status ND_OK when there is none. */
const nd_error *nd_error_get(void);
void nd_error_set(const nd_error *error);
void nd_error_clear(void);

/* For what may be missing or damaged: clears this thread's error and returns ND_OK, but keeps and
 * returns ND_ENOMEM, which says nothing of what was to be read. */
nd_status nd_error_tolerate(nd_status status);

/* Marks this thread's error as shared without communication, because every rank raised it from the
 * same numbers. Returns `status`. */
nd_status nd_error_mark_shared(nd_status status);

/* The process exit code of a status. */
int nd_error_exit_code(nd_status status);
