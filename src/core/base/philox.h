/* The rounds of Philox4x32-10, for the host, the CPU's vector loops and CUDA. core/base/rng.h names
 * the paper and defines key and counter. */
#pragma once

/* uint32_t variables: key k0, k1, low half first; counter c0 to c3, replaced by random words. */
#define ND_PHILOX(k0, k1, c0, c1, c2, c3)                                                          \
    for (int nd_round = 0; nd_round < 10; nd_round++) {                                            \
        const uint64_t nd_product0 = (uint64_t)0xD2511F53u * (c0);                                 \
        const uint64_t nd_product1 = (uint64_t)0xCD9E8D57u * (c2);                                 \
        (c0) = (uint32_t)(nd_product1 >> 32) ^ (c1) ^ (k0);                                        \
        (c2) = (uint32_t)(nd_product0 >> 32) ^ (c3) ^ (k1);                                        \
        (c1) = (uint32_t)nd_product1;                                                              \
        (c3) = (uint32_t)nd_product0;                                                              \
        (k0) += 0x9E3779B9u;                                                                       \
        (k1) += 0xBB67AE85u;                                                                       \
    }
