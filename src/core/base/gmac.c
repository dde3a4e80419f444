#include "core/base/gmac.h"

#include "core/base/sha256.h"

#include <openssl/evp.h>
#include <stdbool.h>

static bool add(EVP_CIPHER_CTX *context, const unsigned char *bytes, size_t size)
{
    const size_t part_max = 1 << 30; /* lengths are int */
    int ignored;
    for (size_t done = 0; done < size;) {
        const size_t part = size - done < part_max ? size - done : part_max;
        if (EVP_EncryptUpdate(context, NULL, &ignored, bytes + done, (int)part) != 1)
            return false;
        done += part;
    }
    return true;
}

nd_status nd_gmac_hex(const void *bytes, size_t size, char hex[ND_GMAC_HEX_SIZE])
{
    static const unsigned char zeros[16] = {0};
    unsigned char tag[16], none[16];
    int ignored;
    EVP_CIPHER_CTX *context = EVP_CIPHER_CTX_new();
    const bool ok =
        context && EVP_EncryptInit_ex(context, EVP_aes_128_gcm(), NULL, zeros, zeros) == 1 &&
        add(context, bytes, size) && EVP_EncryptFinal_ex(context, none, &ignored) == 1 &&
        EVP_CIPHER_CTX_ctrl(context, EVP_CTRL_GCM_GET_TAG, sizeof tag, tag) == 1;
    EVP_CIPHER_CTX_free(context);
    ND_FAIL_IF(!ok, ND_EINTERNAL, "GMAC of %zu bytes failed in libcrypto", size);
    nd_hex(tag, sizeof tag, hex);
    return ND_OK;
}
