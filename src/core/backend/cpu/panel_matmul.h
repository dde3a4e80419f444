/* Products of one thread in packed panels (panel_product.h), behind fast_matmul.h. */
#pragma once

#include "core/backend/cpu/fast_matmul.h"
#include "core/backend/cpu/panel_product.h"

/* Whether panels of `kind` (or NULL) compute this shape: with b packed and sums in 32 bits. */
bool nd_panel_matmul_covers(const nd_panel_kind *kind, const nd_matmul_shape *s);

/* The bytes of a packed b, and of what a thread needs to run. */
size_t nd_panel_matmul_packed_bytes(const nd_panel_kind *kind, const nd_matmul_shape *s);
size_t nd_panel_matmul_scratch_bytes(const nd_panel_kind *kind);

/* Packs panel `panel` of nd_panel_matmul_panels of b. */
int64_t nd_panel_matmul_panels(const nd_panel_kind *kind, const nd_matmul_shape *s);
void nd_panel_matmul_pack(const nd_panel_kind *kind, const nd_matmul_shape *s, const void *b,
                          void *packed, int64_t panel);

/* c (+)= op(a) b; `scratch` is aligned to 64. Each row of c has the same bits wherever it stands.
 */
void nd_panel_matmul_run(const nd_panel_kind *kind, const nd_matmul_shape *s, const void *a,
                         const void *packed, void *c, void *scratch);
