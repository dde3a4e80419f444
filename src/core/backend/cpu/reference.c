#include "core/backend/cpu/reference.h"

#include "core/backend/cpu/cpu_backend.h"

void nd_cpu_fill_reference(nd_backend_ops *ops)
{
    nd_reference_fill_ternary(ops);
    nd_reference_fill_int8(ops);
    nd_reference_fill_rows(ops);
    nd_reference_fill_swiglu(ops);
    nd_reference_fill_attention(ops);
    nd_reference_fill_loss(ops);
    nd_reference_fill_updates(ops);
    nd_reference_fill_state(ops);
}
