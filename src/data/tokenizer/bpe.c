#include "data/tokenizer/bpe.h"

#include "core/base/grow.h"
#include "data/tokenizer/utf8.h"

#include <stdlib.h>
#include <string.h>

enum { NO_PIECE = -1, SPACE_ESCAPE = 0x2581, NEIGHBOR_BITS = 18 };

/* Open addressing; key 0 marks an empty slot, so keys are stored plus one. */
typedef struct table {
    uint64_t *keys;
    int32_t *values;
    uint64_t mask;
} table;

struct nd_bpe {
    const nd_model_file *model;
    int32_t ascii[128]; /* piece of a one-character text, or NO_PIECE */
    table characters;   /* code point -> piece, beyond ASCII */
    table pairs;        /* left piece << 32 | right piece -> piece of their union */
    uint32_t *rank;     /* [pieces]: 0 is merged first */
    uint8_t *neighbors; /* bit set of hashed (left, right) characters that some piece joins */
};

static uint64_t hash_key(uint64_t key)
{
    key *= 0x9e3779b97f4a7c15u;
    return key ^ key >> 32;
}

static bool table_open(table *t, size_t entries)
{
    size_t slots = 16;
    while (slots < 2 * entries)
        slots *= 2;
    t->keys = calloc(slots, sizeof *t->keys);
    t->values = malloc(slots * sizeof *t->values);
    t->mask = slots - 1;
    return t->keys && t->values;
}

static void table_close(table *t)
{
    free(t->keys);
    free(t->values);
}

static void table_put(table *t, uint64_t key, int32_t value)
{
    uint64_t slot = hash_key(key) & t->mask;
    while (t->keys[slot] != 0 && t->keys[slot] != key + 1)
        slot = (slot + 1) & t->mask;
    t->keys[slot] = key + 1;
    t->values[slot] = value;
}

static int32_t table_get(const table *t, uint64_t key)
{
    uint64_t slot = hash_key(key) & t->mask;
    while (t->keys[slot] != 0) {
        if (t->keys[slot] == key + 1)
            return t->values[slot];
        slot = (slot + 1) & t->mask;
    }
    return NO_PIECE;
}

static uint64_t pair_key(int32_t left, int32_t right)
{
    return (uint64_t)(uint32_t)left << 32 | (uint32_t)right;
}

static uint32_t neighbor_bit(uint32_t left, uint32_t right)
{
    return (uint32_t)(hash_key((uint64_t)left << 32 | right) & ((1u << NEIGHBOR_BITS) - 1));
}

static bool may_join(const nd_bpe *bpe, uint32_t left, uint32_t right)
{
    const uint32_t bit = neighbor_bit(left, right);
    return bpe->neighbors[bit >> 3] >> (bit & 7) & 1;
}

static int32_t piece_of_character(const nd_bpe *bpe, uint32_t code)
{
    if (code < 128)
        return bpe->ascii[code];
    return code == SPACE_ESCAPE ? NO_PIECE : table_get(&bpe->characters, code);
}

typedef struct sorted_piece {
    const char *text;
    uint32_t bytes;
    int32_t token;
    float score;
} sorted_piece;

static int by_text(const void *a, const void *b)
{
    const sorted_piece *left = a, *right = b;
    const uint32_t shorter = left->bytes < right->bytes ? left->bytes : right->bytes;
    const int order = memcmp(left->text, right->text, shorter);
    return order ? order : (left->bytes > right->bytes) - (left->bytes < right->bytes);
}

static int by_score(const void *a, const void *b)
{
    const float left = ((const sorted_piece *)a)->score, right = ((const sorted_piece *)b)->score;
    return (left < right) - (left > right);
}

static int32_t find_text(const sorted_piece *pieces, size_t count, const char *text, uint32_t bytes)
{
    const sorted_piece key = {text, bytes, 0, 0};
    const sorted_piece *found = bsearch(&key, pieces, count, sizeof *pieces, by_text);
    return found ? found->token : NO_PIECE;
}

/* Visits the splits of all pieces between two characters: marks the characters as neighbors and,
 * with `store`, stores the pairs and single characters that form pieces. Returns the number. */
static size_t visit_splits(nd_bpe *bpe, const sorted_piece *pieces, size_t count, bool store)
{
    size_t splits = 0;
    for (size_t i = 0; i < count; i++) {
        const sorted_piece *piece = &pieces[i];
        uint32_t previous = 0, code;
        for (uint32_t at = 0; at < piece->bytes;) {
            const size_t length = nd_utf8_decode(piece->text + at, piece->bytes - at, &code);
            if (length == 0)
                break; /* invalid UTF-8 matches no text */
            if (at > 0) {
                splits++;
                const uint32_t bit = neighbor_bit(previous, code);
                bpe->neighbors[bit >> 3] |= (uint8_t)(1u << (bit & 7));
            }
            if (at > 0 && store) {
                const int32_t left = find_text(pieces, count, piece->text, at);
                const int32_t right = find_text(pieces, count, piece->text + at, piece->bytes - at);
                if (left != NO_PIECE && right != NO_PIECE)
                    table_put(&bpe->pairs, pair_key(left, right), piece->token);
            } else if (store && length == piece->bytes && code < 128) {
                bpe->ascii[code] = piece->token;
            } else if (store && length == piece->bytes) {
                table_put(&bpe->characters, code, piece->token);
            }
            previous = code;
            at += (uint32_t)length;
        }
    }
    return splits;
}

static nd_status build_tables(nd_bpe *bpe, sorted_piece *pieces, const char *name)
{
    const nd_model_file *model = bpe->model;
    size_t count = 0;
    for (int token = 0; token < model->count; token++) {
        const nd_piece *piece = &model->pieces[token];
        if (piece->type == ND_PIECE_NORMAL)
            pieces[count++] = (sorted_piece){piece->text, piece->bytes, token, piece->score};
    }
    qsort(pieces, count, sizeof *pieces, by_score);
    for (size_t i = 0; i < count; i++) {
        const bool tie = i > 0 && pieces[i].score >= pieces[i - 1].score;
        bpe->rank[pieces[i].token] = tie ? bpe->rank[pieces[i - 1].token] : (uint32_t)i;
    }
    qsort(pieces, count, sizeof *pieces, by_text);
    for (size_t i = 1; i < count; i++) {
        ND_FAIL_IF(by_text(&pieces[i - 1], &pieces[i]) == 0, ND_EDATA,
                   "%s: pieces %d and %d are the same text; the file is damaged", name,
                   pieces[i - 1].token, pieces[i].token);
    }
    const size_t splits = visit_splits(bpe, pieces, count, false);
    ND_FAIL_IF(!table_open(&bpe->pairs, splits) || !table_open(&bpe->characters, count), ND_ENOMEM,
               "%s: no memory for its merge table", name);
    visit_splits(bpe, pieces, count, true);
    return ND_OK;
}

nd_status nd_bpe_open(const nd_model_file *model, const char *name, nd_bpe **bpe)
{
    *bpe = NULL;
    nd_bpe *b = calloc(1, sizeof *b);
    ND_FAIL_IF(!b, ND_ENOMEM, "%s: no memory for the tokenizer", name);
    b->model = model;
    for (int i = 0; i < 128; i++)
        b->ascii[i] = NO_PIECE;
    const size_t count = (size_t)model->count;
    ND_AUTOFREE sorted_piece *pieces = malloc(count * sizeof *pieces);
    b->rank = calloc(count, sizeof *b->rank);
    b->neighbors = calloc(1, 1u << (NEIGHBOR_BITS - 3));
    nd_status status = ND_CHECK(pieces && b->rank && b->neighbors, ND_ENOMEM,
                                "%s: no memory for the tokenizer", name);
    ND_IF_OK(build_tables(b, pieces, name));
    ND_RETURN_MADE(status, b, nd_bpe_close, bpe);
}

void nd_bpe_close(nd_bpe *bpe)
{
    if (!bpe)
        return;
    table_close(&bpe->characters);
    table_close(&bpe->pairs);
    free(bpe->rank);
    free(bpe->neighbors);
    free(bpe);
}

typedef struct symbol {
    int32_t piece;
    uint32_t bytes; /* 0 once merged into its left neighbor */
    int32_t previous, next;
} symbol;

typedef struct merge {
    uint64_t order; /* rank << 32 | left symbol: the smallest goes first */
    uint32_t bytes; /* of the union: differs when either side has changed since */
    int32_t piece;
} merge;

/* Text between two boundaries, which is encoded at once. */
typedef struct run {
    symbol *symbols;
    size_t count, capacity;
    merge *heap;
    size_t heap_count, heap_capacity;
} run;

static bool append_id(nd_id_list *out, int32_t id)
{
    int32_t *ids = nd_grown(out->ids, &out->capacity, out->count + 1, sizeof *ids);
    if (!ids)
        return false;
    out->ids = ids;
    out->ids[out->count++] = id;
    return true;
}

static void sift_up(merge *heap, size_t at)
{
    const merge moved = heap[at];
    while (at > 0 && moved.order < heap[(at - 1) / 2].order) {
        heap[at] = heap[(at - 1) / 2];
        at = (at - 1) / 2;
    }
    heap[at] = moved;
}

static merge pop_merge(run *r)
{
    const merge top = r->heap[0];
    const merge moved = r->heap[--r->heap_count];
    size_t at = 0;
    for (size_t child = 1; child < r->heap_count; child = 2 * at + 1) {
        if (child + 1 < r->heap_count && r->heap[child + 1].order < r->heap[child].order)
            child++;
        if (moved.order <= r->heap[child].order)
            break;
        r->heap[at] = r->heap[child];
        at = child;
    }
    r->heap[at] = moved;
    return top;
}

static bool push_merge(const nd_bpe *bpe, run *r, int32_t left)
{
    const int32_t right = r->symbols[left].next;
    const int32_t piece =
        table_get(&bpe->pairs, pair_key(r->symbols[left].piece, r->symbols[right].piece));
    if (piece == NO_PIECE)
        return true;
    merge *heap = nd_grown(r->heap, &r->heap_capacity, r->heap_count + 1, sizeof *heap);
    if (!heap)
        return false;
    r->heap = heap;
    r->heap[r->heap_count] = (merge){(uint64_t)bpe->rank[piece] << 32 | (uint32_t)left,
                                     r->symbols[left].bytes + r->symbols[right].bytes, piece};
    sift_up(r->heap, r->heap_count++);
    return true;
}

/* Merges the run's symbols and appends the resulting pieces to `out`. */
static bool merge_run(const nd_bpe *bpe, run *r, nd_id_list *out)
{
    const int32_t count = (int32_t)r->count;
    r->heap_count = 0;
    for (int32_t i = 0; i + 1 < count; i++) {
        if (!push_merge(bpe, r, i))
            return false;
    }
    while (r->heap_count > 0) {
        const merge m = pop_merge(r);
        const int32_t left = (int32_t)(uint32_t)m.order;
        symbol *s = &r->symbols[left];
        if (s->bytes == 0 || s->next < 0 || s->bytes + r->symbols[s->next].bytes != m.bytes)
            continue;
        symbol *merged = &r->symbols[s->next];
        *s = (symbol){m.piece, m.bytes, s->previous, merged->next};
        merged->bytes = 0;
        if (s->next >= 0) {
            r->symbols[s->next].previous = left;
            if (!push_merge(bpe, r, left))
                return false;
        }
        if (s->previous >= 0 && !push_merge(bpe, r, s->previous))
            return false;
    }
    for (int32_t i = count > 0 ? 0 : -1; i >= 0; i = r->symbols[i].next) {
        if (!append_id(out, r->symbols[i].piece))
            return false;
    }
    r->count = 0;
    return true;
}

static bool add_symbol(run *r, int32_t piece, size_t bytes)
{
    symbol *symbols = nd_grown(r->symbols, &r->capacity, r->count + 1, sizeof *symbols);
    if (!symbols)
        return false;
    r->symbols = symbols;
    const int32_t at = (int32_t)r->count++;
    r->symbols[at] = (symbol){piece, (uint32_t)bytes, at - 1, -1};
    if (at > 0)
        r->symbols[at - 1].next = at;
    return true;
}

static bool encode(const nd_bpe *bpe, const char *text, size_t bytes, run *r, nd_id_list *out)
{
    uint32_t previous = 0, code = 0;
    for (size_t at = 0; at < bytes;) {
        size_t length = nd_utf8_decode(text + at, bytes - at, &code);
        const int32_t piece = length ? piece_of_character(bpe, code) : NO_PIECE;
        if (r->count > 0 &&
            (piece == NO_PIECE || r->count == ND_BPE_RUN_MAX || !may_join(bpe, previous, code))) {
            if (!merge_run(bpe, r, out))
                return false;
        }
        if (piece != NO_PIECE) {
            if (!add_symbol(r, piece, length))
                return false;
        } else {
            length = length ? length : 1;
            for (size_t i = 0; i < length; i++) {
                if (!append_id(out, bpe->model->byte_pieces[(unsigned char)text[at + i]]))
                    return false;
            }
        }
        previous = code;
        at += length;
    }
    return merge_run(bpe, r, out);
}

nd_status nd_bpe_encode(const nd_bpe *bpe, const char *text, size_t bytes, nd_id_list *out)
{
    run r = {0};
    const bool ok = encode(bpe, text, bytes, &r, out);
    free(r.symbols);
    free(r.heap);
    return ND_CHECK(ok, ND_ENOMEM, "no memory to encode %zu bytes of text", bytes);
}

size_t nd_bpe_safe_cut(const nd_bpe *bpe, const char *text, size_t bytes)
{
    /* Most texts have a boundary between two ASCII characters near the end. */
    for (size_t at = bytes; at-- > 1;) {
        const unsigned char left = (unsigned char)text[at - 1], right = (unsigned char)text[at];
        if (left < 128 && right < 128 &&
            (bpe->ascii[left] == NO_PIECE || bpe->ascii[right] == NO_PIECE ||
             !may_join(bpe, left, right)))
            return at;
    }
    size_t cut = 0;
    uint32_t previous = 0, code = 0;
    bool joinable = false; /* the character before `at` is a piece */
    for (size_t at = 0; at < bytes;) {
        const size_t length = nd_utf8_decode(text + at, bytes - at, &code);
        if (length == 0 && bytes - at < 4)
            break; /* possibly an incomplete character */
        const bool piece = length && piece_of_character(bpe, code) != NO_PIECE;
        if (at > 0 && (!joinable || !piece || !may_join(bpe, previous, code)))
            cut = at;
        joinable = piece;
        previous = code;
        at += length ? length : 1;
    }
    return cut;
}
