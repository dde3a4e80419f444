#include "core/base/sha256.h"

#include <openssl/evp.h>

nd_status nd_sha256_hex(const void *bytes, size_t size, char hex[ND_SHA256_HEX_SIZE])
{
    unsigned char digest[EVP_MAX_MD_SIZE];
    unsigned int length = 0;
    ND_FAIL_IF(EVP_Digest(bytes, size, digest, &length, EVP_sha256(), NULL) != 1 || length != 32,
               ND_EINTERNAL, "SHA-256 of %zu bytes failed in libcrypto", size);
    static const char digits[] = "0123456789abcdef";
    for (unsigned int i = 0; i < length; i++) {
        hex[2 * i] = digits[digest[i] >> 4];
        hex[2 * i + 1] = digits[digest[i] & 15];
    }
    hex[64] = '\0';
    return ND_OK;
}
