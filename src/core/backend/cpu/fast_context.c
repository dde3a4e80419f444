#include "core/backend/cpu/fast_context.h"

#include <omp.h>
#include <stdlib.h>

nd_status nd_fast_grow(nd_fast_arena *arena, size_t bytes)
{
    if (bytes <= arena->bytes)
        return ND_OK;
    const size_t rounded = (bytes + 4095) / 4096 * 4096;
    free(arena->memory);
    arena->memory = aligned_alloc(64, rounded);
    arena->bytes = arena->memory ? rounded : 0;
    return ND_CHECK(arena->memory, ND_ENOMEM, "the workspace cannot grow to %zu bytes", rounded);
}

nd_status nd_fast_grow_private(nd_cpu_fast *fast, size_t bytes)
{
    for (int i = 0; i < fast->threads; i++)
        ND_TRY(nd_fast_grow(&fast->private[i], bytes));
    return ND_OK;
}

int nd_fast_thread(void)
{
    return omp_get_thread_num();
}

bool nd_fast_multiplies_bf16(const nd_cpu_fast *fast)
{
    return fast->isa >= ND_CPU_ISA_AVX512_BF16; /* oneDNN also emulates it on less, slowly */
}
