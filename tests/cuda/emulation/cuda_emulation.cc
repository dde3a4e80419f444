#include "cuda_emulation.h"

extern "C" {
#include "core/base/float_formats.h"
}

#include <algorithm>
#include <memory>
#include <stdio.h>
#include <stdlib.h>
#include <unordered_map>
#include <vector>
#if !defined(__x86_64__)
#include <ucontext.h>
#endif

namespace
{

enum { STACK_BYTES = 128 << 10, LANES = 32, DEPOSIT_BYTES = 32 };

struct pending_copy {
    void *to;
    const void *from;
    bool valid;
    int group;
};

struct fiber {
#if defined(__x86_64__)
    void *stack_pointer;
#else
    ucontext_t context;
#endif
    std::unique_ptr<unsigned char[]> stack;
    nd_emulated_place place;
    int lane, warp;
    bool done;
    bool waits_for_block, waits_for_warp;
    std::function<bool()> until; /* what else it waits for */
    unsigned generation, parity;
    std::vector<pending_copy> copies;
    int group;
};

struct warp_state {
    int alive, arrived;
    unsigned generation;
    alignas(16) unsigned char deposits[2][LANES][DEPOSIT_BYTES];
};

std::vector<fiber> fibers;
std::vector<warp_state> warps;
std::vector<unsigned char> shared_memory;
fiber *here;
int block_alive, block_arrived;
unsigned block_generation;
void (*body_of_launch)(void *);
void *context_of_launch;
uint32_t random_state = 12345;

uint32_t next_random()
{
    random_state = random_state * 1664525u + 1013904223u;
    return random_state >> 8;
}

} // namespace

#if defined(__x86_64__)
extern "C" void nd_emulated_switch(void **save, void *load);
asm(".text\n.globl nd_emulated_switch\n.type nd_emulated_switch,@function\nnd_emulated_switch:\n"
    "pushq %rbp\npushq %rbx\npushq %r12\npushq %r13\npushq %r14\npushq %r15\n"
    "movq %rsp, (%rdi)\nmovq %rsi, %rsp\n"
    "popq %r15\npopq %r14\npopq %r13\npopq %r12\npopq %rbx\npopq %rbp\nret\n"
    ".size nd_emulated_switch,.-nd_emulated_switch\n"
    ".section .note.GNU-stack,\"\",@progbits\n.text\n");
static void *scheduler_stack;

static void leave_fiber()
{
    nd_emulated_switch(&here->stack_pointer, scheduler_stack);
}

static void enter_fiber(fiber *f)
{
    here = f;
    nd_emulated_switch(&scheduler_stack, f->stack_pointer);
}
#else
static ucontext_t scheduler;

static void leave_fiber()
{
    swapcontext(&here->context, &scheduler);
}

static void enter_fiber(fiber *f)
{
    here = f;
    swapcontext(&scheduler, &f->context);
}
#endif

static void release_block_if_complete()
{
    if (block_alive > 0 && block_arrived == block_alive) {
        block_arrived = 0;
        block_generation++;
    }
}

static void release_warp_if_complete(warp_state &w)
{
    if (w.alive > 0 && w.arrived == w.alive) {
        w.arrived = 0;
        w.generation++;
    }
}

static void fiber_main()
{
    body_of_launch(context_of_launch);
    here->done = true;
    block_alive--;
    warp_state &w = warps[(size_t)here->warp];
    w.alive--;
    release_block_if_complete();
    release_warp_if_complete(w);
    leave_fiber();
    abort(); /* a finished fiber never runs again */
}

static void prepare(fiber &f)
{
    if (!f.stack)
        f.stack.reset(new unsigned char[STACK_BYTES]);
#if defined(__x86_64__)
    void **top = (void **)(f.stack.get() + STACK_BYTES);
    *--top = nullptr; /* keeps the stack 16-byte aligned at fiber_main's entry */
    *--top = (void *)fiber_main;
    for (int i = 0; i < 6; i++)
        *--top = nullptr;
    f.stack_pointer = top;
#else
    getcontext(&f.context);
    f.context.uc_stack.ss_sp = f.stack.get();
    f.context.uc_stack.ss_size = STACK_BYTES;
    makecontext(&f.context, fiber_main, 0);
#endif
}

static bool runnable(const fiber &f)
{
    if (f.done)
        return false;
    if (f.waits_for_block)
        return f.generation != block_generation;
    if (f.waits_for_warp)
        return f.generation != warps[(size_t)f.warp].generation;
    return !f.until || f.until();
}

static void run_block(dim3 block, dim3 at, dim3 grid, dim3 size)
{
    const int threads = (int)(size.x * size.y * size.z), count = (threads + LANES - 1) / LANES;
    (void)block;
    if ((int)fibers.size() < threads)
        fibers.resize((size_t)threads);
    warps.assign((size_t)count, warp_state());
    block_alive = threads;
    block_arrived = 0;
    block_generation = 0;
    for (int t = 0; t < threads; t++) {
        fiber &f = fibers[(size_t)t];
        prepare(f);
        f.place.thread = dim3((unsigned)t % size.x, (unsigned)t / size.x % size.y,
                              (unsigned)t / (size.x * size.y));
        f.place.block = at;
        f.place.block_size = size;
        f.place.grid_size = grid;
        f.lane = t % LANES;
        f.warp = t / LANES;
        f.done = f.waits_for_block = f.waits_for_warp = false;
        f.until = nullptr;
        f.parity = 0;
        f.group = 0;
        f.copies.clear();
        warps[(size_t)f.warp].alive++;
    }
    std::vector<int> order((size_t)count);
    for (int w = 0; w < count; w++)
        order[(size_t)w] = w;
    while (block_alive > 0) {
        bool moved = false;
        for (int w = count - 1; w > 0; w--)
            std::swap(order[(size_t)w], order[next_random() % (uint32_t)(w + 1)]);
        for (int w : order) {
            bool again = true;
            while (again) { /* a warp runs until all its lanes wait for the block or are done */
                again = false;
                const int first = w * LANES, last = std::min(threads, first + LANES);
                for (int t = first; t < last; t++)
                    if (runnable(fibers[(size_t)t])) {
                        fibers[(size_t)t].waits_for_block = fibers[(size_t)t].waits_for_warp =
                            false;
                        enter_fiber(&fibers[(size_t)t]);
                        moved = again = true;
                    }
            }
        }
        if (!moved && block_alive > 0) {
            fprintf(stderr, "emulation: the threads of a block wait for each other\n");
            abort();
        }
    }
}

void nd_emulated_run(dim3 grid, dim3 block, size_t shared, void (*body)(void *), void *context)
{
    body_of_launch = body;
    context_of_launch = context;
    if (grid.x == 0 || grid.y == 0 || grid.z == 0 || block.x * block.y * block.z > 1024 ||
        grid.y > 65535 || grid.z > 65535 || shared > (size_t)(227 << 10)) {
        fprintf(stderr,
                "emulation: a grid of %u x %u x %u blocks of %u threads, %zu bytes shared\n",
                grid.x, grid.y, grid.z, block.x * block.y * block.z, shared);
        abort();
    }
    shared_memory.resize(shared + 128);
    for (unsigned z = 0; z < grid.z; z++)
        for (unsigned y = 0; y < grid.y; y++)
            for (unsigned x = 0; x < grid.x; x++) {
                memset(shared_memory.data(), 0xff, shared_memory.size());
                run_block(block, dim3(x, y, z), grid, block);
            }
}

const nd_emulated_place &nd_emulated_here()
{
    return here->place;
}

unsigned char *nd_emulated_shared()
{
    const uintptr_t at = (uintptr_t)shared_memory.data();
    return (unsigned char *)((at + 127) / 128 * 128);
}

void __syncthreads()
{
    here->generation = block_generation;
    block_arrived++;
    here->waits_for_block = true;
    release_block_if_complete();
    leave_fiber();
}

int nd_emulated_lane()
{
    return here->lane;
}

void nd_emulated_wait_until(std::function<bool()> holds)
{
    here->until = std::move(holds);
    if (!here->until())
        leave_fiber();
    here->until = nullptr;
}

uint32_t nd_emulated_random()
{
    return next_random();
}

void nd_emulated_exchange(const void *mine, size_t bytes)
{
    warp_state &w = warps[(size_t)here->warp];
    if (bytes > DEPOSIT_BYTES)
        abort();
    here->parity ^= 1;
    memcpy(w.deposits[here->parity][here->lane], mine, bytes);
    here->generation = w.generation;
    w.arrived++;
    here->waits_for_warp = true;
    release_warp_if_complete(w);
    leave_fiber();
}

const void *nd_emulated_deposit(int lane)
{
    return warps[(size_t)here->warp].deposits[here->parity][lane];
}

void nd_copy_async(void *shared, const void *global, bool valid)
{
    if ((uintptr_t)shared % 16 || (valid && (uintptr_t)global % 16)) {
        fprintf(stderr, "emulation: a copy of 16 bytes that is not aligned\n");
        abort();
    }
    here->copies.push_back({shared, global, valid, here->group});
}

void nd_copy_commit()
{
    here->group++;
}

void nd_emulated_copy_wait(int groups)
{
    size_t left = 0;
    for (const pending_copy &c : here->copies) {
        if (c.group >= here->group - groups) {
            here->copies[left++] = c;
            continue;
        }
        if (c.valid)
            memcpy(c.to, c.from, 16);
        else
            memset(c.to, 0, 16);
    }
    here->copies.resize(left);
}

static void load_matrices(uint32_t out[4], const void *row, bool transposed)
{
    const int lane = here->lane;
    if ((uintptr_t)row % 16) {
        fprintf(stderr, "emulation: a matrix row that is not aligned\n");
        abort();
    }
    nd_emulated_exchange(&row, sizeof row);
    for (int m = 0; m < 4; m++) {
        uint16_t element[2];
        for (int j = 0; j < 2; j++) {
            const int r = transposed ? 2 * (lane % 4) + j : lane / 4;
            const int c = transposed ? lane / 4 : 2 * (lane % 4) + j;
            const uint16_t *from;
            memcpy(&from, nd_emulated_deposit(m * 8 + r), sizeof from);
            element[j] = from[c];
        }
        out[m] = element[0] | (uint32_t)element[1] << 16;
    }
}

void nd_load_matrices(uint32_t out[4], const void *row)
{
    load_matrices(out, row, false);
}

void nd_load_matrices_transposed(uint32_t out[4], const void *row)
{
    load_matrices(out, row, true);
}

/* What a lane brings to a product: four words of the left fragment, two of the right. */
static const uint32_t *operands_of(int lane)
{
    return static_cast<const uint32_t *>(nd_emulated_deposit(lane));
}

/* Calls add(i, x, y) with the words of row and column of result i, as m16n8k16 and m16n8k32 lay
 * them out: word w of row r is left word r / 8 + w / 4 * 2 of lane r % 8 * 4 + w % 4. */
template <typename F>
static void multiply(const uint32_t a[4], uint32_t b0, uint32_t b1, const F &add)
{
    const uint32_t mine[6] = {a[0], a[1], a[2], a[3], b0, b1};
    const int lane = here->lane;
    nd_emulated_exchange(mine, sizeof mine);
    for (int word = 0; word < 8; word++) {
        const uint32_t *left = operands_of(lane / 4 * 4 + word % 4) + word / 4 * 2;
        for (int column = 0; column < 2; column++) {
            const int from = (lane % 4 * 2 + column) * 4 + word % 4;
            const uint32_t right = operands_of(from)[4 + word / 4];
            add(column, left[0], right);
            add(2 + column, left[1], right);
        }
    }
}

void nd_mma_bf16(float c[4], const uint32_t a[4], uint32_t b0, uint32_t b1)
{
    multiply(a, b0, b1, [&](int i, uint32_t x, uint32_t y) {
        c[i] += nd_float_of(x << 16) * nd_float_of(y << 16);
        c[i] += nd_float_of(x & 0xffff0000u) * nd_float_of(y & 0xffff0000u);
    });
}

void nd_mma_int8(int32_t c[4], const uint32_t a[4], uint32_t b0, uint32_t b1)
{
    multiply(a, b0, b1, [&](int i, uint32_t x, uint32_t y) {
        for (int byte = 0; byte < 4; byte++)
            c[i] += (int8_t)(x >> (8 * byte)) * (int8_t)(y >> (8 * byte));
    });
}

uint16_t nd_bf16_of(float x)
{
    return nd_bf16_from_float(x);
}
