/* GMAC (NIST SP 800-38D) as lower-case hex, through OpenSSL's libcrypto: AES-128-GCM's tag of bytes that are
 * authenticated and not encrypted, here with a key and a nonce of zeros. A 128-bit checksum against damage, not against
 * intent, several times as fast as SHA-256 where the CPU multiplies polynomials. */
#pragma once

#include "core/base/error.h"

#include <stddef.h>

enum { ND_GMAC_HEX_SIZE = 33 }; /* 32 digits and the terminator */

/* Of `size` bytes: 32 digits and a terminator. Errors: ND_EINTERNAL when the library fails. */
nd_status nd_gmac_hex(const void *bytes, size_t size, char hex[ND_GMAC_HEX_SIZE]);
