#include "dist/simulation/fibers.h"

#include "core/base/clock_heap.h"

#include <stdint.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <ucontext.h>

#if defined(__SANITIZE_ADDRESS__)
#include <sanitizer/common_interface_defs.h>
#endif
#if defined(__SANITIZE_THREAD__)
#include <sanitizer/tsan_interface.h>
#endif

enum { STACK_BYTES = 256 << 10, HOME = -1 };

typedef struct fiber {
    ucontext_t at;
    double clock;
    bool blocked, stuck, ended;
    nd_error *error; /* NULL until its first error */
    void *sanitizer; /* the sanitizer's handle of the stack */
} fiber;

struct nd_fibers {
    int count, running, alive;
    void (*main)(void *context, int fiber);
    void *context;
    char *stacks; /* [count][STACK_BYTES] */
    nd_clock_heap ready;
    fiber list[]; /* [count + 1]; the last is the caller of nd_fibers_run */
};

static fiber *at(nd_fibers *f, int index)
{
    return &f->list[index == HOME ? f->count : index];
}

static void keep_error(fiber *left)
{
    const nd_error *error = nd_error_get();
    if (error->status == ND_OK)
        return;
    if (!left->error)
        left->error = malloc(sizeof *left->error);
    if (left->error)
        *left->error = *error;
    nd_error_clear();
}

static void give_error_back(const fiber *resumed)
{
    if (resumed->error)
        nd_error_set(resumed->error);
}

static void switch_to(nd_fibers *f, int next)
{
    fiber *from = at(f, f->running), *to = at(f, next);
    keep_error(from);
    f->running = next;
#if defined(__SANITIZE_ADDRESS__)
    __sanitizer_start_switch_fiber(from->ended ? NULL : &from->sanitizer, to->at.uc_stack.ss_sp,
                                   to->at.uc_stack.ss_size);
#endif
#if defined(__SANITIZE_THREAD__)
    __tsan_switch_to_fiber(to->sanitizer, 0);
#endif
    swapcontext(&from->at, &to->at);
#if defined(__SANITIZE_ADDRESS__)
    __sanitizer_finish_switch_fiber(from->sanitizer, NULL, NULL);
#endif
    give_error_back(from);
}

/* Switches to the earliest fiber that can continue, or home if none can. */
static void switch_to_next(nd_fibers *f)
{
    switch_to(f, f->ready.count > 0 ? nd_clock_pop(&f->ready) : HOME);
}

/* makecontext passes int. */
static void begin(unsigned high, unsigned low)
{
    nd_fibers *f = (nd_fibers *)((uintptr_t)high << 32 | low); // NOLINT
#if defined(__SANITIZE_ADDRESS__)
    fiber *home = at(f, HOME);
    const void *bottom = NULL;
    size_t size = 0;
    __sanitizer_finish_switch_fiber(NULL, &bottom, &size);
    if (!home->at.uc_stack.ss_sp) { /* the first to be entered comes from there */
        home->at.uc_stack.ss_sp = (void *)bottom;
        home->at.uc_stack.ss_size = size;
    }
#endif
    f->main(f->context, f->running);
    at(f, f->running)->ended = true;
    f->alive--;
    switch_to_next(f);
    abort(); /* one that has ended was woken */
}

nd_status nd_fibers_create(int count, void (*main)(void *context, int fiber), void *context,
                           nd_fibers **fibers)
{
    nd_fibers *f = calloc(1, sizeof *f + ((size_t)count + 1) * sizeof *f->list);
    int *ready = calloc((size_t)count, sizeof *ready);
    char *stacks = mmap(NULL, (size_t)count * STACK_BYTES, PROT_READ | PROT_WRITE,
                        MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (!f || !ready || stacks == MAP_FAILED) {
        free(f);
        free(ready);
        if (stacks != MAP_FAILED)
            munmap(stacks, (size_t)count * STACK_BYTES);
        return ND_FAIL(ND_ENOMEM, "no memory for %d fibers", count);
    }
    *f = (nd_fibers){.count = count, .running = HOME, .main = main, .context = context};
    f->stacks = stacks;
    f->ready = (nd_clock_heap){.list = ready, .clock = &f->list->clock, .stride = sizeof *f->list};
    *fibers = f;
    return ND_OK;
}

void nd_fibers_destroy(nd_fibers *f)
{
    if (!f)
        return;
    munmap(f->stacks, (size_t)f->count * STACK_BYTES);
    for (int i = 0; i <= f->count; i++)
        free(f->list[i].error);
    free(f->ready.list);
    free(f);
}

static void prepare(nd_fibers *f, int index)
{
    fiber *x = &f->list[index];
    char *stack = f->stacks + (size_t)index * STACK_BYTES;
    const uintptr_t self = (uintptr_t)f;
    getcontext(&x->at);
    x->at.uc_stack.ss_sp = stack;
    x->at.uc_stack.ss_size = STACK_BYTES;
    mprotect(stack, 4096, PROT_NONE); /* a guard page: a stack overflow crashes there */
    makecontext(&x->at, (void (*)(void))begin, 2, (unsigned)(self >> 32), (unsigned)self);
#if defined(__SANITIZE_THREAD__)
    x->sanitizer = __tsan_create_fiber(0);
#endif
    nd_clock_push(&f->ready, index);
}

void nd_fibers_run(nd_fibers *f)
{
    f->alive = f->count;
    for (int i = 0; i < f->count; i++)
        prepare(f, i);
#if defined(__SANITIZE_THREAD__)
    at(f, HOME)->sanitizer = __tsan_get_current_fiber();
#endif
    while (f->alive > 0) {
        for (int i = 0; f->ready.count == 0 && i < f->count; i++)
            f->list[i].stuck |= f->list[i].blocked;
        for (int i = 0; i < f->count; i++)
            if (f->list[i].stuck && f->list[i].blocked)
                nd_fibers_wake(f, i, f->list[i].clock);
        switch_to_next(f);
    }
#if defined(__SANITIZE_THREAD__)
    for (int i = 0; i < f->count; i++)
        __tsan_destroy_fiber(f->list[i].sanitizer);
#endif
}

double nd_fibers_now(const nd_fibers *f)
{
    return f->list[f->running == HOME ? f->count : f->running].clock;
}

void nd_fibers_sleep(nd_fibers *f, double time)
{
    fiber *me = at(f, f->running);
    if (time <= me->clock)
        return;
    me->clock = time;
    if (f->ready.count == 0 || nd_clock_before(&f->ready, f->running, f->ready.list[0]))
        return;
    nd_clock_push(&f->ready, f->running);
    switch_to_next(f);
}

bool nd_fibers_block(nd_fibers *f)
{
    fiber *me = at(f, f->running);
    me->blocked = true;
    switch_to_next(f);
    return !me->stuck;
}

void nd_fibers_wake(nd_fibers *f, int index, double time)
{
    fiber *woken = &f->list[index];
    woken->blocked = false;
    woken->clock = time > woken->clock ? time : woken->clock;
    nd_clock_push(&f->ready, index);
}
