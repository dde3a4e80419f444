/* The op families, one file each, from which cpu_backend.c and fast.c build their tables. */
#pragma once

#include "core/backend/backend.h"

/* Each fills the slots of one op family. */
void nd_reference_fill_ternary(nd_backend_ops *ops);
void nd_reference_fill_int8(nd_backend_ops *ops);
void nd_reference_fill_rows(nd_backend_ops *ops);
void nd_reference_fill_swiglu(nd_backend_ops *ops);
void nd_reference_fill_attention(nd_backend_ops *ops);
void nd_reference_fill_loss(nd_backend_ops *ops);
void nd_reference_fill_updates(nd_backend_ops *ops);
void nd_reference_fill_state(nd_backend_ops *ops);

/* Each replaces the slots of one op family. */
void nd_fast_fill_products(nd_backend_ops *ops);
void nd_fast_fill_int8(nd_backend_ops *ops);
void nd_fast_fill_symmetric(nd_backend_ops *ops);
void nd_fast_fill_attention(nd_backend_ops *ops);
void nd_fast_fill_codes(nd_backend_ops *ops);
void nd_fast_fill_norms(nd_backend_ops *ops);
void nd_fast_fill_swiglu(nd_backend_ops *ops);
void nd_fast_fill_rope(nd_backend_ops *ops);
void nd_fast_fill_loss(nd_backend_ops *ops);
void nd_fast_fill_elementwise(nd_backend_ops *ops);
void nd_fast_fill_gather(nd_backend_ops *ops);
void nd_fast_fill_updates(nd_backend_ops *ops);
void nd_fast_fill_state(nd_backend_ops *ops);
