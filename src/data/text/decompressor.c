#include "data/text/decompressor.h"

#include <limits.h>
#include <stdint.h>
#include <stdlib.h>
#include <zlib.h>
#include <zstd.h>

enum {
    GZIP_WINDOW = 15 + 16, /* for zlib: the largest window, with a gzip header */
    ZSTD_WINDOW_LOG = 31   /* accepts `zstd --ultra --long=31` */
};

struct nd_decompressor {
    bool is_zstd, inside;
    z_stream gzip;
    ZSTD_DCtx *zstd;
};

/* Magic numbers of RFC 1952 and RFC 8878; a zstd file may begin with a skippable frame. */
static bool is_gzip(const uint8_t *c, size_t bytes)
{
    return bytes >= 3 && c[0] == 0x1f && c[1] == 0x8b && c[2] == 8;
}

static bool is_zstd(const uint8_t *c, size_t bytes)
{
    return bytes >= 4 && ((c[0] == 0x28 && c[1] == 0xb5 && c[2] == 0x2f && c[3] == 0xfd) ||
                          ((c[0] & 0xf0) == 0x50 && c[1] == 0x2a && c[2] == 0x4d && c[3] == 0x18));
}

nd_status nd_decompressor_open(const void *first, size_t bytes, const char *name,
                               nd_decompressor **decompressor)
{
    const bool zstd = is_zstd(first, bytes);
    *decompressor = NULL;
    if (!zstd && !is_gzip(first, bytes))
        return ND_OK;
    nd_decompressor *d = calloc(1, sizeof *d);
    ND_FAIL_IF(!d, ND_ENOMEM, "%s: no memory to decompress it", name);
    d->is_zstd = zstd;
    d->zstd = zstd ? ZSTD_createDCtx() : NULL;
    const bool ok = zstd ? d->zstd && !ZSTD_isError(ZSTD_DCtx_setParameter(
                                          d->zstd, ZSTD_d_windowLogMax, ZSTD_WINDOW_LOG))
                         : inflateInit2(&d->gzip, GZIP_WINDOW) == Z_OK;
    ND_RETURN_MADE(ND_CHECK(ok, ND_ENOMEM, "%s: no memory to decompress it", name), d,
                   nd_decompressor_close, decompressor);
}

void nd_decompressor_close(nd_decompressor *decompressor)
{
    if (!decompressor)
        return;
    if (decompressor->is_zstd)
        ZSTD_freeDCtx(decompressor->zstd);
    else
        inflateEnd(&decompressor->gzip);
    free(decompressor);
}

bool nd_decompressor_is_inside(const nd_decompressor *decompressor)
{
    return decompressor->inside;
}

static nd_status damaged(const char *name, const char *format, const char *reason)
{
    return ND_FAIL(ND_EDATA, "%s: its %s data is damaged: %s", name, format,
                   reason ? reason : "no reason given");
}

static nd_status run_zstd(nd_decompressor *d, const char *name, ZSTD_inBuffer *in,
                          ZSTD_outBuffer *out)
{
    const size_t left = ZSTD_decompressStream(d->zstd, out, in);
    if (ZSTD_isError(left))
        return damaged(name, "zstd", ZSTD_getErrorName(left));
    d->inside = left != 0;
    return ND_OK;
}

/* Skips zeros between members: padding of tapes. */
static nd_status run_gzip(nd_decompressor *d, const char *name, ZSTD_inBuffer *in,
                          ZSTD_outBuffer *out)
{
    const uint8_t *from = in->src;
    while (!d->inside && in->pos < in->size && from[in->pos] == 0)
        in->pos++;
    if (!d->inside && in->pos == in->size)
        return ND_OK;
    if (!d->inside && inflateReset(&d->gzip) != Z_OK)
        return damaged(name, "gzip", d->gzip.msg);
    d->inside = true;
    const size_t bytes = in->size - in->pos < UINT_MAX ? in->size - in->pos : UINT_MAX;
    const size_t size = out->size < UINT_MAX ? out->size : UINT_MAX;
    d->gzip.next_in = (uint8_t *)(uintptr_t)(from + in->pos);
    d->gzip.avail_in = (unsigned)bytes;
    d->gzip.next_out = out->dst;
    d->gzip.avail_out = (unsigned)size;
    const int result = inflate(&d->gzip, Z_NO_FLUSH);
    if (result != Z_OK && result != Z_STREAM_END && result != Z_BUF_ERROR)
        return damaged(name, "gzip", d->gzip.msg);
    d->inside = result != Z_STREAM_END;
    in->pos += bytes - d->gzip.avail_in;
    out->pos = size - d->gzip.avail_out;
    return ND_OK;
}

nd_status nd_decompressor_run(nd_decompressor *decompressor, const char *name, const void *from,
                              size_t bytes, size_t *consumed, void *buffer, size_t size,
                              size_t *produced)
{
    ZSTD_inBuffer in = {from, bytes, 0};
    ZSTD_outBuffer out = {buffer, size, 0};
    const nd_status status = decompressor->is_zstd ? run_zstd(decompressor, name, &in, &out)
                                                   : run_gzip(decompressor, name, &in, &out);
    *consumed = in.pos;
    *produced = out.pos;
    return status;
}
