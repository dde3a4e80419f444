#include "data/synthetic.h"

#include "core/base/rng.h"
#include "data/sample_order.h"

enum { TABLES_EPOCH = 0 };

nd_status nd_synthetic_open(nd_synthetic *chain, uint64_t seed, int64_t vocab_size)
{
    ND_FAIL_IF(vocab_size < ND_SYNTHETIC_SUCCESSORS, ND_ECONFIG,
               "vocab_size is %lld; synthetic data needs %d or more", (long long)vocab_size,
               ND_SYNTHETIC_SUCCESSORS);
    const int32_t alphabet =
        vocab_size < ND_SYNTHETIC_ALPHABET ? (int32_t)vocab_size : ND_SYNTHETIC_ALPHABET;
    chain->key = nd_rng_key(seed, "synthetic");
    chain->alphabet = alphabet;
    const uint64_t choice = nd_rng_key(seed, "synthetic successors");
    for (int32_t a = 0; a < alphabet; a++) {
        chain->tokens[a] = (int32_t)nd_sample_order(chain->key, TABLES_EPOCH, vocab_size, a);
        for (int32_t j = 0; j < ND_SYNTHETIC_SUCCESSORS; j++)
            chain->successors[a][j] =
                (uint8_t)nd_sample_order(choice, TABLES_EPOCH, alphabet, (a + j) % alphabet);
        chain->rotation[a] =
            (uint8_t)(nd_rng_philox(choice, 1, (uint64_t)a).word[0] % ND_SYNTHETIC_SUCCESSORS);
    }
    return ND_OK;
}

void nd_synthetic_window(const nd_synthetic *chain, int64_t index, int64_t count, int32_t *tokens)
{
    /* Eight equal parts as successors: 1/2, 1/4, 1/8, 1/8. */
    static const uint8_t successor_of_part[8] = {0, 0, 0, 0, 1, 1, 2, 3};
    nd_rng_block block = nd_rng_philox(chain->key, (uint64_t)index, 0);
    uint32_t before = block.word[0] % (uint32_t)chain->alphabet;
    uint32_t last = block.word[1] % (uint32_t)chain->alphabet;
    for (int64_t i = 0; i < count; i++) {
        const int64_t byte = i % 16;
        if (byte == 0)
            block = nd_rng_philox(chain->key, (uint64_t)index, 1 + (uint64_t)(i / 16));
        const uint32_t part = block.word[byte / 4] >> (8 * (byte % 4)) & 7;
        const uint32_t j =
            (successor_of_part[part] + chain->rotation[before]) % ND_SYNTHETIC_SUCCESSORS;
        const uint32_t next = chain->successors[last][j];
        tokens[i] = chain->tokens[next];
        before = last;
        last = next;
    }
}
