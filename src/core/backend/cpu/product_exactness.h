/* Whether oneDNN's products of 8-bit integers are exact on this CPU. Without VNNI it adds pairs of
 * products in int16, which saturates for two large factors. */
#pragma once

#include "core/backend/cpu/fast_context.h"

/* Multiplies matrices of the largest 8-bit values, in odd shapes and in every layout that the ops
 * use, compares every element with a plain sum, and sets fast->exact_ternary and fast->exact_int8.
 * Frees the memory it uses. Errors: ND_ENOMEM, ND_EINTERNAL when oneDNN refuses. */
nd_status nd_fast_check_products(nd_cpu_fast *fast);
