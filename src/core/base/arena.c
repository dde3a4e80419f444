#include "core/base/arena.h"

#include <string.h>

void nd_arena_start_sizing(nd_arena *arena, const char *name, nd_backend *backend)
{
    *arena = (nd_arena){.name = name, .backend = backend};
}

nd_status nd_arena_commit(nd_arena *arena)
{
    void *memory = NULL;
    if (arena->backend->ops.allocate(arena->backend, arena->used, &memory) != ND_OK) {
        nd_error_clear();
        return ND_FAIL(ND_ENOMEM, "no memory for %s: %zu bytes (%.2f GiB) wanted", arena->name,
                       arena->used, (double)arena->used / (1024.0 * 1024.0 * 1024.0));
    }
    arena->memory = memory;
    arena->size = arena->used;
    arena->used = 0;
    arena->committed = true;
    return ND_OK;
}

void nd_arena_release(nd_arena *arena)
{
    if (arena->memory)
        arena->backend->ops.release(arena->backend, arena->memory, arena->size);
    memset(arena, 0, sizeof *arena);
}

nd_status nd_arena_reserve(nd_arena *arena, nd_dtype dtype, int64_t rows, int64_t cols,
                           nd_view *view)
{
    size_t count, bytes, end;
    if (rows < 0 || cols < 0 || __builtin_mul_overflow((size_t)rows, (size_t)cols, &count) ||
        __builtin_mul_overflow(count, nd_dtype_size(dtype), &bytes) ||
        __builtin_add_overflow(
            arena->used, (bytes + ND_ARENA_ALIGN - 1) / ND_ARENA_ALIGN * ND_ARENA_ALIGN, &end) ||
        end > INT64_MAX)
        return ND_FAIL(ND_ENOMEM, "%s: a tensor of %lld x %lld %s is too large to count",
                       arena->name, (long long)rows, (long long)cols, nd_dtype_name(dtype));
    ND_FAIL_IF(arena->committed && end > arena->size, ND_EINTERNAL,
               "%s: %zu bytes reserved of %zu counted", arena->name, end, arena->size);
    *view = nd_view_of(arena->memory ? arena->memory + arena->used : NULL, dtype, rows, cols);
    arena->used = end;
    return ND_OK;
}
