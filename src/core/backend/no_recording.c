#include "core/backend/no_recording.h"

static nd_status record(nd_backend *b, bool *can)
{
    (void)b;
    *can = false;
    return ND_OK;
}

static nd_status record_end(nd_backend *b, nd_recording **recording)
{
    (void)recording;
    return ND_FAIL(ND_EINTERNAL, "the %s backend cannot record ops", b->ops.name);
}

static nd_status replay(nd_backend *b, nd_recording *recording, bool *stale)
{
    (void)recording, (void)stale;
    return ND_FAIL(ND_EINTERNAL, "the %s backend cannot record ops", b->ops.name);
}

static void release_recording(nd_backend *b, nd_recording *recording)
{
    (void)b, (void)recording;
}

void nd_no_recording_fill(nd_backend_ops *ops)
{
    ops->record = record;
    ops->record_end = record_end;
    ops->replay = replay;
    ops->release_recording = release_recording;
}
