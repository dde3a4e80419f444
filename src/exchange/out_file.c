#include "exchange/out_file.h"

#include "core/base/durable_file.h"
#include "exchange/gguf.h"

#include <errno.h>
#include <limits.h>
#include <openssl/evp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum { BUFFER_BYTES = 1 << 20 };

struct nd_out_file {
    int file;           /* -1: closed */
    EVP_MD_CTX *digest; /* NULL before nd_out_file_start_digest */
    int64_t written;
    size_t buffered; /* bytes of `buffer` that are not in the file yet */
    char path[PATH_MAX], temporary[PATH_MAX], buffer[BUFFER_BYTES];
};

nd_status nd_out_file_create(const char *path, nd_out_file **out)
{
    *out = NULL;
    ND_TRY(nd_durable_check(path, NULL, NULL));
    ND_TRY(nd_durable_prepare(path));
    ND_FAIL_IF(strlen(path) >= PATH_MAX, ND_EIO, "%.80s...: the path is too long", path);
    nd_out_file *f = malloc(sizeof *f);
    ND_FAIL_IF(!f, ND_ENOMEM, "no memory to write %s", path);
    f->digest = NULL;
    f->written = 0;
    f->buffered = 0;
    strcpy(f->path, path);
    ND_RETURN_MADE(nd_temporary_create(path, f->temporary, &f->file), f, free, out);
}

static nd_status flush(nd_out_file *f)
{
    const size_t bytes = f->buffered;
    f->buffered = 0;
    return nd_file_write(f->file, f->path, f->buffer, bytes);
}

nd_status nd_out_file_write(nd_out_file *f, const void *bytes, size_t size)
{
    const char *from = bytes;
    for (size_t left = size; left > 0;) {
        const size_t room = BUFFER_BYTES - f->buffered, part = left < room ? left : room;
        memcpy(f->buffer + f->buffered, from + size - left, part);
        f->buffered += part;
        left -= part;
        if (f->buffered == BUFFER_BYTES)
            ND_TRY(flush(f));
    }
    ND_FAIL_IF(f->digest && EVP_DigestUpdate(f->digest, bytes, size) != 1, ND_EINTERNAL,
               "%s: SHA-256 failed in libcrypto", f->path);
    f->written += (int64_t)size;
    return ND_OK;
}

nd_status nd_out_file_pad(nd_out_file *f)
{
    static const char zeros[ND_GGUF_ALIGNMENT];
    return nd_out_file_write(f, zeros, -(size_t)f->written % ND_GGUF_ALIGNMENT);
}

nd_status nd_out_file_start_digest(nd_out_file *f)
{
    f->digest = EVP_MD_CTX_new();
    ND_FAIL_IF(!f->digest || EVP_DigestInit_ex(f->digest, EVP_sha256(), NULL) != 1, ND_EINTERNAL,
               "%s: SHA-256 failed in libcrypto", f->path);
    return ND_OK;
}

static nd_status write_digest(nd_out_file *f, int64_t offset)
{
    unsigned char digest[EVP_MAX_MD_SIZE];
    char hex[ND_SHA256_HEX_SIZE];
    if (!f->digest)
        return ND_OK;
    ND_FAIL_IF(EVP_DigestFinal_ex(f->digest, digest, NULL) != 1, ND_EINTERNAL,
               "%s: SHA-256 failed in libcrypto", f->path);
    nd_hex(digest, 32, hex);
    ND_FAIL_IF(lseek(f->file, offset, SEEK_SET) < 0, ND_EIO, "cannot write %s: %s", f->path,
               strerror(errno));
    return nd_file_write(f->file, f->path, hex, 64);
}

nd_status nd_out_file_finish(nd_out_file *f, int64_t digest_offset)
{
    nd_status status = flush(f);
    ND_IF_OK(write_digest(f, digest_offset));
    const int file = f->file;
    f->file = -1;
    if (close(file) != 0 && status == ND_OK)
        status = ND_FAIL(ND_EIO, "cannot write %s: %s", f->path, strerror(errno));
    ND_IF_OK(nd_durable_rename(f->temporary, f->path));
    nd_out_file_discard(f);
    return status;
}

void nd_out_file_discard(nd_out_file *f)
{
    if (!f)
        return;
    if (f->file >= 0)
        close(f->file);
    unlink(f->temporary);
    EVP_MD_CTX_free(f->digest);
    free(f);
}
