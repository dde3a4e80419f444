/* Ternary codes with one fp16 scale, as ggml packs them (ggml-common.h, block_tq1_0, block_tq2_0
 * and block_q2_0; the order of weights is that of dequantize_row_* in ggml-quants.c). With w = c·d
 * for codes c in {-1, 0, 1} and d the block's scale, nothing is lost.
 *
 *   TQ2_0  256 weights, 66 bytes: 64 bytes of 2-bit digits c + 1, then d. Byte 32h + m holds
 *          weights 128h + m + 32n in bits 2n, n = 0..3.
 *   TQ1_0  256 weights, 54 bytes: 48 + 4 bytes of base-3 digits c + 1, then d. A byte holds five
 *          digits t0..t4, t0 first, as ceil(256 (81 t0 + 27 t1 + 9 t2 + 3 t3 + t4) / 243).
 *          Byte m < 32: weights m + 32n; byte 32 + m, m < 16: 160 + m + 16n; the last four bytes:
 *          240 + m + 4n, four digits and a 0.
 *   Q2_0   64 weights, 18 bytes: d, then 16 bytes of 2-bit digits c + 1, weight 4m + n in bits 2n
 *          of byte m. (A digit of 3 means 2d; it is never written here.) */
#pragma once

#include <stdint.h>

/* Encodes one block of ND_GGML_TQ1_0, ND_GGML_TQ2_0 or ND_GGML_Q2_0 from the codes of its weights.
 * `scale`: fp16 bits. */
void nd_ternary_block_encode(uint32_t type, const int8_t *codes, uint16_t scale, uint8_t *block);
