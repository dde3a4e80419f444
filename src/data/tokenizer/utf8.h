/* UTF-8, one character at a time. */
#pragma once

#include <stddef.h>
#include <stdint.h>

/* Length of the character at `text` (1 to 4) and its code point; 0 when the bytes there are not a
 * whole, well-formed character (RFC 3629: no overlong forms, no surrogates, at most U+10FFFF). */
static inline size_t nd_utf8_decode(const char *text, size_t bytes, uint32_t *code)
{
    const unsigned char *c = (const unsigned char *)text;
    if (bytes > 0 && c[0] < 0x80) {
        *code = c[0];
        return 1;
    }
    if (bytes >= 2 && (c[0] & 0xe0) == 0xc0 && (c[1] & 0xc0) == 0x80) {
        *code = (uint32_t)(c[0] & 0x1f) << 6 | (c[1] & 0x3f);
        return *code >= 0x80 ? 2 : 0;
    }
    if (bytes >= 3 && (c[0] & 0xf0) == 0xe0 && (c[1] & 0xc0) == 0x80 && (c[2] & 0xc0) == 0x80) {
        *code = (uint32_t)(c[0] & 0x0f) << 12 | (uint32_t)(c[1] & 0x3f) << 6 | (c[2] & 0x3f);
        return *code >= 0x800 && (*code < 0xd800 || *code > 0xdfff) ? 3 : 0;
    }
    if (bytes >= 4 && (c[0] & 0xf8) == 0xf0 && (c[1] & 0xc0) == 0x80 && (c[2] & 0xc0) == 0x80 &&
        (c[3] & 0xc0) == 0x80) {
        *code = (uint32_t)(c[0] & 0x07) << 18 | (uint32_t)(c[1] & 0x3f) << 12 |
                (uint32_t)(c[2] & 0x3f) << 6 | (c[3] & 0x3f);
        return *code >= 0x10000 && *code <= 0x10ffff ? 4 : 0;
    }
    return 0;
}
