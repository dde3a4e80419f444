/* GMAC (NIST SP 800-38D) as lower-case hex, through OpenSSL's libcrypto: the tag of AES-128-GCM
 * over data that is authenticated but not encrypted, with a key and a nonce of zeros. A 128-bit
 * checksum against damage, not against tampering; several times as fast as SHA-256 on CPUs with
 * carry-less multiplication. */
#pragma once

#include "core/base/error.h"

#include <stddef.h>

enum { ND_GMAC_HEX_SIZE = 33 }; /* 32 digits and the terminator */

/* The GMAC of `size` bytes. Errors: ND_EINTERNAL when the library fails. */
nd_status nd_gmac_hex(const void *bytes, size_t size, char hex[ND_GMAC_HEX_SIZE]);
