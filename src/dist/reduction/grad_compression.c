#include "dist/reduction/grad_compression.h"

#include "dist/reduction/float_compression.h"

/* Smaller reductions do not measure a link. */
static const double measured_bytes = 1e6;

static bool on_other_host(const nd_comm *comm, int peer)
{
    const int first = comm->rank - comm->local_rank;
    return peer < first || peer >= first + comm->local_size;
}

const void *nd_grad_compressor_encode(nd_grad_compressor *s, const nd_comm *comm, int peer,
                                      const void *values, bool hidden, void *scratch, size_t *bytes)
{
    const bool away = on_other_host(comm, peer);
    const bool pays = !hidden && s->rate > 0.0 && s->rate < ND_GRAD_COMPRESSION_BELOW;
    if (away)
        s->bytes += (double)*bytes;
    if (!away || (comm->grad_compression != ND_GRAD_COMPRESSION_ON &&
                  (comm->grad_compression != ND_GRAD_COMPRESSION_AUTO || !pays)))
        return values;
    const size_t shorter = nd_floats_compress(scratch, values, (int64_t)(*bytes / sizeof(float)));
    if (shorter == 0)
        return values;
    *bytes = shorter;
    return NULL;
}

nd_status nd_grad_decompress(const nd_comm_piece *piece, int slot, const void *part, size_t came,
                             size_t at, size_t bytes, bool add)
{
    float *into = piece->slots[slot] + at / sizeof *into;
    if (piece->format == ND_GRADIENT_WIRE_FP32 &&
        nd_floats_decompress(into, part, came, (int64_t)(bytes / sizeof *into), add))
        return ND_OK;
    return ND_FAIL(ND_EPEER, "%zu bytes of %s arrived, %zu were expected, or fewer when compressed",
                   came, piece->name ? piece->name : "a gradient", bytes);
}

void nd_grad_compressor_measure(nd_grad_compressor *s, double seconds)
{
    if (s->bytes >= measured_bytes && seconds > 0.0)
        s->rate = s->bytes / seconds;
    s->bytes = 0.0;
}
