#include "dist/transport/transport_mpi.h"

#include "core/base/clock.h"

#include <math.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

enum { TAG_QUESTION = 1, TAG_ANSWER = 2 };

static const double spin_seconds = 2e-3; /* of polling before a wait first sleeps */
static const double spin_yielding = 10e-6;
static const double nap_first = 20e-6, nap_longest = 1e-3, nap_yielding = 200e-6;
static const double answer_seconds = 0.4; /* timeout of an answer */
static const double settle_seconds = 0.1; /* given to unfinished messages after an error */
static const double notice_seconds = 0.2; /* from a signal to the report of a stuck wait */

/* The message in a slot. */
typedef struct message {
    MPI_Request request; /* MPI_REQUEST_NULL: none */
    int peer, bytes;
    bool receives, accepts_short;
} message;

/* The answer to another rank that is in flight; a rank has at most one open question. */
typedef struct asker {
    nd_situation answer;
    MPI_Request sent;
} asker;

typedef struct mpi_transport {
    nd_transport base;
    MPI_Comm ranks;      /* for messages */
    MPI_Comm control;    /* for questions and answers */
    int64_t tags;        /* sequence numbers until tags repeat */
    nd_situation theirs; /* the last answer */
    bool noticed, yields;
    bool keeps_memory; /* MPI may still access buffers */
    atomic_bool interrupted;
    message slots[ND_TRANSPORT_SLOTS];
    asker askers[]; /* [size] */
} mpi_transport;

static void nap(double seconds)
{
    const struct timespec t = {.tv_nsec = (long)(seconds * 1e9)};
    nanosleep(&t, NULL);
}

static mpi_transport *of(nd_transport *transport)
{
    return (mpi_transport *)transport;
}

static double now(nd_transport *transport)
{
    (void)transport;
    return nd_seconds();
}

static void set_yielding(nd_transport *transport, bool yields)
{
    of(transport)->yields = yields;
}

static void interrupt(nd_transport *transport)
{
    atomic_store(&of(transport)->interrupted, true);
}

/* Whether a request completes within `seconds`, as it does soon once both sides have started it. */
static bool settles(MPI_Request *request, double seconds)
{
    const double start = MPI_Wtime();
    int done = 0;
    while (MPI_Test(request, &done, MPI_STATUS_IGNORE) == MPI_SUCCESS && !done &&
           MPI_Wtime() - start < seconds)
        nap(nap_first);
    return done;
}

/* Leaves memory that MPI may still access allocated until the process ends. */
static bool destroy(nd_transport *transport)
{
    mpi_transport *t = of(transport);
    for (int r = 0; r < t->base.comm->size; r++)
        t->keeps_memory |= !settles(&t->askers[r].sent, 0.0);
    if (t->control != MPI_COMM_NULL && !t->base.failed)
        MPI_Comm_free(&t->control);
    if (t->ranks != MPI_COMM_WORLD && !t->base.failed)
        MPI_Comm_free(&t->ranks);
    if (t->keeps_memory)
        return false;
    free(t);
    return true;
}

static int tag_of(const mpi_transport *t)
{
    return (int)(t->base.situation.sequence % t->tags) * ND_COLLECTIVE_COUNT +
           t->base.situation.kind;
}

/* Answers pending questions. */
static void answer(mpi_transport *t)
{
    for (;;) {
        int there = 0, sent = 0;
        MPI_Status s;
        if (MPI_Iprobe(MPI_ANY_SOURCE, TAG_QUESTION, t->control, &there, &s) != MPI_SUCCESS ||
            !there)
            return;
        const int who = s.MPI_SOURCE;
        asker *asks = &t->askers[who];
        MPI_Recv(NULL, 0, MPI_BYTE, who, TAG_QUESTION, t->control, MPI_STATUS_IGNORE);
        MPI_Test(&asks->sent, &sent, MPI_STATUS_IGNORE);
        if (!sent)
            continue;
        asks->answer = t->base.situation;
        MPI_Isend(&asks->answer, sizeof asks->answer, MPI_BYTE, who, TAG_ANSWER, t->control,
                  &asks->sent);
    }
}

static bool ask(mpi_transport *t, int rank)
{
    MPI_Request question, reply;
    int done = 0;
    if (MPI_Isend(NULL, 0, MPI_BYTE, rank, TAG_QUESTION, t->control, &question) != MPI_SUCCESS ||
        MPI_Irecv(&t->theirs, sizeof t->theirs, MPI_BYTE, rank, TAG_ANSWER, t->control, &reply) !=
            MPI_SUCCESS)
        return false;
    const double start = MPI_Wtime();
    while (!done && MPI_Wtime() - start < answer_seconds) {
        answer(t);
        if (MPI_Test(&reply, &done, MPI_STATUS_IGNORE) != MPI_SUCCESS)
            return false;
        if (!done)
            nap(nap_longest);
    }
    MPI_Request_free(&question);
    if (!done) {
        /* An answer that has arrived is not cancelled. It is short, so neither wait takes long. */
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

/* Follows the chain of waiting ranks from `suspect` on. */
static void follow(mpi_transport *t, int suspect, char *text, size_t size)
{
    const nd_situation *theirs = &t->theirs;
    char line[512], told[320];
    for (int hops = 0; hops < t->base.comm->size; hops++) {
        if (!ask(t, suspect)) {
            snprintf(line, sizeof line,
                     "; rank %d does not answer: it is dead, stopped, or busy for longer than the "
                     "timeout",
                     suspect);
            append(text, size, line);
            return;
        }
        nd_situation_describe(told, sizeof told, theirs, "waits for");
        snprintf(line, sizeof line, "; %s", told);
        append(text, size, line);
        if (theirs->sequence == t->base.situation.sequence &&
            theirs->kind != t->base.situation.kind) {
            append(text, size, ": unmatched");
            return;
        }
        if (theirs->waits_for == t->base.comm->rank) {
            append(text, size, "; they wait for each other");
            return;
        }
        suspect = theirs->waits_for;
    }
}

static nd_status timed_out(mpi_transport *t, int peer)
{
    char text[1536], waited[64];
    snprintf(waited, sizeof waited, "waited %g s for", t->base.comm->timeout_seconds);
    nd_situation_describe(text, sizeof text, &t->base.situation, waited);
    follow(t, peer, text, sizeof text);
    t->base.failed = true;
    return ND_FAIL(ND_EPEER, "%s", text);
}

/* Raises an error of MPI, or that of a message of another collective. */
static nd_status refused(mpi_transport *t, int peer, int code, int tag, int64_t bytes,
                         int64_t expected)
{
    char text[512], reason[MPI_MAX_ERROR_STRING + 64] = "";
    int length = 0;
    nd_situation_describe(text, sizeof text, &t->base.situation,
                          t->base.situation.receives ? "received from" : "sent to");
    t->base.failed = true;
    if (t->base.situation.receives && tag >= 0 && tag != tag_of(t))
        return ND_FAIL(ND_EPEER, "%s: unmatched: rank %d is in %s (collective %lld)", text, peer,
                       nd_collective_name(tag % ND_COLLECTIVE_COUNT),
                       (long long)(tag / ND_COLLECTIVE_COUNT));
    ND_FAIL_IF(code == MPI_SUCCESS, ND_EPEER, "%s: %lld bytes arrived, %lld were expected", text,
               (long long)bytes, (long long)expected);
    MPI_Error_string(code, reason, &length);
    return ND_FAIL(ND_EPEER, "%s: %s", text, reason);
}

/* A launcher that lost a rank asks the others to stop and kills them soon after: report first. */
static void notice(mpi_transport *t, double since_signal)
{
    char text[512];
    if (t->noticed || since_signal < notice_seconds)
        return;
    t->noticed = true;
    nd_situation_describe(text, sizeof text, &t->base.situation, "still waits for");
    fprintf(stderr, "nanochat_dist: asked to stop: %s\n", text);
    fflush(stderr);
}

static nd_status wait_for(nd_transport *transport, int slot)
{
    mpi_transport *t = of(transport);
    message *m = &t->slots[slot];
    const nd_comm *comm = transport->comm;
    const double spin = t->yields ? spin_yielding : spin_seconds;
    const double longest = t->yields ? nap_yielding : nap_longest;
    MPI_Status s = {.MPI_TAG = -1};
    double waited = 0.0, signalled = 0.0, sleep = nap_first, last = MPI_Wtime();
    int done = 0, count = m->bytes;
    t->base.situation.rank = comm->rank;
    t->base.situation.waits_for = m->peer;
    t->base.situation.receives = m->receives;
    for (;;) {
        const int code = MPI_Test(&m->request, &done, &s);
        if (code != MPI_SUCCESS)
            return refused(t, m->peer, code, s.MPI_TAG, -1, m->bytes);
        if (done)
            break;
        const double at = MPI_Wtime(), past = at - last < 1.0 ? at - last : 1.0;
        last = at;
        waited += past;
        if (atomic_load_explicit(&t->interrupted, memory_order_relaxed)) {
            t->base.failed = true;
            return ND_FAIL(ND_EPEER, "rank %d: interrupted", comm->rank);
        }
        if (waited < spin) /* MPI itself yields when ranks outnumber cores */
            continue;
        answer(t);
        if (comm->stop_requested && comm->stop_requested())
            notice(t, signalled += past);
        if (waited > comm->timeout_seconds)
            return timed_out(t, m->peer);
        nap(sleep);
        sleep = sleep < longest / 2 ? sleep * 2 : longest;
    }
    if (!m->receives)
        return ND_OK;
    MPI_Get_count(&s, MPI_BYTE, &count);
    if (s.MPI_TAG != tag_of(t) ||
        (m->accepts_short ? count < 0 || count > m->bytes : count != m->bytes))
        return refused(t, m->peer, MPI_SUCCESS, s.MPI_TAG, count, m->bytes);
    t->base.received = count;
    return ND_OK;
}

static nd_status start(mpi_transport *t, int slot, int code)
{
    const message *m = &t->slots[slot];
    t->base.situation.receives = m->receives;
    t->base.situation.waits_for = m->peer;
    return code == MPI_SUCCESS ? ND_OK : refused(t, m->peer, code, -1, -1, m->bytes);
}

static nd_status send_message(nd_transport *transport, int slot, const void *data, int bytes,
                              int to)
{
    mpi_transport *t = of(transport);
    message *m = &t->slots[slot];
    *m = (message){MPI_REQUEST_NULL, to, bytes, false, false};
    return start(t, slot, MPI_Isend(data, bytes, MPI_BYTE, to, tag_of(t), t->ranks, &m->request));
}

/* Receives any tag: messages of a rank are ordered, and the tag tells which collective it is in. */
static nd_status receive_message(nd_transport *transport, int slot, void *data, int bytes, int from)
{
    mpi_transport *t = of(transport);
    message *m = &t->slots[slot];
    *m = (message){MPI_REQUEST_NULL, from, bytes, true, transport->accepts_short};
    return start(t, slot,
                 MPI_Irecv(data, bytes, MPI_BYTE, from, MPI_ANY_TAG, t->ranks, &m->request));
}

/* Cancels receives; one that has matched its message cannot be, and like sends gets time to end. */
static void cancel(nd_transport *transport)
{
    mpi_transport *t = of(transport);
    double left = settle_seconds;
    for (int slot = 0; slot < ND_TRANSPORT_SLOTS; slot++) {
        message *m = &t->slots[slot];
        if (m->request != MPI_REQUEST_NULL && m->receives)
            MPI_Cancel(&m->request);
        const double begun = MPI_Wtime();
        t->keeps_memory |= !settles(&m->request, left);
        left = fmax(0.0, left - (MPI_Wtime() - begun));
    }
}

nd_status nd_transport_mpi_create(nd_comm *comm, MPI_Comm ranks, nd_transport **transport)
{
    mpi_transport *made = calloc(1, sizeof *made + (size_t)comm->size * sizeof *made->askers);
    ND_FAIL_IF(!made, ND_ENOMEM, "no memory for the messages of %d ranks", comm->size);
    int *limit = NULL, found = 0;
    MPI_Comm_get_attr(MPI_COMM_WORLD, MPI_TAG_UB, &limit, &found);
    made->base = (nd_transport){.ops = {destroy, now, send_message, receive_message, wait_for,
                                        cancel, set_yielding, interrupt},
                                .comm = comm,
                                .situation = {.rank = comm->rank}};
    made->ranks = ranks;
    made->control = MPI_COMM_NULL;
    for (int r = 0; r < comm->size; r++)
        made->askers[r].sent = MPI_REQUEST_NULL;
    for (int slot = 0; slot < ND_TRANSPORT_SLOTS; slot++)
        made->slots[slot].request = MPI_REQUEST_NULL;
    made->tags = (found ? *limit : 32767) / ND_COLLECTIVE_COUNT;
    if (MPI_Comm_dup(ranks, &made->control) != MPI_SUCCESS) {
        destroy(&made->base);
        return ND_FAIL(ND_EPEER, "rank %d: MPI cannot create a second communicator", comm->rank);
    }
    *transport = &made->base;
    return ND_OK;
}
