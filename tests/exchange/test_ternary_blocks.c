/* ggml's ternary blocks against their layout, written down here weight by weight. */
#include "exchange/ggml_types.h"
#include "exchange/ternary_blocks.h"
#include "exchange/ternary_decode.h"
#include "support/data_files.h"
#include "support/support.h"

#include <string.h>

enum { WEIGHTS_MAX = 256, BYTES_MAX = 66 };

static const uint32_t types[] = {ND_GGML_TQ1_0, ND_GGML_TQ2_0, ND_GGML_Q2_0};

static void random_codes(uint64_t seed, int8_t codes[WEIGHTS_MAX])
{
    for (int i = 0; i < WEIGHTS_MAX; i++)
        codes[i] = (int8_t)((int)nd_test_random(seed, (uint64_t)i, 3) - 1);
}

Test(ternary_blocks, decoding_gives_back_what_was_encoded)
{
    for (size_t t = 0; t < sizeof types / sizeof types[0]; t++) {
        const nd_ggml_type *type = nd_ggml_type_find(types[t]);
        for (uint64_t seed = 0; seed < 200; seed++) {
            int8_t codes[WEIGHTS_MAX], back[WEIGHTS_MAX];
            uint8_t block[BYTES_MAX];
            uint16_t scale = 0;
            const uint16_t wanted = (uint16_t)nd_test_random(seed, 1000, 0x7c00);
            random_codes(seed, codes);
            nd_ternary_block_encode(types[t], codes, wanted, block);
            cr_assert(decode_ternary_block(types[t], block, back, &scale));
            cr_assert_eq(memcmp(codes, back, type->block_weights), 0, "%s, seed %d", type->name,
                         (int)seed);
            cr_assert_eq(scale, wanted);
        }
    }
}

/* Places of single weights, by hand from block_tq2_0 and dequantize_row_tq2_0: two halves of 128
 * weights in 32 bytes each, four layers of 32 weights in a byte's pairs of bits. */
Test(ternary_blocks, a_weight_of_tq2_0_is_two_bits_of_the_byte_it_belongs_to)
{
    static const struct {
        int weight, byte, shift;
    } places[] = {{0, 0, 0},    {31, 31, 0},  {32, 0, 2},   {95, 31, 4},
                  {127, 31, 6}, {128, 32, 0}, {200, 40, 4}, {255, 63, 6}};
    for (size_t p = 0; p < sizeof places / sizeof places[0]; p++) {
        int8_t codes[WEIGHTS_MAX] = {0};
        uint8_t block[BYTES_MAX];
        codes[places[p].weight] = 1;
        nd_ternary_block_encode(ND_GGML_TQ2_0, codes, 0x3c00, block);
        for (int byte = 0; byte < 64; byte++) {
            const int zeros = 0x55;
            const int expected = byte == places[p].byte ? zeros + (1 << places[p].shift) : zeros;
            cr_assert_eq(block[byte], expected, "weight %d, byte %d: %02x", places[p].weight, byte,
                         block[byte]);
        }
        cr_assert_eq(block[64], 0x00);
        cr_assert_eq(block[65], 0x3c);
    }
}

/* ceil(256 v / 243) with v = 81 t0 + 27 t1 + 9 t2 + 3 t3 + t4, digits t = code + 1: all 1
 * is 121. */
Test(ternary_blocks, five_weights_of_tq1_0_are_the_digits_of_one_byte)
{
    static const struct {
        int weight, byte, value;
    } places[] = {{0, 0, 121 + 81},    {32, 0, 121 + 27},   {64, 0, 121 + 9},    {128, 0, 121 + 1},
                  {159, 31, 121 + 1},  {160, 32, 121 + 81}, {176, 32, 121 + 27}, {239, 47, 121 + 1},
                  {240, 48, 120 + 81}, {244, 48, 120 + 27}, {255, 51, 120 + 3}};
    for (size_t p = 0; p < sizeof places / sizeof places[0]; p++) {
        int8_t codes[WEIGHTS_MAX] = {0};
        uint8_t block[BYTES_MAX];
        codes[places[p].weight] = 1;
        nd_ternary_block_encode(ND_GGML_TQ1_0, codes, 0x3c00, block);
        for (int byte = 0; byte < 52; byte++) {
            const int zeros = byte < 48 ? 121 : 120;
            const int value = byte == places[p].byte ? places[p].value : zeros;
            cr_assert_eq(block[byte], (value * 256 + 242) / 243, "weight %d, byte %d",
                         places[p].weight, byte);
        }
        cr_assert_eq(block[53], 0x3c);
    }
}

Test(ternary_blocks, a_block_of_q2_0_has_its_scale_first_and_weights_in_order)
{
    int8_t codes[WEIGHTS_MAX] = {0};
    uint8_t block[BYTES_MAX];
    codes[0] = -1;
    codes[5] = 1;
    codes[63] = -1;
    nd_ternary_block_encode(ND_GGML_Q2_0, codes, 0x2e66, block);
    cr_assert_eq(block[0], 0x66);
    cr_assert_eq(block[1], 0x2e);
    cr_assert_eq(block[2], 0x54);
    cr_assert_eq(block[3], 0x59);
    cr_assert_eq(block[4], 0x55);
    cr_assert_eq(block[17], 0x15);
}

Test(ternary_blocks, a_digit_that_is_no_ternary_code_is_told)
{
    int8_t codes[WEIGHTS_MAX] = {0};
    uint8_t block[BYTES_MAX];
    uint16_t scale;
    nd_ternary_block_encode(ND_GGML_TQ2_0, codes, 0x3c00, block);
    block[7] |= 0x30;
    cr_assert_not(decode_ternary_block(ND_GGML_TQ2_0, block, codes, &scale));
    memset(codes, 0, sizeof codes);
    nd_ternary_block_encode(ND_GGML_Q2_0, codes, 0x3c00, block);
    block[9] |= 0x03;
    cr_assert_not(decode_ternary_block(ND_GGML_Q2_0, block, codes, &scale));
}
