#include "core/backend/cpu/fast.h"

#include "core/backend/cpu/fast_matmul.h"
#include "core/backend/cpu/op_families.h"
#include "core/backend/cpu/panel_product.h"
#include "core/backend/cpu/product_exactness.h"

#include <omp.h>
#include <stdio.h>
#include <stdlib.h>

/* Floats in panels with AVX2 and AMX, and on ARM without SVE: elsewhere oneDNN's products of them
 * are faster. */
static void choose_panels(nd_cpu_fast *fast)
{
    switch (fast->isa) {
    case ND_CPU_ISA_AUTO:
    case ND_CPU_ISA_GENERIC:
        break;
    case ND_CPU_ISA_DOTPROD:
        fast->panels = nd_panel_kinds_dotprod();
        fast->float_panels = nd_panel_kinds_neon();
        break;
    case ND_CPU_ISA_AVX2:
        fast->panels = fast->float_panels = nd_panel_kinds_avx2();
        break;
    case ND_CPU_ISA_AVX2_VNNI:
        fast->panels = nd_panel_kinds_avx2_vnni();
        fast->float_panels = nd_panel_kinds_avx2();
        break;
    case ND_CPU_ISA_AVX512:
        fast->panels = nd_panel_kinds_avx512();
        break;
    case ND_CPU_ISA_AVX512_VNNI:
    case ND_CPU_ISA_AVX512_BF16:
        fast->panels = nd_panel_kinds_avx512_vnni();
        break;
    case ND_CPU_ISA_AMX:
        fast->panels = fast->float_panels = nd_panel_kinds_amx();
    }
}

static void fill(nd_backend_ops *ops)
{
    nd_fast_fill_products(ops);
    nd_fast_fill_int8(ops);
    nd_fast_fill_symmetric(ops);
    nd_fast_fill_attention(ops);
    nd_fast_fill_codes(ops);
    nd_fast_fill_norms(ops);
    nd_fast_fill_swiglu(ops);
    nd_fast_fill_rope(ops);
    nd_fast_fill_loss(ops);
    nd_fast_fill_elementwise(ops);
    nd_fast_fill_gather(ops);
    nd_fast_fill_updates(ops);
    nd_fast_fill_state(ops);
}

nd_status nd_cpu_fast_create(const nd_cpu_backend_options *options, nd_backend_ops *ops,
                             nd_cpu_fast **fast)
{
    nd_cpu_isa isa;
    ND_TRY(nd_cpu_isa_apply(options->isa, &isa));
    nd_cpu_fast *created = calloc(1, sizeof *created);
    ND_FAIL_IF(!created, ND_ENOMEM, "no memory for the CPU backend");
    created->reference = *ops;
    created->isa = isa;
    created->kernels = nd_fast_kernels_for(isa);
    choose_panels(created);
    created->most_threads = options->threads > 0 ? options->threads : omp_get_max_threads();
    created->threads = created->most_threads;
    created->private = calloc((size_t)created->threads, sizeof *created->private);
    nd_status status =
        ND_CHECK(created->private, ND_ENOMEM, "no memory for %d threads", created->threads);
    ND_IF_OK(nd_matmul_cache_create(
        created->threads, nd_panel_kind_of(created, &(nd_product){.a = {.dtype = ND_BF16}}),
        &created->matmuls));
    ND_IF_OK(nd_fast_check_products(created));
    if (status == ND_OK)
        fill(ops);
    ND_RETURN_MADE(status, created, nd_cpu_fast_destroy, fast);
}

void nd_cpu_fast_destroy(nd_cpu_fast *fast)
{
    if (!fast)
        return;
    nd_matmul_cache_destroy(fast->matmuls);
    for (int i = 0; fast->private && i < fast->most_threads; i++)
        free(fast->private[i].memory);
    free(fast->private);
    free(fast->shared.memory);
    free(fast->packed.memory);
    free(fast->floats.memory);
    free(fast->rope.memory);
    free(fast);
}

void nd_cpu_fast_describe(const nd_cpu_fast *fast, nd_backend_traits *traits)
{
    *traits =
        (nd_backend_traits){.fast_bf16 = nd_cpu_isa_gains_by_bf16(fast->isa),
                            /* oneDNN's integer products may be slower than its f32 ones. */
                            .fast_int8_gradients = fast->panels && fast->exact_ternary,
                            .exact_int8 = fast->exact_int8 && fast->isa >= ND_CPU_ISA_AVX512_VNNI};
    snprintf(traits->device, sizeof traits->device, "CPU with %s, %d thread%s%s",
             nd_cpu_isa_name(fast->isa), fast->threads, fast->threads == 1 ? "" : "s",
             !fast->exact_ternary ? "; integer products in f32, since oneDNN's are not exact"
             : !fast->exact_int8
                 ? "; products of 8-bit gradients in f32, since oneDNN's are not exact"
                 : "");
}

size_t nd_cpu_fast_workspace_bytes(const nd_cpu_fast *fast)
{
    size_t bytes = fast->shared.bytes + fast->packed.bytes + fast->floats.bytes + fast->rope.bytes +
                   nd_matmul_cache_bytes(fast->matmuls);
    for (int i = 0; i < fast->most_threads; i++)
        bytes += fast->private[i].bytes;
    return bytes;
}

int nd_cpu_fast_threads(const nd_cpu_fast *fast)
{
    return fast->most_threads;
}

void nd_cpu_fast_set_threads(nd_cpu_fast *fast, int threads)
{
    fast->threads = threads < 1 ? 1 : threads < fast->most_threads ? threads : fast->most_threads;
}
