#include "core/backend/row_kernels.h"

#include "core/backend/cpu/fast_kernels.h"

nd_row_kernels nd_row_kernels_in_force(void)
{
    const nd_fast_kernels *k = nd_fast_kernels_in_force();
    return (nd_row_kernels){.load_bf16 = k->load_bf16,
                            .store_bf16 = k->store_bf16,
                            .load_i8 = k->load_i8,
                            .quantize = k->quantize,
                            .add = k->add,
                            .axpby = k->axpby,
                            .max_magnitude = k->max_magnitude,
                            .compress_floats = k->compress_floats,
                            .decompress_floats = k->decompress_floats};
}
