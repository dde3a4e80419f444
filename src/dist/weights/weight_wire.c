#include "dist/weights/weight_wire.h"

static size_t aligned(size_t bytes)
{
    return (bytes + 3) / 4 * 4;
}

static size_t codes_bytes(const nd_weight *w, nd_weight_sync format)
{
    const size_t count = (size_t)nd_view_count(nd_as_const(w->codes));
    return format == ND_WEIGHT_SYNC_FULL_BASE3 ? (count + 4) / 5 : (count + 3) / 4;
}

size_t nd_weight_wire_bytes(const nd_weight *w, nd_weight_sync format)
{
    if (!w->ternary)
        return aligned(nd_view_bytes(nd_as_const(w->dense)));
    return aligned(nd_view_bytes(nd_as_const(w->scales)) + codes_bytes(w, format));
}

nd_status nd_weight_wire_pack(nd_backend *b, const nd_weight *w, nd_weight_sync format, char *at)
{
    if (!w->ternary)
        return b->ops.copy(b, at, w->dense.data, nd_view_bytes(nd_as_const(w->dense)));
    const size_t scales = nd_view_bytes(nd_as_const(w->scales)), bytes = codes_bytes(w, format);
    const nd_view packed = nd_view_of(at + scales, ND_U8, 1, (int64_t)bytes);
    ND_TRY(b->ops.copy(b, at, w->scales.data, scales));
    if (format == ND_WEIGHT_SYNC_FULL && w->packed.data)
        return b->ops.copy(b, packed.data, w->packed.data, bytes);
    ND_TRY(nd_weight_unpack(b, w));
    return format == ND_WEIGHT_SYNC_FULL_BASE3
               ? b->ops.pack_trits(b, packed, nd_as_const(w->codes))
               : b->ops.pack_codes(b, packed, nd_as_const(w->codes));
}

nd_status nd_weight_wire_unpack(nd_backend *b, const nd_weight *w, nd_weight_sync format,
                                const char *at)
{
    if (!w->ternary)
        return b->ops.copy(b, w->dense.data, at, nd_view_bytes(nd_as_const(w->dense)));
    const size_t scales = nd_view_bytes(nd_as_const(w->scales)), bytes = codes_bytes(w, format);
    const nd_cview packed = nd_cview_of(at + scales, ND_U8, 1, (int64_t)bytes);
    ND_TRY(b->ops.copy(b, w->scales.data, at, scales));
    if (format == ND_WEIGHT_SYNC_FULL)
        return w->packed.data ? b->ops.copy(b, w->packed.data, packed.data, bytes)
                              : b->ops.unpack_codes(b, w->codes, packed);
    ND_TRY(b->ops.unpack_trits(b, w->codes, packed));
    return nd_weight_pack(b, w);
}

static int64_t blocks_of(int64_t count)
{
    return (count + ND_DELTA_BLOCK - 1) / ND_DELTA_BLOCK;
}

/* All scales, then all codes. */
size_t nd_weight_delta_bytes(const nd_weight *w)
{
    const int64_t count = nd_view_count(nd_as_const(w->dense));
    return aligned((size_t)blocks_of(count) * sizeof(float) + (size_t)count);
}

/* Elements [first, first + count) of a change at `at`. */
static nd_blocks blocks_at(const nd_weight *w, char *at, int64_t first, int64_t count)
{
    float *scales = (float *)at;
    char *codes = at + (size_t)blocks_of(nd_view_count(nd_as_const(w->dense))) * sizeof *scales;
    return (nd_blocks){.codes = nd_view_of(codes + first, ND_I8, 1, count),
                       .scales =
                           nd_view_of(scales + first / ND_DELTA_BLOCK, ND_F32, 1, blocks_of(count)),
                       .block = ND_DELTA_BLOCK,
                       .code = ND_BLOCK_LINEAR};
}

static nd_view part_of(nd_view v, int64_t first, int64_t count)
{
    return nd_view_of((char *)v.data + (size_t)first * nd_dtype_size(v.dtype), v.dtype, 1, count);
}

static nd_cview read_part(nd_cview v, int64_t first, int64_t count)
{
    return nd_cview_of((const char *)v.data + (size_t)first * nd_dtype_size(v.dtype), v.dtype, 1,
                       count);
}

nd_status nd_weight_delta_encode(nd_backend *b, const nd_weight *w, nd_cview master,
                                 nd_view scratch, char *at)
{
    const int64_t total = nd_view_count(master);
    for (int64_t first = 0; first < total; first += scratch.cols) {
        const int64_t count = total - first < scratch.cols ? total - first : scratch.cols;
        const nd_blocks q = blocks_at(w, at, first, count);
        const nd_view x = part_of(scratch, 0, count);
        ND_TRY(b->ops.axpby(b, x, 1.0f, read_part(master, first, count), 0.0f));
        ND_TRY(b->ops.axpby(b, x, -1.0f, nd_as_const(part_of(w->dense, first, count)), 1.0f));
        ND_TRY(b->ops.quantize_blocks(b, &q, nd_as_const(x)));
    }
    return ND_OK;
}

nd_status nd_weight_delta_apply(nd_backend *b, const nd_weight *w, nd_view scratch, char *at)
{
    const int64_t total = nd_view_count(nd_as_const(w->dense));
    for (int64_t first = 0; first < total; first += scratch.cols) {
        const int64_t count = total - first < scratch.cols ? total - first : scratch.cols;
        const nd_blocks q = blocks_at(w, at, first, count);
        const nd_view x = part_of(scratch, 0, count);
        ND_TRY(b->ops.dequantize_blocks(b, x, &q));
        ND_TRY(b->ops.axpby(b, part_of(w->dense, first, count), 1.0f, nd_as_const(x), 1.0f));
    }
    return ND_OK;
}
