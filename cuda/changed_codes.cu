/* Entries of a code stream without atomics: prefix sums determine the place of a byte and what it
 * changes. Three steps: within tiles, one block each; over tiles, one block; within tiles again. */
#include "floats.cuh"

extern "C" {
#include "core/model/params.h"
}

#include "changed_codes.h"

#include <stdio.h>

static_assert((int)ND_FAULT_NAME == (int)ND_PARAM_NAME_MAX, "a fault names a tensor");

namespace
{

/* Codes, or bytes, per thread and per tile. */
enum { THREADS = 256, WARPS = THREADS / 32, EACH = 16, TILE = THREADS * EACH };
/* As in dist/weights/changed_codes.c. */
enum { SKIP = 127, SECOND = 128 };
enum { LENGTH_BYTES = 4, HEAD_BYTES = 64, BLOCKS_MAX = 2048 };

/* Results of the second step for the third. */
struct entry_head {
    uint64_t codes; /* their start in the stream, changes or all codes */
    int64_t bytes;
    int32_t whole, damaged;
};
static_assert(sizeof(entry_head) <= HEAD_BYTES, "tiles come behind it");

/* Encoding: a tile of codes. Positions within a tile are relative to its start. */
struct encode_tile {
    int64_t previous; /* the last change before this tile, -1: none */
    int64_t offset;   /* its first byte */
    int32_t first, last;
    int32_t rest; /* bytes of its changes except the first */
};

/* Decoding: a tile of bytes of changes. */
struct decode_tile {
    int64_t from;    /* the code at its first byte */
    int32_t advance; /* codes that it passes */
    int32_t last;    /* the last code it changes, relative to `from`; -1: none */
};

template <typename T> struct sum {
    static const int none = 0;
    __device__ static __forceinline__ T of(T a, T b) { return a + b; }
};

template <typename T> struct largest {
    static const int none = -1;
    __device__ static __forceinline__ T of(T a, T b) { return a > b ? a : b; }
};

/* Scan over the values of preceding threads; *all: over the whole block. */
template <template <typename> class OP, typename T>
__device__ __forceinline__ T scan(T value, T *all)
{
    __shared__ T of_warps[WARPS];
    const int lane = (int)threadIdx.x % 32, warp = (int)threadIdx.x / 32;
    T through = value, before = OP<T>::none;
    ND_UNROLL
    for (int offset = 1; offset < 32; offset <<= 1) {
        const T other = __shfl_sync(0xffffffffu, through, lane - offset);
        if (lane >= offset)
            through = OP<T>::of(other, through);
    }
    const T left = __shfl_sync(0xffffffffu, through, lane - 1);
    __syncthreads(); /* the previous call's values have been read */
    if (lane == 31)
        of_warps[warp] = through;
    __syncthreads();
    *all = OP<T>::none;
    ND_UNROLL
    for (int w = 0; w < WARPS; w++) {
        if (w == warp)
            before = *all;
        *all = OP<T>::of(*all, of_warps[w]);
    }
    return lane > 0 ? OP<T>::of(before, left) : before;
}

/* Bit sets of a thread's codes: those that change, and those that become the second other value. */
struct changes {
    uint32_t any, second;
};

__device__ __forceinline__ void load_codes(uint32_t words[EACH / 4], const int8_t *codes,
                                           int64_t first, int64_t count, bool wide)
{
    ND_UNROLL
    for (int i = 0; i < EACH / 4; i++)
        words[i] = 0;
    if (wide && first + EACH <= count) {
        const uint4 all = *reinterpret_cast<const uint4 *>(codes + first);
        words[0] = all.x, words[1] = all.y, words[2] = all.z, words[3] = all.w;
        return;
    }
    ND_UNROLL
    for (int j = 0; j < EACH; j++)
        if (first + j < count)
            words[j / 4] |= (uint32_t)(uint8_t)codes[first + j] << (8 * (j % 4));
}

__device__ __forceinline__ changes compare(const int8_t *before, const int8_t *now, int64_t first,
                                           int64_t count, bool wide)
{
    uint32_t x[EACH / 4], y[EACH / 4];
    changes c = {0, 0};
    load_codes(x, before, first, count, wide);
    load_codes(y, now, first, count, wide);
    ND_UNROLL
    for (int j = 0; j < EACH; j++) {
        const int shift = 8 * (j % 4);
        const int was = (int8_t)(x[j / 4] >> shift & 0xffu);
        const int is = (int8_t)(y[j / 4] >> shift & 0xffu);
        c.any |= (uint32_t)(is != was) << j;
        c.second |= (uint32_t)((is - was + 3) % 3 == 2) << j;
    }
    return c;
}

/* The last changed code, the thread's codes beginning at `start`. */
__device__ __forceinline__ int last_of(changes c, int start)
{
    int last = -1;
    ND_UNROLL
    for (int j = 0; j < EACH; j++)
        if (c.any >> j & 1u)
            last = start + j;
    return last;
}

/* Bytes of a thread's changes after the tile's change `previous`; -1: without the first. */
__device__ __forceinline__ int bytes_of(changes c, int start, int previous)
{
    int bytes = 0;
    ND_UNROLL
    for (int j = 0; j < EACH; j++) {
        if (!(c.any >> j & 1u))
            continue;
        if (previous >= 0)
            bytes += (start + j - previous - 1) / SKIP + 1;
        previous = start + j;
    }
    return bytes;
}

__global__ void measure_kernel(encode_tile *tiles, const int8_t *before, const int8_t *now,
                               int64_t count, bool wide)
{
    const int start = (int)threadIdx.x * EACH;
    const changes c = compare(before, now, (int64_t)blockIdx.x * TILE + start, count, wide);
    encode_tile *tile = tiles + blockIdx.x;
    int last, rest;
    const int previous = scan<largest>(last_of(c, start), &last);
    scan<sum>(bytes_of(c, start, previous), &rest);
    if (previous < 0 && c.any != 0) {
        int first = 0;
        while (!(c.any >> first & 1u))
            first++;
        tile->first = start + first;
    }
    if (threadIdx.x == 0) {
        tile->last = last;
        tile->rest = rest;
    }
}

/* Bytes of the first change of tile `index`. */
__device__ __forceinline__ int64_t leading_bytes(const encode_tile *tile, int64_t index,
                                                 int64_t previous)
{
    return (index * TILE + tile->first - previous - 1) / SKIP + 1;
}

/* One block. tile_count 0: all codes are sent. */
__global__ void place_kernel(entry_head *head, encode_tile *tiles, int64_t tile_count,
                             uint8_t *stream, uint64_t *at, int64_t scale_bytes, int64_t capacity)
{
    int64_t used = 0, last = -1;
    for (int64_t base = 0; base < tile_count; base += THREADS) {
        const int64_t i = base + threadIdx.x;
        encode_tile *tile = tiles + i;
        const bool some = i < tile_count && tile->last >= 0;
        int64_t last_here, used_here;
        int64_t previous = scan<largest>(some ? i * TILE + tile->last : (int64_t)-1, &last_here);
        previous = previous > last ? previous : last;
        const int64_t bytes = some ? leading_bytes(tile, i, previous) + tile->rest : 0;
        const int64_t offset = used + scan<sum>(bytes, &used_here);
        if (some) {
            tile->previous = previous;
            tile->offset = offset;
        }
        used += used_here;
        last = last_here > last ? last_here : last;
    }
    if (threadIdx.x > 0)
        return;
    const bool whole = tile_count == 0 || used > capacity;
    const uint32_t length = whole ? ND_CODES_WHOLE : (uint32_t)used;
    uint8_t *to = stream + *at + scale_bytes;
    for (int i = 0; i < LENGTH_BYTES; i++)
        to[i] = (uint8_t)(length >> (8 * i));
    head->codes = *at + (uint64_t)(scale_bytes + LENGTH_BYTES);
    head->bytes = whole ? capacity : used;
    head->whole = whole;
    *at = head->codes + (uint64_t)head->bytes;
}

__device__ __forceinline__ void copy_bytes(uint8_t *to, const uint8_t *from, int64_t bytes)
{
    ND_GRID_LOOP(i, bytes)
        to[i] = from[i];
}

/* Like the kernels of codes.cu, for bytes at any address. */
__device__ __forceinline__ void pack_all(uint8_t *packed, const int8_t *codes, int64_t count,
                                         int64_t bytes)
{
    ND_GRID_LOOP(j, bytes) {
        int value = 0, power = 1;
        for (int64_t i = j; i < count; i += bytes, power *= 3)
            value += power * (codes[i] + 1);
        packed[j] = (uint8_t)value;
    }
}

__device__ __forceinline__ void unpack_all(int8_t *codes, const uint8_t *packed, int64_t count,
                                           int64_t bytes)
{
    ND_GRID_LOOP(j, bytes) {
        int value = packed[j];
        for (int64_t i = j; i < count; i += bytes, value /= 3)
            codes[i] = (int8_t)(value % 3 - 1);
    }
}

/* Writes the changes of this block's tile. Only its first change may follow long runs of skips,
 * which the block writes together. */
__device__ __forceinline__ void write_tile(uint8_t *out, const encode_tile *tile,
                                           const int8_t *before, const int8_t *now, int64_t count,
                                           bool wide)
{
    const int64_t index = blockIdx.x, base = index * TILE;
    const int start = (int)threadIdx.x * EACH;
    const changes c = compare(before, now, base + start, count, wide);
    const int64_t lead = leading_bytes(tile, index, tile->previous);
    int unused;
    int previous = scan<largest>(last_of(c, start), &unused);
    const int rest = scan<sum>(bytes_of(c, start, previous), &unused);
    out += tile->offset;
    for (int64_t i = threadIdx.x; i < lead - 1; i += THREADS)
        out[i] = SKIP;
    uint8_t *to = out + lead + rest;
    for (int j = 0; j < EACH; j++) {
        if (!(c.any >> j & 1u))
            continue;
        const int turn = c.second >> j & 1u ? SECOND : 0;
        if (previous < 0) {
            const int64_t stay = base + start + j - tile->previous - 1;
            out[lead - 1] = (uint8_t)(stay % SKIP + turn);
        } else {
            int stay = start + j - previous - 1;
            for (; stay >= SKIP; stay -= SKIP)
                *to++ = SKIP;
            *to++ = (uint8_t)(stay + turn);
        }
        previous = start + j;
    }
}

__global__ void write_kernel(uint8_t *stream, const entry_head *head, const encode_tile *tiles,
                             const int8_t *before, const int8_t *now, int64_t count,
                             const uint8_t *scales, int64_t scale_bytes, bool wide)
{
    uint8_t *codes = stream + head->codes;
    copy_bytes(codes - LENGTH_BYTES - scale_bytes, scales, scale_bytes);
    if (head->whole)
        pack_all(codes, now, count, head->bytes);
    else if (tiles[blockIdx.x].last >= 0)
        write_tile(codes, tiles + blockIdx.x, before, now, count, wide);
}

/* What the host knows about an entry. */
struct expected {
    const uint8_t *stream;
    uint64_t end;
    int64_t scale_bytes, count, all; /* all: bytes of all codes, packed */
};

/* Returns false if it is truncated or follows a damaged one. */
__device__ __forceinline__ bool find_codes(const expected *e, uint64_t at, entry_head *head)
{
    const uint64_t left = at <= e->end ? e->end - at : 0;
    const uint64_t before = (uint64_t)e->scale_bytes + LENGTH_BYTES;
    uint32_t length = 0;
    if (left < before)
        return false;
    for (int i = 0; i < LENGTH_BYTES; i++)
        length |= (uint32_t)e->stream[at + (uint64_t)(e->scale_bytes + i)] << (8 * i);
    head->codes = at + before;
    head->whole = length == ND_CODES_WHOLE;
    head->bytes = head->whole ? e->all : (int64_t)length;
    head->damaged = 0;
    return left >= before + (uint64_t)head->bytes;
}

/* The codes that a thread's bytes pass, and the last one they change. */
struct passage {
    int advance, last;
};

__device__ __forceinline__ passage read_bytes(const uint8_t *in, int64_t first, int64_t bytes)
{
    passage p = {0, -1};
    for (int j = 0; j < EACH && first + j < bytes; j++) {
        const int stay = in[first + j] % SECOND;
        p.advance += stay;
        if (stay < SKIP)
            p.last = p.advance++;
    }
    return p;
}

__global__ void advance_kernel(decode_tile *tiles, expected e, const uint64_t *at)
{
    entry_head head = {0, 0, 0, 0};
    if (!find_codes(&e, *at, &head) || head.whole)
        return;
    for (int64_t tile = blockIdx.x; tile * TILE < head.bytes; tile += gridDim.x) {
        const passage p = read_bytes(e.stream + head.codes,
                                     tile * TILE + (int64_t)threadIdx.x * EACH, head.bytes);
        int advance, last;
        const int from = scan<sum>(p.advance, &advance);
        scan<largest>(p.last < 0 ? -1 : from + p.last, &last);
        if (threadIdx.x == 0) {
            tiles[tile].advance = advance;
            tiles[tile].last = last;
        }
    }
}

/* The first change beyond the last code, in tile `tile`. */
__device__ __forceinline__ int64_t bad_change(const expected *e, const entry_head *head,
                                              const decode_tile *tiles, int64_t tile)
{
    const uint8_t *in = e->stream + head->codes;
    int64_t code = tiles[tile].from;
    for (int64_t i = tile * TILE; i < head->bytes; i++) {
        const int stay = in[i] % SECOND;
        code += stay;
        if (stay == SKIP)
            continue;
        if (code >= e->count)
            break;
        code++;
    }
    return code;
}

__device__ __forceinline__ void set_fault(nd_cuda_fault *fault, int kind, int64_t position,
                                          int64_t limit, const nd_fault_name *name)
{
    if (fault->kind != ND_FAULT_NONE)
        return;
    fault->position = position;
    fault->limit = limit;
    fault->name = *name;
    fault->kind = kind;
}

/* One block. */
__global__ void check_kernel(entry_head *out, decode_tile *tiles, expected e, uint64_t *at,
                             nd_cuda_fault *fault, nd_fault_name name)
{
    entry_head head = {0, 0, 0, 0};
    const uint64_t start = *at;
    const bool found = find_codes(&e, start, &head);
    const int64_t n = found && !head.whole ? (head.bytes + TILE - 1) / TILE : 0;
    int64_t reached = 0, bad = -1; /* bad: the first tile that exceeds the codes */
    for (int64_t base = 0; base < n && bad < 0; base += THREADS) {
        const int64_t i = base + threadIdx.x;
        const bool some = i < n;
        int64_t passed, farthest;
        const int64_t from =
            reached + scan<sum>(some ? (int64_t)tiles[i].advance : (int64_t)0, &passed);
        const bool beyond = some && tiles[i].last >= 0 && from + tiles[i].last >= e.count;
        scan<largest>(beyond ? n - i : (int64_t)-1, &farthest);
        if (some)
            tiles[i].from = from;
        reached += passed;
        bad = farthest < 0 ? -1 : n - farthest;
    }
    __syncthreads(); /* all threads have read *at, and `from` is written */
    if (threadIdx.x > 0)
        return;
    head.damaged = !found || bad >= 0;
    *out = head;
    *at = head.damaged ? ND_CODES_DAMAGED : head.codes + (uint64_t)head.bytes;
    if (bad >= 0)
        set_fault(fault, ND_FAULT_CHANGE, bad_change(&e, &head, tiles, bad), e.count, &name);
    else if (!found && start != ND_CODES_DAMAGED)
        set_fault(fault, ND_FAULT_CUT, 0, 0, &name);
}

__global__ void apply_kernel(int8_t *codes, uint8_t *scales, const entry_head *head,
                             const decode_tile *tiles, expected e)
{
    if (head->damaged)
        return;
    const uint8_t *in = e.stream + head->codes;
    const int64_t bytes = head->bytes;
    copy_bytes(scales, in - LENGTH_BYTES - e.scale_bytes, e.scale_bytes);
    if (head->whole) {
        unpack_all(codes, in, e.count, bytes);
        return;
    }
    for (int64_t tile = blockIdx.x; tile * TILE < bytes; tile += gridDim.x) {
        const int64_t first = tile * TILE + (int64_t)threadIdx.x * EACH;
        int unused;
        int64_t code = tiles[tile].from + scan<sum>(read_bytes(in, first, bytes).advance, &unused);
        for (int j = 0; j < EACH && first + j < bytes; j++) {
            const int stay = in[first + j] % SECOND;
            code += stay;
            if (stay == SKIP)
                continue;
            codes[code] = (int8_t)((codes[code] + 2 + in[first + j] / SECOND) % 3 - 1);
            code++;
        }
    }
}

size_t work_bytes(int64_t codes, int64_t stream)
{
    const size_t make = (size_t)nd_ceil(codes, TILE) * sizeof(encode_tile);
    const size_t take = (size_t)nd_ceil(stream, TILE) * sizeof(decode_tile);
    return HEAD_BYTES + (make > take ? make : take);
}

nd_status encode(nd_backend *b, const nd_code_entry *entry, const int8_t *before, bool whole,
                 uint8_t *stream, uint64_t *at, void *work)
{
    const cudaStream_t queue = nd_cuda_of(b)->stream;
    entry_head *head = static_cast<entry_head *>(work);
    encode_tile *tiles = reinterpret_cast<encode_tile *>(static_cast<char *>(work) + HEAD_BYTES);
    const int64_t tile_count = nd_ceil(entry->count, TILE);
    const int64_t scale_bytes = entry->groups * (int64_t)sizeof(float);
    const bool wide = ((uintptr_t)before | (uintptr_t)entry->codes) % 16 == 0;
    const dim3 grid((unsigned)tile_count), threads(THREADS);
    const int8_t *now = entry->codes;
    ND_REQUIRE(entry->count > 0);
    if (!whole)
        ND_CUDA_TRY(ND_LAUNCH(measure_kernel, grid, threads, 0, queue, tiles, before, now,
                              entry->count, wide));
    ND_CUDA_TRY(ND_LAUNCH(place_kernel, dim3(1), threads, 0, queue, head, tiles,
                          whole ? 0 : tile_count, stream, at, scale_bytes,
                          nd_ceil(entry->count, 5)));
    return ND_CUDA(ND_LAUNCH(write_kernel, grid, threads, 0, queue, stream, head, tiles, before,
                             now, entry->count, reinterpret_cast<const uint8_t *>(entry->scales),
                             scale_bytes, wide));
}

nd_status decode(nd_backend *b, const nd_code_entry *entry, const uint8_t *stream, uint64_t bytes,
                 uint64_t *at, void *work)
{
    nd_cuda *cuda = nd_cuda_of(b);
    entry_head *head = static_cast<entry_head *>(work);
    decode_tile *tiles = reinterpret_cast<decode_tile *>(static_cast<char *>(work) + HEAD_BYTES);
    const int64_t all = nd_ceil(entry->count, 5);
    const expected e = {stream, bytes, entry->groups * (int64_t)sizeof(float), entry->count, all};
    /* Changes rarely take more than an eighth of all codes as trits. */
    const dim3 few(nd_blocks_for(all, 8 * TILE, BLOCKS_MAX)), threads(THREADS);
    const dim3 many(nd_blocks_for(all, THREADS, BLOCKS_MAX));
    nd_fault_name name = {""};
    ND_REQUIRE(entry->count > 0);
    snprintf(name.text, sizeof name.text, "%s", entry->name);
    ND_CUDA_TRY(ND_LAUNCH(advance_kernel, few, threads, 0, cuda->stream, tiles, e, at));
    ND_CUDA_TRY(ND_LAUNCH(check_kernel, dim3(1), threads, 0, cuda->stream, head, tiles, e, at,
                          cuda->fault, name));
    return ND_CUDA(ND_LAUNCH(apply_kernel, many, threads, 0, cuda->stream, entry->codes,
                             reinterpret_cast<uint8_t *>(entry->scales), head, tiles, e));
}

} // namespace

extern "C" const nd_code_kernels nd_cuda_code_kernels = {work_bytes, encode, decode};
