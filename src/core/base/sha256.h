/* SHA-256 as lower-case hex, through OpenSSL's libcrypto. */
#pragma once

#include "core/base/error.h"

#include <stddef.h>

enum { ND_SHA256_HEX_SIZE = 65 }; /* 64 digits and the terminator */

/* The SHA-256 of `size` bytes. Errors: ND_EINTERNAL when the library fails. */
nd_status nd_sha256_hex(const void *bytes, size_t size, char hex[ND_SHA256_HEX_SIZE]);

/* Writes `count` bytes as lower-case hex with a terminator. */
void nd_hex(const unsigned char *bytes, size_t count, char *hex);
