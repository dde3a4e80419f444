/* Arenas: memory reserved at start-up, by category. The names are the categories of the memory
 * report.
 *
 * A layout function reserves views in an arena. It runs twice: in a sizing pass, which only counts,
 * and after nd_arena_commit over real memory. So a plan made without a device and the run itself
 * agree by construction. */
#pragma once

#include "core/backend/backend.h"

enum { ND_ARENA_ALIGN = 64 }; /* bytes */

typedef struct nd_arena {
    const char *name;    /* "activations", ... */
    nd_backend *backend; /* whose memory it is */
    char *memory;        /* NULL while sizing */
    size_t size;         /* bytes of memory */
    size_t used;         /* bytes reserved or counted so far */
    bool committed;
} nd_arena;

/* Starts a sizing pass of an arena without memory. `name` and `backend` must outlive the arena. */
void nd_arena_start_sizing(nd_arena *arena, const char *name, nd_backend *backend);

/* Allocates the counted bytes and restarts the layout. Errors: ND_ENOMEM naming arena and bytes. */
nd_status nd_arena_commit(nd_arena *arena);

/* Frees the memory, which invalidates all views. The arena is then empty. */
void nd_arena_release(nd_arena *arena);

/* Reserves the next view [rows, cols], zeroed and aligned to ND_ARENA_ALIGN; its data is NULL while
 * sizing. The arena owns the memory. Errors: ND_EINTERNAL when more is reserved than was counted,
 * ND_ENOMEM when the size overflows. */
nd_status nd_arena_reserve(nd_arena *arena, nd_dtype dtype, int64_t rows, int64_t cols,
                           nd_view *view);
