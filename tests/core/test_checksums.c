/* Checksums of tensors: standard ones, beside known answers and a reference. */
#include "core/base/gmac.h"
#include "core/base/sha256.h"
#include "support/support.h"

#include <stdint.h>
#include <stdio.h>
#include <string.h>

Test(checksums, sha256_of_abc_is_that_of_fips_180)
{
    char hex[ND_SHA256_HEX_SIZE];
    ND_ASSERT_OK(nd_sha256_hex("abc", 3, hex));
    cr_assert_str_eq(hex, "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad");
}

/* x = x h in the field of SP 800-38D, section 6.3, bit by bit. */
static void multiply(unsigned char x[16], const unsigned char h[16])
{
    unsigned char z[16] = {0}, v[16];
    memcpy(v, h, sizeof v);
    for (int bit = 0; bit < 128; bit++) {
        if (x[bit / 8] >> (7 - bit % 8) & 1)
            for (int i = 0; i < 16; i++)
                z[i] ^= v[i];
        const int last = v[15] & 1;
        for (int i = 15; i > 0; i--)
            v[i] = (unsigned char)(v[i] >> 1 | v[i - 1] << 7);
        v[0] = (unsigned char)(v[0] >> 1);
        v[0] ^= last ? 0xe1 : 0;
    }
    memcpy(x, z, sizeof z);
}

/* Under a key and a nonce of zeros: H and E(K, Y0) of the specification's test cases 1 and 2. */
static void reference(const unsigned char *bytes, size_t size, char hex[ND_GMAC_HEX_SIZE])
{
    static const unsigned char h[16] = {0x66, 0xe9, 0x4b, 0xd4, 0xef, 0x8a, 0x2c, 0x3b,
                                        0x88, 0x4c, 0xfa, 0x59, 0xca, 0x34, 0x2b, 0x2e};
    static const unsigned char mask[16] = {0x58, 0xe2, 0xfc, 0xce, 0xfa, 0x7e, 0x30, 0x61,
                                           0x36, 0x7f, 0x1d, 0x57, 0xa4, 0xe7, 0x45, 0x5a};
    unsigned char x[16] = {0};
    for (size_t at = 0; at < size; at += 16) {
        for (size_t i = at; i < size && i < at + 16; i++)
            x[i - at] ^= bytes[i];
        multiply(x, h);
    }
    for (int i = 0; i < 8; i++)
        x[i] ^= (unsigned char)((uint64_t)(8 * size) >> (56 - 8 * i));
    multiply(x, h);
    for (int i = 0; i < 16; i++)
        snprintf(hex + 2 * i, 3, "%02x", x[i] ^ mask[i]);
}

Test(checksums, gmac_is_that_of_the_specification_for_any_length)
{
    static const size_t sizes[] = {0, 1, 15, 16, 17, 255, 4096, 10007};
    static unsigned char bytes[10007];
    char hex[ND_GMAC_HEX_SIZE], expected[ND_GMAC_HEX_SIZE];
    for (size_t i = 0; i < sizeof bytes; i++)
        bytes[i] = (unsigned char)(i * 2654435761U >> 13);
    for (size_t i = 0; i < sizeof sizes / sizeof *sizes; i++) {
        ND_ASSERT_OK(nd_gmac_hex(bytes, sizes[i], hex));
        reference(bytes, sizes[i], expected);
        cr_assert_str_eq(hex, expected, "%zu bytes: %s, expected %s", sizes[i], hex, expected);
    }
}
