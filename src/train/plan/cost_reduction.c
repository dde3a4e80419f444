#include "train/plan/cost_messages.h"

#include "core/base/clock_heap.h"
#include "dist/reduction/gradient_wire.h"
#include "dist/reduction/part_order.h"
#include "dist/reduction/tree_reduction.h"

#include <stdlib.h>

/* A part sent between two ranks. */
typedef struct message {
    int32_t from, to, bytes;
    int8_t level;
    /* the send has started; the receive has; both, with these times: */
    bool started, open, carried;
    double away, here;
} message;

/* A rank's progress. */
typedef struct place {
    int64_t at, next_send, next_receive, end; /* indices into acts */
    int64_t sends, passed, receives, taken;
    int32_t leaving[ND_WIRE_DEPTH]; /* its last messages */
    int32_t waits;                  /* the message it waits for; -1: none */
    int level;                      /* current */
} place;

enum { LEVELS = 64 };

typedef struct reduction {
    nd_cost_clocks *c;
    message *messages;   /* by level */
    int32_t *acts;       /* indices of each rank's messages, in its order */
    place *places;       /* [ranks] */
    nd_clock_heap ready; /* ranks that can continue */
    int64_t level_at[LEVELS + 1];
    int32_t bytes, finished; /* of the current part; of its finished sum, above level `top` */
    int top;
} reduction;

static void count_message(void *context, int level, int from, int to)
{
    (void)from, (void)to;
    ((reduction *)context)->level_at[level + 1]++;
}

static void list_message(void *context, int level, int from, int to)
{
    reduction *r = context;
    r->messages[r->level_at[level]++] = (message){.from = from,
                                                  .to = to,
                                                  .bytes = level > r->top ? r->finished : r->bytes,
                                                  .level = (int8_t)level};
    r->places[from].end++;
    r->places[to].end++;
}

static void list_parts(reduction *r, const nd_cost_work *work, const nd_cost_piece *pieces,
                       nd_part_order order, nd_tree_message visit)
{
    const nd_cost_machine *m = r->c->m;
    nd_part part;
    while (nd_part_next(&order, &part)) {
        const nd_cost_piece *piece = &pieces[part.piece];
        const nd_comm_split split = {work->leaves, work->any_order};
        const nd_tree tree = {
            .ranks = m->ranks,
            .group = nd_cost_group_of(work, m->ranks),
            .host = nd_tree_host(split, m->ranks % m->hosts ? 0 : m->ranks / m->hosts),
            .split = split,
            .owner = piece->owner,
            .taker = piece->taker,
            .format = work->format,
            .turn = part.turn};
        r->top = nd_tree_top(&tree);
        r->bytes = (int32_t)part.bytes;
        r->finished =
            (int32_t)(sizeof(float) * (size_t)nd_gradient_wire_values(work->format, part.bytes));
        nd_tree_messages(&tree, visit, r);
    }
}

/* Turns the counts in places[].end into each rank's range of acts. */
static void share_acts(reduction *r, int64_t total)
{
    int64_t at = 0;
    for (int rank = 0; rank < r->c->m->ranks; rank++) {
        place *p = &r->places[rank];
        const int64_t count = p->end;
        *p = (place){.at = at, .next_send = at, .next_receive = at, .end = at, .waits = -1};
        at += count;
    }
    for (int64_t i = 0; i < total; i++) {
        r->acts[r->places[r->messages[i].from].end++] = (int32_t)i;
        r->acts[r->places[r->messages[i].to].end++] = (int32_t)i;
    }
}

static void wake(reduction *r, int rank, int32_t index, double time)
{
    place *p = &r->places[rank];
    if (p->waits != index)
        return;
    p->waits = -1;
    r->c->clock[rank] = time > r->c->clock[rank] ? time : r->c->clock[rank];
    nd_clock_push(&r->ready, rank);
}

/* Carries the message once both sides have started it. */
static void carry_when_ready(reduction *r, int32_t index, double now)
{
    message *m = &r->messages[index];
    if (!m->started || !m->open)
        return;
    nd_cost_carry(r->c, &(nd_link_message){m->from, m->to, m->bytes, true}, now,
                  r->c->m->add_per_byte, &m->away, &m->here);
    m->carried = true;
    wake(r, m->from, index, m->away);
    wake(r, m->to, index, m->here);
}

static void open_receives(reduction *r, int rank)
{
    place *p = &r->places[rank];
    for (; p->next_receive < p->end && p->receives < p->taken + ND_WIRE_DEPTH; p->next_receive++) {
        message *m = &r->messages[r->acts[p->next_receive]];
        if (m->to != rank)
            continue;
        m->open = true;
        p->receives++;
        carry_when_ready(r, r->acts[p->next_receive], r->c->clock[rank]);
    }
}

/* Whether the message has left; if not, the rank waits or continues later. */
static bool has_been_sent(reduction *r, int rank, int32_t index)
{
    double *clock = &r->c->clock[rank];
    const message *m = &r->messages[index];
    if (m->carried && m->away <= *clock)
        return true;
    if (m->carried) {
        *clock = m->away;
        nd_clock_push(&r->ready, rank);
    } else {
        r->places[rank].waits = index;
    }
    return false;
}

static const message *act_at(const reduction *r, int64_t at)
{
    return &r->messages[r->acts[at]];
}

static bool all_sent(reduction *r, int rank)
{
    const place *p = &r->places[rank];
    const int64_t kept = p->sends < ND_WIRE_DEPTH ? p->sends : ND_WIRE_DEPTH;
    bool left = true;
    for (int64_t i = p->sends - kept; left && i < p->sends; i++)
        left = has_been_sent(r, rank, p->leaving[i % ND_WIRE_DEPTH]);
    return left;
}

/* Starts sends of the current level. */
static bool send_ahead(reduction *r, int rank)
{
    place *p = &r->places[rank];
    const int level = act_at(r, p->at)->level;
    for (; p->next_send < p->end && p->sends < p->passed + ND_WIRE_DEPTH &&
           act_at(r, p->next_send)->level == level;
         p->next_send++) {
        const int32_t index = r->acts[p->next_send];
        int32_t *oldest = &p->leaving[p->sends % ND_WIRE_DEPTH];
        if (r->messages[index].from != rank)
            continue;
        if (p->sends >= ND_WIRE_DEPTH && !has_been_sent(r, rank, *oldest))
            return false;
        *oldest = index;
        p->sends++;
        r->messages[index].started = true;
        carry_when_ready(r, index, r->c->clock[rank]);
    }
    return true;
}

static bool receive(reduction *r, int rank, int32_t index)
{
    place *p = &r->places[rank];
    const message *m = &r->messages[index];
    double *clock = &r->c->clock[rank];
    if (!m->carried) {
        p->waits = index;
        return false;
    }
    *clock = (m->here > *clock ? m->here : *clock) + m->bytes * r->c->m->add_per_byte;
    p->at++;
    p->taken++;
    nd_clock_push(&r->ready, rank);
    return false;
}

static void advance(reduction *r, int rank)
{
    place *p = &r->places[rank];
    bool goes = true;
    while (goes && p->at < p->end) {
        const int32_t index = r->acts[p->at];
        if (r->messages[index].level != p->level && !all_sent(r, rank))
            return;
        p->level = r->messages[index].level;
        open_receives(r, rank);
        if (!send_ahead(r, rank))
            return;
        if (r->messages[index].from != rank) {
            goes = receive(r, rank, index);
        } else {
            p->passed++;
            p->at++;
        }
    }
    if (goes)
        all_sent(r, rank);
}

static nd_status take_memory(reduction *r, int64_t total)
{
    const size_t ranks = (size_t)r->c->m->ranks;
    r->messages = malloc(((size_t)total + 1) * sizeof *r->messages);
    r->acts = malloc((2 * (size_t)total + 1) * sizeof *r->acts);
    r->places = calloc(ranks, sizeof *r->places);
    r->ready.list = calloc(ranks, sizeof *r->ready.list);
    return ND_CHECK(r->messages && r->acts && r->places && r->ready.list, ND_ENOMEM,
                    "no memory for %lld messages of a plan", (long long)total);
}

static void release_memory(reduction *r)
{
    free(r->messages);
    free(r->acts);
    free(r->places);
    free(r->ready.list);
}

static nd_status run(reduction *r, const nd_cost_work *work, const nd_cost_piece *pieces,
                     nd_part_order order)
{
    list_parts(r, work, pieces, order, count_message);
    for (int level = 0; level < LEVELS; level++)
        r->level_at[level + 1] += r->level_at[level];
    const int64_t total = r->level_at[LEVELS];
    ND_TRY(take_memory(r, total));
    list_parts(r, work, pieces, order, list_message);
    share_acts(r, total);
    for (int rank = 0; rank < r->c->m->ranks; rank++)
        nd_clock_push(&r->ready, rank);
    while (r->ready.count > 0)
        advance(r, nd_clock_pop(&r->ready));
    return ND_OK;
}

nd_status nd_cost_reduce(nd_cost_clocks *c, const nd_cost_work *work, const nd_cost_piece *pieces,
                         int64_t count)
{
    ND_CLEANUP(release_memory)
    reduction r = {.c = c, .ready = {.clock = c->clock, .stride = sizeof *c->clock}};
    double all = 0.0;
    ND_AUTOFREE size_t *bytes = calloc((size_t)count + 1, sizeof *bytes);
    ND_FAIL_IF(!bytes, ND_ENOMEM, "no memory for the messages of a plan");
    for (int64_t i = 0; i < count; i++)
        all += (double)(bytes[i] = (size_t)pieces[i].bytes);
    const size_t size = nd_reduction_part_bytes((size_t)nd_cost_part_bytes(c->m, all),
                                                work->format != ND_GRADIENT_WIRE_FP32);
    return run(&r, work, pieces, nd_part_order_of(bytes, NULL, count, size));
}
