/* GGUF files: what is exported can be read back, weight by weight; what is damaged is refused. */
#include "core/base/float_formats.h"
#include "exchange/export.h"
#include "exchange/gguf_read.h"
#include "exchange/gguf_write.h"
#include "exchange/ternary_blocks.h"
#include "exchange/ternary_decode.h"
#include "support/run_files.h"
#include "support/support.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static char directory[64], run[128], path[128];

static const char *const types[] = {"tq2_0", "tq1_0", "q2_0", "f16", "f32"};

static void setup(void)
{
    static const char text[] =
        "[model]\nhidden_dim = 256\nnum_layers = 1\nnum_heads = 4\nnum_kv_heads = 2\nffn_mult = 2\n"
        "max_seq_len = 64\nvocab_size = 64\n[training]\ntotal_steps = 1\nbatch_size = 2\n"
        "seq_length = 16\nwarmup_steps = 1\n[data]\ndataset = synthetic\nn_samples = 8\n"
        "[logging]\neval_interval = 0\neval_samples = 1\n";
    char config[128];
    strcpy(directory, nd_test_directory());
    snprintf(config, sizeof config, "%s/config.ini", directory);
    snprintf(run, sizeof run, "%s/run", directory);
    snprintf(path, sizeof path, "%s/new/model.gguf", directory); /* export makes new/ */
    nd_test_write_file(config, text, sizeof text - 1);
}

static void teardown(void)
{
    nd_test_remove_directory(directory);
}

TestSuite(gguf, .init = setup, .fini = teardown);

static void train(const char *extra)
{
    char config[128];
    snprintf(config, sizeof config, "%s/config.ini", directory);
    nd_test_train(0, 0, config, run, extra);
}

static void export_as(int type)
{
    nd_source source;
    ND_ASSERT_OK(nd_source_open(run, &source));
    ND_ASSERT_OK(nd_export_gguf(&source, (nd_gguf_export_type)type, path));
    nd_source_close(&source);
}

/* One weight of a tensor in the file. */
static float weight_of(const nd_gguf_tensor *t, int64_t row, int64_t col)
{
    int8_t codes[256];
    uint16_t half;
    float value;
    const uint64_t index = (uint64_t)row * t->lengths[0] + (uint64_t)col;
    const uint8_t *block = t->data + index / t->type->block_weights * t->type->block_bytes;
    switch (t->type->number) {
    case ND_GGML_F32:
        memcpy(&value, block, sizeof value);
        return value;
    case ND_GGML_F16:
        memcpy(&half, block, sizeof half);
        return nd_f16_to_float(half);
    default:
        cr_assert(decode_ternary_block(t->type->number, block, codes, &half));
        return (float)codes[index % t->type->block_weights] * nd_f16_to_float(half);
    }
}

static void check_tensor(const nd_source *source, int64_t index, const nd_gguf_tensor *t, int type)
{
    nd_source_tensor s;
    ND_ASSERT_OK(nd_source_read(source, index, &s));
    const nd_param *p = s.param;
    cr_assert_eq(t->name.bytes, strlen(p->name));
    cr_assert_eq(memcmp(t->name.at, p->name, t->name.bytes), 0);
    cr_assert_eq(t->dimensions, p->role == ND_ROLE_NORM ? 1 : 2);
    cr_assert_eq(t->lengths[0], (uint64_t)p->cols);
    cr_assert_eq(t->lengths[1], (uint64_t)p->rows);
    for (int64_t row = 0; row < p->rows; row++)
        for (int64_t col = 0; col < p->cols; col += 1 + (row % 3)) {
            const int64_t at = row * p->cols + col;
            float expected =
                s.values ? s.values[at] : (float)s.codes[at] * nd_source_scale(&s, row, col);
            if (s.values && p->role != ND_ROLE_NORM && type != ND_EXPORT_F32)
                expected = nd_f16_round(expected);
            cr_assert(weight_of(t, row, col) == expected, "%s %s [%d, %d]: %.9g, expected %.9g",
                      types[type], p->name, (int)row, (int)col, (double)weight_of(t, row, col),
                      (double)expected);
        }
    nd_source_tensor_free(&s);
}

static void check_export(int type)
{
    size_t size;
    nd_gguf g;
    nd_source source;
    export_as(type);
    char *bytes = nd_test_read_file(path, &size);
    ND_ASSERT_OK(nd_gguf_parse(bytes, size, path, &g));
    ND_ASSERT_OK(nd_source_open(run, &source));
    cr_assert_eq((int64_t)g.tensor_count, source.params.count);
    for (int64_t i = 0; i < source.params.count; i++)
        check_tensor(&source, i, &g.tensors[i], type);
    nd_source_close(&source);
    nd_gguf_free(&g);
    free(bytes);
}

Test(gguf, every_weight_of_every_type_is_the_checkpoints)
{
    train("");
    for (int type = 0; type < 5; type++)
        check_export(type);
}

Test(gguf, groups_keep_their_scales)
{
    train("--set model.arch=llama --set model.tie_embeddings=false --set model.group_size=256 "
          "--set model.ffn_mult=2");
    for (int type = 0; type < 5; type++)
        check_export(type);
}

Test(gguf, masters_in_bf16_are_exported_too)
{
    train("--set optimizer.master_precision=bf16");
    check_export(ND_EXPORT_TQ2_0);
}

static double number(const nd_gguf *g, const char *key)
{
    const nd_gguf_pair *pair = nd_gguf_find(g, key);
    cr_assert(pair != NULL, "no %s", key);
    return nd_gguf_number(pair);
}

Test(gguf, the_metadata_describe_the_graph)
{
    size_t size;
    nd_gguf g;
    train("");
    export_as(ND_EXPORT_TQ2_0);
    char *bytes = nd_test_read_file(path, &size);
    ND_ASSERT_OK(nd_gguf_parse(bytes, size, path, &g));
    const uint8_t *at = nd_gguf_find(&g, "general.architecture")->value;
    const nd_gguf_span arch = nd_gguf_next_text(&at);
    cr_assert_eq(memcmp(arch.at, "bitnet", arch.bytes), 0);
    cr_assert_eq(number(&g, "general.file_type"), 37);
    cr_assert_eq(number(&g, "general.quantization_version"), 2);
    cr_assert_eq(number(&g, "bitnet.context_length"), 64);
    cr_assert_eq(number(&g, "bitnet.embedding_length"), 256);
    cr_assert_eq(number(&g, "bitnet.block_count"), 1);
    cr_assert_eq(number(&g, "bitnet.feed_forward_length"), 512);
    cr_assert_eq(number(&g, "bitnet.attention.head_count"), 4);
    cr_assert_eq(number(&g, "bitnet.attention.head_count_kv"), 2);
    cr_assert_eq(number(&g, "bitnet.attention.layer_norm_rms_epsilon"), (double)1e-5f);
    cr_assert_eq(number(&g, "bitnet.rope.dimension_count"), 64);
    cr_assert_eq(number(&g, "bitnet.rope.freq_base"), 10000);
    nd_gguf_free(&g);
    free(bytes);
}

Test(gguf, a_file_cut_anywhere_is_refused)
{
    size_t size;
    nd_gguf g;
    train("");
    export_as(ND_EXPORT_TQ2_0);
    char *bytes = nd_test_read_file(path, &size);
    for (size_t cut = 0; cut < size - 31; cut += cut < 4000 ? 1 : 997) {
        nd_error_clear();
        cr_assert_eq(nd_gguf_parse(bytes, cut, path, &g), ND_EDATA, "%zu of %zu bytes", cut, size);
    }
    free(bytes);
}

Test(gguf, verifying_finds_a_bit_that_changed_in_the_data)
{
    size_t size;
    char *text = NULL;
    size_t text_size = 0;
    train("");
    export_as(ND_EXPORT_TQ2_0);
    FILE *out = open_memstream(&text, &text_size);
    ND_ASSERT_OK(nd_gguf_print(path, true, out));
    char *bytes = nd_test_read_file(path, &size);
    bytes[size - 200] = (char)(bytes[size - 200] ^ 4);
    nd_test_write_file(path, bytes, size);
    ND_ASSERT_OK(nd_gguf_print(path, false, out));
    ND_ASSERT_FAILS(nd_gguf_print(path, true, out), ND_EDATA, "damaged: the data's SHA-256");
    fclose(out);
    cr_assert(strstr(text, "the data has the checksum the file states") != NULL);
    cr_assert(strstr(text, "blk.0.attn_q.weight          TQ2_0   [256, 256] 16896 bytes") != NULL);
    free(text);
    free(bytes);
}

Test(gguf, groups_narrower_than_a_block_are_refused_where_blocks_cannot_hold_them)
{
    nd_source source;
    train("--set model.group_size=64");
    ND_ASSERT_OK(nd_source_open(run, &source));
    ND_ASSERT_FAILS(nd_export_gguf(&source, ND_EXPORT_TQ2_0, path), ND_ECONFIG,
                    "blocks of TQ2_0 hold 256 weights with one scale, the model's groups 64");
    ND_ASSERT_FAILS(nd_export_gguf(&source, ND_EXPORT_TQ1_0, path), ND_ECONFIG, "group_size");
    ND_ASSERT_OK(nd_export_gguf(&source, ND_EXPORT_Q2_0, path));
    nd_source_close(&source);
    check_export(ND_EXPORT_Q2_0);
    check_export(ND_EXPORT_F32);
}

/* A header of our own making with one thing wrong. */
static void check_refused(void (*declare)(nd_gguf_writer *w), size_t at, const void *bytes,
                          size_t count, const char *says)
{
    nd_gguf_writer *w;
    nd_gguf g;
    size_t size;
    const float zeros[8] = {0};
    ND_ASSERT_OK(nd_gguf_writer_create(&w));
    nd_gguf_put_tensor(w, "first", ND_GGML_F32, 1, 8, true);
    declare(w);
    ND_ASSERT_OK(nd_gguf_writer_start(w, path));
    ND_ASSERT_OK(nd_gguf_write(w, zeros, sizeof zeros));
    ND_ASSERT_OK(nd_gguf_writer_end_tensor(w));
    ND_ASSERT_OK(nd_gguf_writer_finish(w));
    nd_gguf_writer_close(w);
    char *file = nd_test_read_file(path, &size);
    memcpy(file + at, bytes, count);
    ND_ASSERT_FAILS(nd_gguf_parse(file, size, path, &g), ND_EDATA, says);
    free(file);
}

static void nothing(nd_gguf_writer *w)
{
    (void)w;
}

static void twice(nd_gguf_writer *w)
{
    nd_gguf_put_u32(w, "a.key", 1);
    nd_gguf_put_u32(w, "a.key", 2);
}

static void odd_alignment(nd_gguf_writer *w)
{
    nd_gguf_put_u32(w, "general.alignment", 48);
}

Test(gguf, a_header_that_contradicts_itself_is_refused)
{
    const uint64_t many = UINT64_MAX / 2;
    const uint32_t version = 4;
    check_refused(nothing, 0, "GGUX", 4, "not a GGUF file");
    check_refused(nothing, 4, &version, 4, "GGUF version 4");
    check_refused(nothing, 8, &many, 8, "more than its");
    check_refused(nothing, 24, &many, 8, "damaged or cut short");
    check_refused(twice, 0, "GGUF", 4, "'a.key' appears twice");
    check_refused(odd_alignment, 0, "GGUF", 4, "general.alignment is 48");
}

/* A header of tensors of I8 with these lengths, each starting where the sizes before it add up to,
 * modulo 2^64. */
static size_t write_tensors(const uint64_t *lengths, uint64_t count, uint8_t bytes[512])
{
    const uint64_t counts[2] = {count, 0};
    const uint32_t version = 3, one = 1, type = 24;
    uint64_t offset = 0;
    FILE *out = fmemopen(bytes, 512, "wb");
    cr_assert(out != NULL);
    fwrite("GGUF", 1, 4, out);
    fwrite(&version, sizeof version, 1, out);
    fwrite(counts, sizeof counts, 1, out);
    for (uint64_t i = 0; i < count; i++) {
        const uint64_t name_bytes = 1;
        fwrite(&name_bytes, sizeof name_bytes, 1, out);
        fputc('a' + (int)i, out);
        fwrite(&one, sizeof one, 1, out);
        fwrite(&lengths[i], sizeof lengths[i], 1, out);
        fwrite(&type, sizeof type, 1, out);
        fwrite(&offset, sizeof offset, 1, out);
        offset += (lengths[i] + ND_GGUF_ALIGNMENT - 1) / ND_GGUF_ALIGNMENT * ND_GGUF_ALIGNMENT;
    }
    const long size = ftell(out);
    fclose(out);
    return ((size_t)size + ND_GGUF_ALIGNMENT - 1) / ND_GGUF_ALIGNMENT * ND_GGUF_ALIGNMENT;
}

Test(gguf, tensors_whose_sizes_wrap_around_are_refused)
{
    static const uint64_t cases[][3] = {
        {INT64_MAX - 32, INT64_MAX - 32, 64},
        {INT64_MAX - 31, INT64_MAX - 31, 64},
        {INT64_MAX, INT64_MAX, 2},
        {INT64_MAX / 32 * 32, INT64_MAX / 32 * 32, 64},
        {INT64_MAX / 2, INT64_MAX / 2, INT64_MAX / 2},
    };
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        uint8_t bytes[512] = {0};
        nd_gguf g;
        const size_t size = write_tensors(cases[i], 3, bytes);
        ND_ASSERT_FAILS(nd_gguf_parse(bytes, size, "wraps.gguf", &g), ND_EDATA, "wraps.gguf: ");
        nd_error_clear();
    }
}
