#include "support/wrapped_backend.h"

#include "core/backend/no_recording.h"
#include "support/wrapped_ops.h"

#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

enum { MARGIN = 256, MARGIN_BYTE = 0xa5 };

static char *translate(const wrapper *w, const void *outside, size_t bytes)
{
    const char *at = outside;
    for (int i = 0; i < w->count; i++) {
        const region *r = &w->regions[i];
        if (at >= r->outside && at + bytes <= r->outside + r->bytes)
            return r->inside + (at - r->outside);
    }
    return NULL;
}

static nd_status remote_enter(wrapper *w, const char *op, argument *list, int count)
{
    for (int i = 0; i < count; i++) {
        if (!*list[i].data || list[i].bytes == 0)
            continue;
        char *inside = translate(w, *list[i].data, list[i].bytes);
        ND_FAIL_IF(!inside, ND_EINTERNAL, "%s: argument %d (%zu bytes) is not the backend's memory",
                   op, i, list[i].bytes);
        *list[i].data = inside;
    }
    return ND_OK;
}

static nd_status remote_allocate(nd_backend *b, size_t bytes, void **memory)
{
    wrapper *w = wrapper_of(b);
    void *inside = NULL;
    *memory = NULL;
    if (bytes == 0)
        return ND_OK;
    ND_FAIL_IF(w->count == REGIONS_MAX, ND_ENOMEM, "remote: too many allocations");
    ND_TRY(w->inner->ops.allocate(w->inner, bytes, &inside));
    void *outside =
        mmap(NULL, bytes, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (outside == MAP_FAILED) {
        w->inner->ops.release(w->inner, inside, bytes);
        return ND_FAIL(ND_ENOMEM, "remote: no addresses for %zu bytes", bytes);
    }
    w->regions[w->count++] = (region){outside, inside, bytes, false};
    *memory = outside;
    return ND_OK;
}

static void remote_release(nd_backend *b, void *memory, size_t bytes)
{
    wrapper *w = wrapper_of(b);
    for (int i = 0; i < w->count; i++)
        if (memory && w->regions[i].outside == memory) {
            w->inner->ops.release(w->inner, w->regions[i].inside, bytes);
            munmap(memory, bytes);
            w->regions[i] = w->regions[--w->count];
            return;
        }
}

static nd_status remote_upload(nd_backend *b, void *device, const void *host, size_t bytes)
{
    wrapper *w = wrapper_of(b);
    argument to = {&device, bytes, true};
    ND_FAIL_IF(translate(w, host, 1), ND_EINTERNAL, "upload: the source is the backend's memory");
    ND_TRY(remote_enter(w, "upload", &to, 1));
    return w->inner->ops.upload(w->inner, device, host, bytes);
}

static nd_status remote_download(nd_backend *b, void *host, const void *device, size_t bytes)
{
    wrapper *w = wrapper_of(b);
    void *from = (void *)(uintptr_t)device;
    argument source = {&from, bytes, false};
    if (translate(w, host, 1))
        return ND_FAIL(ND_EINTERNAL, "download: the destination is the backend's memory");
    ND_TRY(remote_enter(w, "download", &source, 1));
    w->waits++;
    return w->inner->ops.download(w->inner, host, from, bytes);
}

static bool overlap(const region *r, const char *at, size_t bytes)
{
    return at < r->outside + r->bytes && r->outside < at + bytes;
}

static void add_range(wrapper *w, char *at, size_t bytes, bool written)
{
    region grown = {at, NULL, bytes, written};
    for (int i = 0; i < w->count;) {
        region *r = &w->regions[i];
        if (!overlap(r, grown.outside, grown.bytes)) {
            i++;
            continue;
        }
        char *first = r->outside < grown.outside ? r->outside : grown.outside;
        char *last = r->outside + r->bytes, *end = grown.outside + grown.bytes;
        last = last > end ? last : end;
        grown = (region){first, NULL, (size_t)(last - first), grown.written || r->written};
        *r = w->regions[--w->count];
        i = 0;
    }
    w->regions[w->count++] = grown;
}

static nd_status mirror_enter(wrapper *w, const char *op, argument *list, int count)
{
    nd_backend *b = w->inner;
    unsigned char margin[MARGIN];
    (void)op;
    memset(margin, MARGIN_BYTE, sizeof margin);
    w->count = 0;
    for (int i = 0; i < count; i++)
        if (*list[i].data && list[i].bytes > 0)
            add_range(w, *list[i].data, list[i].bytes, list[i].written);
    for (int i = 0; i < w->count; i++) {
        region *r = &w->regions[i];
        void *memory = NULL;
        ND_TRY(b->ops.allocate(b, r->bytes + MARGIN, &memory));
        r->inside = memory;
        ND_TRY(b->ops.upload(b, r->inside, r->outside, r->bytes));
        ND_TRY(b->ops.upload(b, r->inside + r->bytes, margin, sizeof margin));
    }
    for (int i = 0; i < count; i++)
        if (*list[i].data && list[i].bytes > 0)
            *list[i].data = translate(w, *list[i].data, list[i].bytes);
    return ND_OK;
}

static nd_status mirror_leave(wrapper *w, const char *op)
{
    nd_backend *b = w->inner;
    nd_status status = b->ops.synchronize(b);
    for (int i = 0; i < w->count; i++) {
        region *r = &w->regions[i];
        unsigned char margin[MARGIN];
        if (status == ND_OK && r->written)
            status = b->ops.download(b, r->outside, r->inside, r->bytes);
        ND_IF_OK(b->ops.download(b, margin, r->inside + r->bytes, sizeof margin));
        for (int j = 0; status == ND_OK && j < MARGIN; j++)
            if (margin[j] != MARGIN_BYTE)
                status = ND_FAIL(ND_EINTERNAL, "%s wrote %d bytes behind an argument of %zu", op, j,
                                 r->bytes);
        b->ops.release(b, r->inside, r->bytes + MARGIN);
    }
    w->count = 0;
    return status;
}

static nd_status mirror_allocate(nd_backend *b, size_t bytes, void **memory)
{
    (void)b;
    *memory = bytes > 0 ? calloc(1, (bytes + 63) / 64 * 64) : NULL;
    return ND_CHECK(bytes == 0 || *memory, ND_ENOMEM, "mirror: no %zu bytes", bytes);
}

static void mirror_release(nd_backend *b, void *memory, size_t bytes)
{
    (void)b, (void)bytes;
    free(memory);
}

static nd_status mirror_move(nd_backend *b, void *to, const void *from, size_t bytes)
{
    (void)b;
    if (bytes > 0)
        memcpy(to, from, bytes);
    return ND_OK;
}

static nd_status create(nd_backend *inner, const wrapper *like, nd_backend_ops ops,
                        nd_backend **backend)
{
    nd_backend *made = calloc(1, sizeof *made);
    wrapper *w = calloc(1, sizeof *w);
    if (!made || !w) {
        free(made);
        free(w);
        nd_backend_destroy(inner);
        return ND_FAIL(ND_ENOMEM, "no memory for a wrapped backend");
    }
    w->inner = inner;
    w->enter = like->enter;
    w->leave = like->leave;
    made->ops = ops;
    nd_no_recording_fill(&made->ops);
    made->context = w;
    made->traits = inner->traits;
    *backend = made;
    return ND_OK;
}

nd_status nd_remote_backend_create(nd_backend *inner, nd_backend **backend)
{
    static const wrapper like = {.enter = remote_enter};
    nd_backend_ops ops = nd_wrapped_ops;
    ops.name = "remote";
    ops.allocate = remote_allocate;
    ops.release = remote_release;
    ops.upload = remote_upload;
    ops.download = remote_download;
    return create(inner, &like, ops, backend);
}

int64_t nd_remote_backend_waits(const nd_backend *b)
{
    return wrapper_of(b)->waits;
}

nd_status nd_mirror_backend_create(nd_backend *inner, nd_backend **backend)
{
    static const wrapper like = {.enter = mirror_enter, .leave = mirror_leave};
    nd_backend_ops ops = nd_wrapped_ops;
    ops.name = "mirror";
    ops.host_memory = true;
    ops.allocate = mirror_allocate;
    ops.release = mirror_release;
    ops.upload = mirror_move;
    ops.download = mirror_move;
    return create(inner, &like, ops, backend);
}
