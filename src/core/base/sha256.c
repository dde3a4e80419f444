#include "core/base/sha256.h"

#include <openssl/evp.h>
#include <stdio.h>

nd_status nd_sha256_hex(const void *bytes, size_t size, char hex[ND_SHA256_HEX_SIZE])
{
    unsigned char digest[EVP_MAX_MD_SIZE];
    unsigned int length = 0;
    ND_FAIL_IF(EVP_Digest(bytes, size, digest, &length, EVP_sha256(), NULL) != 1 || length != 32,
               ND_EINTERNAL, "SHA-256 of %zu bytes failed in libcrypto", size);
    nd_hex(digest, length, hex);
    return ND_OK;
}

void nd_hex(const unsigned char *bytes, size_t count, char *hex)
{
    for (size_t i = 0; i < count; i++)
        snprintf(hex + 2 * i, 3, "%02x", bytes[i]);
}
