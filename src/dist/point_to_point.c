#include "dist/point_to_point.h"

#include <math.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

enum { SUBJECT_MAX = 96, PHASE_MAX = 32, TAG_QUESTION = 1, TAG_ANSWER = 2 };

static const double spin_seconds = 2e-3; /* before the first sleep of a wait */
static const double spin_yielding = 10e-6;
static const double nap_first = 20e-6, nap_longest = 1e-3;
static const double answer_seconds = 0.4; /* how long an answer may take */
static const double settle_seconds = 0.1; /* for what had begun when something failed */
static const double notice_seconds = 0.2; /* from a signal to the notice of a stuck wait */

/* What a waiting rank reports about itself. */
typedef struct situation {
    int32_t rank, waits_for;
    int32_t kind;
    int32_t receives;
    int64_t sequence, step;
    char phase[PHASE_MAX], subject[SUBJECT_MAX];
} situation;

struct nd_wire {
    nd_comm *comm;
    MPI_Comm control; /* questions and answers */
    situation now;
    situation *answers; /* [size] being sent; a rank has one question open at a time */
    MPI_Request *sends; /* [size] of those */
    int64_t tags;       /* sequence numbers before tags repeat */
    situation theirs;   /* the last answer */
    bool failed, noticed, yields;
    bool keeps_memory; /* MPI may still use it */
    atomic_bool interrupted;

    /* Part i of a message uses place i % ND_WIRE_DEPTH. */
    MPI_Request receiving[ND_WIRE_DEPTH];
    MPI_Request sending[ND_WIRE_DEPTH][ND_WIRE_FAN];
    char *taken; /* [ND_WIRE_DEPTH][ND_WIRE_PART_BYTES] parts to be taken */
    char *made;  /* the same of parts that were made */
};

static const char *const kind_names[ND_COLLECTIVE_COUNT] = {
    "nothing", "a barrier", "a broadcast", "an allgather", "a gather", "a tree reduction"};

static void nap(double seconds)
{
    const struct timespec t = {.tv_nsec = (long)(seconds * 1e9)};
    nanosleep(&t, NULL);
}

nd_status nd_wire_create(nd_comm *comm, nd_wire **wire)
{
    nd_wire *made = calloc(1, sizeof *made);
    situation *answers = calloc((size_t)comm->size, sizeof *answers);
    MPI_Request *sends = calloc((size_t)comm->size, sizeof *sends);
    char *parts = malloc((size_t)2 * ND_WIRE_DEPTH * ND_WIRE_PART_BYTES);
    if (!made || !answers || !sends || !parts) {
        free(made);
        free(answers);
        free(sends);
        free(parts);
        return ND_FAIL(ND_ENOMEM, "no memory for the wire of %d ranks", comm->size);
    }
    int *limit = NULL, found = 0;
    MPI_Comm_get_attr(MPI_COMM_WORLD, MPI_TAG_UB, &limit, &found);
    made->comm = comm;
    made->control = MPI_COMM_NULL;
    made->answers = answers;
    made->sends = sends;
    made->taken = parts;
    made->made = parts + (size_t)ND_WIRE_DEPTH * ND_WIRE_PART_BYTES;
    for (int r = 0; r < comm->size; r++)
        sends[r] = MPI_REQUEST_NULL;
    for (int place = 0; place < ND_WIRE_DEPTH; place++) {
        made->receiving[place] = MPI_REQUEST_NULL;
        for (int i = 0; i < ND_WIRE_FAN; i++)
            made->sending[place][i] = MPI_REQUEST_NULL;
    }
    made->tags = (found ? *limit : 32767) / ND_COLLECTIVE_COUNT;
    if (MPI_Comm_dup(MPI_COMM_WORLD, &made->control) != MPI_SUCCESS) {
        nd_wire_destroy(made);
        return ND_FAIL(ND_EPEER, "rank %d: MPI gives no second communicator", comm->rank);
    }
    *wire = made;
    return ND_OK;
}

/* Whether a request is done within `seconds`, which a message that has met its partner soon is. */
static bool settles(MPI_Request *request, double seconds)
{
    const double start = MPI_Wtime();
    int done = 0;
    while (MPI_Test(request, &done, MPI_STATUS_IGNORE) == MPI_SUCCESS && !done &&
           MPI_Wtime() - start < seconds)
        nap(nap_first);
    return done;
}

/* Memory that MPI may still read or write is left to the end of the process. */
void nd_wire_destroy(nd_wire *wire)
{
    if (!wire)
        return;
    for (int r = 0; r < wire->comm->size; r++)
        wire->keeps_memory |= !settles(&wire->sends[r], 0.0);
    if (wire->control != MPI_COMM_NULL && !wire->failed)
        MPI_Comm_free(&wire->control);
    if (wire->keeps_memory)
        return;
    free(wire->answers);
    free(wire->sends);
    free(wire->taken);
    free(wire);
}

bool nd_wire_failed(const nd_wire *wire)
{
    return wire->failed;
}

void nd_wire_set_yielding(nd_wire *wire, bool yields)
{
    wire->yields = yields;
}

void nd_wire_interrupt(nd_wire *wire)
{
    atomic_store(&wire->interrupted, true);
}

nd_status nd_wire_begin(nd_wire *wire, nd_collective kind, int64_t step, const char *phase)
{
    if (wire->failed)
        return ND_FAIL(ND_EPEER, "rank %d: the wire has failed before", wire->comm->rank);
    wire->now.kind = (int32_t)kind;
    wire->now.sequence++;
    wire->now.step = step;
    snprintf(wire->now.phase, sizeof wire->now.phase, "%s", phase ? phase : "start");
    nd_wire_subject(wire, NULL);
    return ND_OK;
}

void nd_wire_subject(nd_wire *wire, const char *subject)
{
    snprintf(wire->now.subject, sizeof wire->now.subject, "%s", subject ? subject : "");
}

static int tag_of(const nd_wire *wire)
{
    return (int)(wire->now.sequence % wire->tags) * ND_COLLECTIVE_COUNT + wire->now.kind;
}

/* -- telling what happened -------------------------------------------------------------------- */

/* "rank 1 in step 12, phase reduce, waits for rank 3 in a tree reduction of X (collective 57)" */
static int describe(char *text, size_t size, const situation *s, const char *waits)
{
    return snprintf(text, size,
                    "rank %d in step %lld, phase %s, %s rank %d in %s%s%s (collective %lld)",
                    s->rank, (long long)s->step, s->phase, waits, s->waits_for, kind_names[s->kind],
                    s->subject[0] ? " of " : "", s->subject, (long long)s->sequence);
}

/* Answers the questions of other ranks. */
static void answer(nd_wire *wire)
{
    for (;;) {
        int there = 0, sent = 0;
        MPI_Status s;
        if (MPI_Iprobe(MPI_ANY_SOURCE, TAG_QUESTION, wire->control, &there, &s) != MPI_SUCCESS ||
            !there)
            return;
        const int who = s.MPI_SOURCE;
        MPI_Recv(NULL, 0, MPI_BYTE, who, TAG_QUESTION, wire->control, MPI_STATUS_IGNORE);
        MPI_Test(&wire->sends[who], &sent, MPI_STATUS_IGNORE);
        if (!sent)
            continue;
        wire->answers[who] = wire->now;
        MPI_Isend(&wire->answers[who], sizeof wire->answers[who], MPI_BYTE, who, TAG_ANSWER,
                  wire->control, &wire->sends[who]);
    }
}

static bool ask(nd_wire *wire, int rank)
{
    MPI_Request question, reply;
    int done = 0;
    if (MPI_Isend(NULL, 0, MPI_BYTE, rank, TAG_QUESTION, wire->control, &question) != MPI_SUCCESS ||
        MPI_Irecv(&wire->theirs, sizeof wire->theirs, MPI_BYTE, rank, TAG_ANSWER, wire->control,
                  &reply) != MPI_SUCCESS)
        return false;
    const double start = MPI_Wtime();
    while (!done && MPI_Wtime() - start < answer_seconds) {
        answer(wire);
        if (MPI_Test(&reply, &done, MPI_STATUS_IGNORE) != MPI_SUCCESS)
            return false;
        if (!done)
            nap(nap_longest);
    }
    MPI_Request_free(&question);
    if (!done) {
        /* An answer that is here already is not cancelled. It is short, so neither is waited for long. */
        MPI_Status s;
        int cancelled = 0;
        MPI_Cancel(&reply);
        MPI_Wait(&reply, &s);
        MPI_Test_cancelled(&s, &cancelled);
        done = !cancelled;
    }
    return done;
}

static void append(char *text, size_t size, const char *more)
{
    const size_t used = strlen(text);
    snprintf(text + used, size - used, "%s", more);
}

/* Follows who waits for whom from `suspect` on. */
static void follow(nd_wire *wire, int suspect, char *text, size_t size)
{
    const situation *theirs = &wire->theirs;
    char line[512], told[320];
    for (int hops = 0; hops < wire->comm->size; hops++) {
        if (!ask(wire, suspect)) {
            snprintf(line, sizeof line,
                     "; rank %d does not answer: it is dead, stopped, or busy for longer than the "
                     "timeout",
                     suspect);
            append(text, size, line);
            return;
        }
        describe(told, sizeof told, theirs, "waits for");
        snprintf(line, sizeof line, "; %s", told);
        append(text, size, line);
        if (theirs->sequence == wire->now.sequence && theirs->kind != wire->now.kind) {
            append(text, size, ": unmatched");
            return;
        }
        if (theirs->waits_for == wire->comm->rank) {
            append(text, size, "; they wait for each other");
            return;
        }
        suspect = theirs->waits_for;
    }
}

static nd_status timed_out(nd_wire *wire, int peer)
{
    char text[1536], waited[64];
    snprintf(waited, sizeof waited, "waited %g s for", wire->comm->timeout_seconds);
    describe(text, sizeof text, &wire->now, waited);
    follow(wire, peer, text, sizeof text);
    wire->failed = true;
    return ND_FAIL(ND_EPEER, "%s", text);
}

/* An error of MPI, or a message of another collective. */
static nd_status refused(nd_wire *wire, int peer, int code, int tag, int64_t bytes,
                         int64_t expected)
{
    char text[512], reason[MPI_MAX_ERROR_STRING + 64] = "";
    int length = 0;
    describe(text, sizeof text, &wire->now, wire->now.receives ? "received from" : "sent to");
    wire->failed = true;
    if (wire->now.receives && tag >= 0 && tag != tag_of(wire))
        return ND_FAIL(ND_EPEER, "%s: unmatched: rank %d is in %s (collective %lld)", text, peer,
                       kind_names[tag % ND_COLLECTIVE_COUNT],
                       (long long)(tag / ND_COLLECTIVE_COUNT));
    if (code == MPI_SUCCESS)
        return ND_FAIL(ND_EPEER, "%s: %lld bytes came, %lld were expected", text, (long long)bytes,
                       (long long)expected);
    MPI_Error_string(code, reason, &length);
    return ND_FAIL(ND_EPEER, "%s: %s", text, reason);
}

/* A launcher that lost a rank tells the others to stop, and kills them soon after. */
static void notice(nd_wire *wire, double since_signal)
{
    char text[512];
    if (wire->noticed || since_signal < notice_seconds)
        return;
    wire->noticed = true;
    describe(text, sizeof text, &wire->now, "still waits for");
    fprintf(stderr, "nanochat_dist: asked to stop: %s\n", text);
    fflush(stderr);
}

/* -- messages --------------------------------------------------------------------------------- */

/* `bytes` is what a receive expects. */
static nd_status wait_for(nd_wire *wire, MPI_Request *request, int peer, bool receives, int bytes)
{
    const nd_comm *comm = wire->comm;
    const double spin = wire->yields ? spin_yielding : spin_seconds;
    MPI_Status s = {.MPI_TAG = -1};
    double waited = 0.0, signalled = 0.0, sleep = nap_first, last = MPI_Wtime();
    int done = 0, count = bytes;
    wire->now.rank = comm->rank;
    wire->now.waits_for = peer;
    wire->now.receives = receives;
    for (;;) {
        const int code = MPI_Test(request, &done, &s);
        if (code != MPI_SUCCESS)
            return refused(wire, peer, code, s.MPI_TAG, -1, bytes);
        if (done)
            break;
        const double at = MPI_Wtime(), past = at - last < 1.0 ? at - last : 1.0;
        last = at;
        waited += past;
        if (atomic_load_explicit(&wire->interrupted, memory_order_relaxed)) {
            wire->failed = true;
            return ND_FAIL(ND_EPEER, "rank %d: interrupted", comm->rank);
        }
        if (waited < spin) /* MPI itself yields where ranks outnumber cores */
            continue;
        answer(wire);
        if (comm->stop_requested && comm->stop_requested())
            notice(wire, signalled += past);
        if (waited > comm->timeout_seconds)
            return timed_out(wire, peer);
        nap(sleep);
        sleep = sleep < nap_longest / 2 ? sleep * 2 : nap_longest;
    }
    if (!receives)
        return ND_OK;
    MPI_Get_count(&s, MPI_BYTE, &count);
    if (s.MPI_TAG != tag_of(wire) || count != bytes)
        return refused(wire, peer, MPI_SUCCESS, s.MPI_TAG, count, bytes);
    return ND_OK;
}

/* One movement of parts: a message in, a message out, or both. */
typedef struct movement {
    size_t in_bytes, out_bytes;
    int from;
    char *in;          /* where it goes, or NULL: `take` has it */
    nd_wire_part take; /* with in_context */
    void *in_context;
    const int *to;
    int to_count;
    const char *out;   /* where it is, or NULL: `make` has it */
    nd_wire_part make; /* with out_context */
    void *out_context;
    bool relays; /* forwards what it receives */
} movement;

static char *memory_of(char *parts, int64_t part)
{
    return parts + nd_wire_part_start(part % ND_WIRE_DEPTH);
}

static nd_status start_receive(nd_wire *wire, const movement *m, int64_t part)
{
    char *into = m->in ? m->in + nd_wire_part_start(part) : memory_of(wire->taken, part);
    const int length = nd_wire_part_length(m->in_bytes, part);
    /* Any tag: messages of a rank come in order, and its tag says where it is. */
    const int code = MPI_Irecv(into, length, MPI_BYTE, m->from, MPI_ANY_TAG, MPI_COMM_WORLD,
                               &wire->receiving[part % ND_WIRE_DEPTH]);
    return code == MPI_SUCCESS ? ND_OK : refused(wire, m->from, code, -1, -1, length);
}

static nd_status finish_receive(nd_wire *wire, const movement *m, int64_t part)
{
    const int length = nd_wire_part_length(m->in_bytes, part);
    ND_TRY(wait_for(wire, &wire->receiving[part % ND_WIRE_DEPTH], m->from, true, length));
    return m->in ? ND_OK
                 : m->take(m->in_context, memory_of(wire->taken, part), nd_wire_part_start(part),
                           (size_t)length);
}

static nd_status finish_sends(nd_wire *wire, const movement *m, int64_t part)
{
    for (int i = 0; i < m->to_count; i++)
        ND_TRY(wait_for(wire, &wire->sending[part % ND_WIRE_DEPTH][i], m->to[i], false, 0));
    return ND_OK;
}

static nd_status start_sends(nd_wire *wire, const movement *m, int64_t part)
{
    const int length = nd_wire_part_length(m->out_bytes, part);
    const char *from = m->out ? m->out + nd_wire_part_start(part) : memory_of(wire->made, part);
    if (part >= ND_WIRE_DEPTH)
        ND_TRY(finish_sends(wire, m, part - ND_WIRE_DEPTH));
    if (!m->out)
        ND_TRY(m->make(m->out_context, memory_of(wire->made, part), nd_wire_part_start(part),
                       (size_t)length));
    for (int i = 0; i < m->to_count; i++) {
        const int code = MPI_Isend(from, length, MPI_BYTE, m->to[i], tag_of(wire), MPI_COMM_WORLD,
                                   &wire->sending[part % ND_WIRE_DEPTH][i]);
        if (code != MPI_SUCCESS)
            return refused(wire, m->to[i], code, -1, -1, length);
        wire->comm->bytes_sent += (uint64_t)length;
    }
    return ND_OK;
}

/* Round i waits for part i and makes sure that parts up to i + ND_WIRE_DEPTH - 1 are in flight, or with
 * a relay that part i goes on. No rank waits for a part that another sends only in a later round than
 * its own, so the rank in the earliest round always progresses. */
static nd_status move_parts(nd_wire *wire, const movement *m)
{
    const int64_t in = nd_wire_parts(m->in_bytes), out = nd_wire_parts(m->out_bytes);
    int64_t receives = 0, sends = 0;
    for (int64_t i = 0; i < in || i < out; i++) {
        for (; receives < in && receives < i + ND_WIRE_DEPTH; receives++)
            ND_TRY(start_receive(wire, m, receives));
        for (; !m->relays && sends < out && sends < i + ND_WIRE_DEPTH; sends++)
            ND_TRY(start_sends(wire, m, sends));
        if (i < in)
            ND_TRY(finish_receive(wire, m, i));
        if (m->relays)
            ND_TRY(start_sends(wire, m, i));
    }
    for (int64_t i = out > ND_WIRE_DEPTH ? out - ND_WIRE_DEPTH : 0; i < out; i++)
        ND_TRY(finish_sends(wire, m, i));
    return ND_OK;
}

/* After an error nothing may arrive in memory that its owner will free: a receive is cancelled, and one that
 * has met its message, which cannot be, gets some time to end, as sends do. */
static void let_go(nd_wire *wire)
{
    double left = settle_seconds;
    for (int place = 0; place < ND_WIRE_DEPTH; place++) {
        if (wire->receiving[place] != MPI_REQUEST_NULL)
            MPI_Cancel(&wire->receiving[place]);
        for (int i = -1; i < ND_WIRE_FAN; i++) {
            MPI_Request *request = i < 0 ? &wire->receiving[place] : &wire->sending[place][i];
            const double start = MPI_Wtime();
            wire->keeps_memory |= !settles(request, left);
            left = fmax(0.0, left - (MPI_Wtime() - start));
        }
    }
}

static nd_status move(nd_wire *wire, const movement *m)
{
    const nd_status status = move_parts(wire, m);
    if (status != ND_OK) {
        wire->failed = true;
        let_go(wire);
    }
    return status;
}

nd_status nd_wire_exchange(nd_wire *wire, const void *out, size_t out_bytes, int to, void *in,
                           size_t in_bytes, int from)
{
    return move(wire, &(movement){.in_bytes = in_bytes,
                                  .in = in,
                                  .from = from,
                                  .out_bytes = out_bytes,
                                  .out = out,
                                  .to = &to,
                                  .to_count = 1});
}

nd_status nd_wire_send(nd_wire *wire, const void *data, size_t bytes, int to)
{
    return nd_wire_exchange(wire, data, bytes, to, NULL, 0, to);
}

nd_status nd_wire_receive(nd_wire *wire, void *data, size_t bytes, int from)
{
    return nd_wire_exchange(wire, NULL, 0, from, data, bytes, from);
}

nd_status nd_wire_relay(nd_wire *wire, void *data, size_t bytes, int from, const int *to,
                        int to_count)
{
    return move(wire, &(movement){.in_bytes = from < 0 ? 0 : bytes,
                                  .in = data,
                                  .from = from,
                                  .out_bytes = to_count > 0 ? bytes : 0,
                                  .out = data,
                                  .to = to,
                                  .to_count = to_count,
                                  .relays = from >= 0 && to_count > 0});
}

nd_status nd_wire_send_parts(nd_wire *wire, nd_wire_part make, void *context, size_t bytes, int to)
{
    return move(
        wire,
        &(movement){
            .out_bytes = bytes, .make = make, .out_context = context, .to = &to, .to_count = 1});
}

nd_status nd_wire_receive_parts(nd_wire *wire, nd_wire_part take, void *context, size_t bytes,
                                int from)
{
    return move(wire,
                &(movement){.in_bytes = bytes, .take = take, .in_context = context, .from = from});
}
