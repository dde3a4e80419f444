/* The way out and back: safetensors exported, imported, exported again, and trained on. */
#include "support/run_files.h"
#include "support/support.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static char output[16384];

TestSuite(import, .init = nd_test_run_setup, .fini = nd_test_run_teardown);

/* Runs `nanochat_dist ...` in the test's directory. */
static int run(const char *arguments)
{
    return nd_test_shell(output, sizeof output, "cd %s && B=%s && %s", nd_test_here.directory,
                         ND_BINARY, arguments);
}

#define ASSERT_RUNS(arguments) cr_assert_eq(run(arguments), 0, "%s: %s", arguments, output)

static void train(const char *extra)
{
    char path[128];
    snprintf(path, sizeof path, "%s/run", nd_test_here.directory);
    nd_test_train(0, 0, nd_test_here.config, path, extra);
}

static void check_round_trip(const char *extra)
{
    train(extra);
    ASSERT_RUNS("for t in bf16 f32; do rm -rf a b r && "
                "$B export --checkpoint run --format safetensors --type $t --out a && "
                "$B import --from a --out r && "
                "$B export --checkpoint r --format safetensors --type $t --out b && "
                "diff -r a b && $B info --verify a && $B info --verify r || exit 1; done");
    /* f32 loses nothing, so that GGUF files of both are the same as well. */
    ASSERT_RUNS("for t in f32 f16; do $B export --checkpoint run --type $t --out a.gguf && "
                "$B export --checkpoint r --type $t --out b.gguf && cmp a.gguf b.gguf || exit 1; "
                "done");
}

Test(import, export_import_export_gives_the_same_bytes)
{
    check_round_trip("--set training.total_steps=2");
}

Test(import, and_so_with_the_other_graph_an_untied_head_and_groups)
{
    check_round_trip("--set training.total_steps=2 --set model.arch=llama "
                     "--set model.tie_embeddings=false --set model.group_size=16 "
                     "--set model.rope_base=12345.678 --set model.ffn_mult=2.5");
}

Test(import, bf16_keeps_the_exact_scales_beside_the_rounded_weights)
{
    train("--set training.total_steps=2 --set model.hidden_dim=64 --set model.ffn_mult=2");
    ASSERT_RUNS("$B export --checkpoint run --format safetensors --type bf16 --out a && "
                "$B import --from a --out r && "
                "$B export --checkpoint run --type q2_0 --out a.gguf && "
                "$B export --checkpoint r --type q2_0 --out b.gguf && "
                "$B info a.gguf | grep tensor > a.txt && $B info b.gguf | grep tensor > b.txt && "
                "cmp a.txt b.txt");
    /* Embedding and norms were rounded; the projections' blocks are those of the first export. */
    char path[128];
    size_t size;
    snprintf(path, sizeof path, "%s/a.gguf", nd_test_here.directory);
    char *a = nd_test_read_file(path, &size);
    snprintf(path, sizeof path, "%s/b.gguf", nd_test_here.directory);
    char *b = nd_test_read_file(path, &size);
    const size_t last = 64 * 4 + 64 * 2 * 18; /* output_norm, and ffn_down before it */
    cr_assert_eq(memcmp(a + size - last, b + size - last, 64 * 2 * 18), 0);
    free(a);
    free(b);
}

Test(import, an_imported_model_evaluates_as_the_one_exported)
{
    char first[512];
    train("");
    ASSERT_RUNS(
        "$B eval --checkpoint run --samples 6 --precision fp32 --json | sed 's/.*val_loss//'");
    snprintf(first, sizeof first, "%.500s", output);
    ASSERT_RUNS("$B export --checkpoint run --format safetensors --type f32 --out a && "
                "$B import --from a --out r");
    /* A step that moves nothing gives it the data that the test's configuration names. */
    ASSERT_RUNS(
        "$B --config config.ini --run-dir r --resume auto --set training.learning_rate=0 "
        "--set optimizer.embedding_lr=0 --set optimizer.norm_lr=0 --total-steps 1 && "
        "$B eval --checkpoint r --samples 6 --precision fp32 --json | sed 's/.*val_loss//'");
    cr_assert(strstr(output, first) != NULL, "%s, expected %s", output, first);
}

Test(import, training_goes_on_from_step_0_with_any_optimizer)
{
    static const char *const options[] = {"", "--set training.optimizer_type=adamw",
                                          "--set training.use_8bit_optim=true",
                                          "--set optimizer.master_precision=bf16"};
    train("");
    ASSERT_RUNS("$B export --checkpoint run --format safetensors --out a");
    for (size_t i = 0; i < sizeof options / sizeof options[0]; i++) {
        char path[128], command[1024];
        double losses[ND_TEST_STEPS_MAX], before[ND_TEST_STEPS_MAX];
        snprintf(command, sizeof command,
                 "rm -rf r && $B import --from a --out r && "
                 "$B --config config.ini --run-dir r --resume auto %s",
                 options[i]);
        ASSERT_RUNS(command);
        cr_assert(strstr(output, "resumed") != NULL && strstr(output, "at step 0") != NULL, "%s",
                  output);
        snprintf(path, sizeof path, "%s/r", nd_test_here.directory);
        cr_assert_eq(nd_test_metric(path, "loss", losses), 12);
        snprintf(path, sizeof path, "%s/run", nd_test_here.directory);
        nd_test_metric(path, "loss", before);
        /* It begins where the exported run ended, not where a new one does. */
        cr_assert_lt(fabs(losses[0] - before[11]), 0.5 * fabs(before[0] - before[11]) + 0.2,
                     "first loss %g; the run went from %g to %g", losses[0], before[0], before[11]);
    }
}

Test(import, a_second_import_into_the_same_run_is_refused)
{
    train("--set training.total_steps=1");
    ASSERT_RUNS(
        "$B export --checkpoint run --format safetensors --out a && $B import --from a --out r");
    cr_assert_eq(run("$B import --from a --out r"), 2);
    cr_assert(strstr(output, "holds 1 checkpoints already") != NULL, "%s", output);
    ASSERT_RUNS("mv run/checkpoints elsewhere");
    cr_assert_eq(run("$B import --from a --out run"), 2);
    cr_assert(strstr(output, "run/config.ini: there is a run already") != NULL, "%s", output);
}

Test(import, the_command_that_trains_on_can_be_pasted)
{
    train("--set training.total_steps=1");
    ASSERT_RUNS("mkdir \"it's here\" && "
                "$B export --checkpoint run --format safetensors --out a && "
                "$B import --from a --out \"it's here/r\" > said && "
                "eval \"set -- $(sed -n 's/^next *//p' said)\" && "
                "test \"$4\" = \"it's here/r/checkpoints/latest/config.ini\" && test -f \"$4\" && "
                "test \"$8\" = \"it's here/r\"");
}

Test(import, an_export_fills_an_empty_directory)
{
    train("--set training.total_steps=1");
    ASSERT_RUNS("mkdir a && $B export --checkpoint run --format safetensors --out a && "
                "test -e a/model.safetensors && test ! -e a.tmp && $B import --from a --out r");
}

Test(import, a_model_in_shards_is_the_model_in_one_file)
{
    train("--set training.total_steps=1");
    ASSERT_RUNS("$B export --checkpoint run --format safetensors --type f32 --out a && "
                "mkdir s && cp a/config.json s/ && cp a/model.safetensors s/one.safetensors && "
                "printf '{\"weight_map\":{\"model.norm.weight\":\"one.safetensors\","
                "\"model.embed_tokens.weight\":\"one.safetensors\"}}' "
                "> s/model.safetensors.index.json && "
                "$B import --from a --out r && $B import --from s --out q && "
                "[ \"$($B info r | grep state)\" = \"$($B info q | grep state)\" ]");
    ASSERT_RUNS("sed -i 's|one.safetensors|../a/one.safetensors|' s/model.safetensors.index.json");
    cr_assert_eq(run("$B import --from s --out p"), 3);
    cr_assert(strstr(output, "expected a plain name") != NULL, "%s", output);
}

/* Rows of an embedding that no piece stands for, as models have whose vocabulary is rounded up;
 * here with weights that would win every softmax. */
static const char *const pad =
    "import json, struct, sys\n"
    "d, rows = sys.argv[1], int(sys.argv[2])\n"
    "raw = open(d + '/model.safetensors', 'rb').read()\n"
    "n = struct.unpack('<Q', raw[:8])[0]\n"
    "head, data, out, at = json.loads(raw[8:8 + n]), raw[8 + n:], b'', 0\n"
    "head['__metadata__'] = {'format': 'pt'}\n"
    "for name in sorted((k for k in head if k != '__metadata__'),\n"
    "                   key=lambda k: head[k]['data_offsets']):\n"
    "    t = head[name]\n"
    "    part = data[t['data_offsets'][0]:t['data_offsets'][1]]\n"
    "    if name == 'model.embed_tokens.weight':\n"
    "        part += struct.pack('<f', 3.0) * ((rows - t['shape'][0]) * t['shape'][1])\n"
    "        t['shape'][0] = rows\n"
    "    t['data_offsets'] = [at, at + len(part)]\n"
    "    at += len(part)\n"
    "    out += part\n"
    "text = json.dumps(head).encode()\n"
    "open(d + '/model.safetensors', 'wb').write(struct.pack('<Q', len(text)) + text + out)\n"
    "config = json.load(open(d + '/config.json'))\n"
    "config['vocab_size'] = rows\n"
    "json.dump(config, open(d + '/config.json', 'w'))\n";

Test(import, a_padded_vocabulary_trains_evaluates_and_samples_as_without_the_padding)
{
    char path[128], whole[512];
    snprintf(path, sizeof path, "%s/pad.py", nd_test_here.directory);
    nd_test_write_file(path, pad, strlen(pad));
    ASSERT_RUNS("S=" ND_SOURCE_DIR " && $B tokenizer train --input $S/README.md --vocab-size 400 "
                "--output tok && $B pack --quiet --tokenizer tok --out shards --val-fraction 0.2 "
                "--glob '*.md' $S/docs && sed -e 's/vocab_size = .*/vocab_size = 400/' "
                "-e 's/= synthetic/= shards\\ndata_path = shards/' config.ini > c.ini && "
                "$B --config c.ini --run-dir run --total-steps 2 && "
                "$B export --checkpoint run --format safetensors --type f32 --out a && "
                "cp tok a/tokenizer.model && cp -r a p && python3 pad.py p 448 && "
                "python3 pad.py a 400");
    /* The same model with and without padding. */
    for (int i = 0; i < 2; i++) {
        ASSERT_RUNS(i == 0 ? "rm -rf r; $B import --from a --out r --data-path shards"
                           : "rm -rf r; $B import --from p --out r --data-path shards");
        ASSERT_RUNS("$B eval --checkpoint r --precision fp32 --json | sed 's/.*val_loss//' && "
                    "$B sample --checkpoint r --precision fp32 --prompt The --max-tokens 8 && "
                    "sed -e \"s/vocab_size = .*/$(grep vocab_size "
                    "r/checkpoints/latest/config.ini)/\" c.ini > d.ini && "
                    "$B --config d.ini --run-dir r --resume auto --total-steps 3 "
                    "--set hardware.precision=fp32 > log && "
                    "sed 's/.*\"loss\":\\([^,]*\\),.*/\\1/' r/metrics.jsonl");
        if (i == 0)
            snprintf(whole, sizeof whole, "%.500s", output);
    }
    cr_assert_str_eq(output, whole);
    cr_assert(strstr(output, "val_bpb") != NULL && strstr(output, "The") != NULL, "%s", output);
    ASSERT_RUNS("grep 'has 400 pieces and the model 448 rows' log");
}

/* Runs a line of Python over t, the tensors of a file by name ([type, shape, bytes]), and writes
 * what it makes of them without metadata, as other programs would. */
static const char *const edit =
    "import json, struct, sys\n"
    "raw = open(sys.argv[1], 'rb').read()\n"
    "at = 8 + struct.unpack('<Q', raw[:8])[0]\n"
    "t = {k: [v['dtype'], v['shape'], raw[at + v['data_offsets'][0]:at + v['data_offsets'][1]]]\n"
    "     for k, v in json.loads(raw[8:at]).items() if k != '__metadata__'}\n"
    "exec(sys.argv[2])\n"
    "at, head = 0, {}\n"
    "for k, (dtype, shape, data) in t.items():\n"
    "    head[k] = dict(dtype=dtype, shape=shape, data_offsets=[at, at + len(data)])\n"
    "    at += len(data)\n"
    "text = json.dumps(head).encode()\n"
    "open(sys.argv[1], 'wb').write(struct.pack('<Q', len(text)) + text +\n"
    "                              b''.join(v[2] for v in t.values()))\n";

/* Leaves a/, an export in one file, and s/, the same model in shards. */
static void make_shards(void)
{
    char path[128];
    snprintf(path, sizeof path, "%s/edit.py", nd_test_here.directory);
    nd_test_write_file(path, edit, strlen(edit));
    train("--set training.total_steps=1");
    ASSERT_RUNS("$B export --checkpoint run --format safetensors --type f32 --out a && mkdir s && "
                "cp a/config.json s && cp a/model.safetensors s/one.safetensors && "
                "cp a/model.safetensors s/two.safetensors && E='python3 edit.py' && "
                "$E a/model.safetensors '' && "
                "$E s/one.safetensors 't = {k: v for k, v in t.items() if \"layers\" in k}' && "
                "$E s/two.safetensors 't = {k: v for k, v in t.items() if \"layers\" not in k}' && "
                "echo '{\"weight_map\": {\"model.norm.weight\": \"two.safetensors\", "
                "\"model.layers.0.mlp.up_proj.weight\": \"one.safetensors\"}}' "
                "> s/model.safetensors.index.json");
}

/* transformers leaves the index and removes the shards. */
Test(import, a_model_saved_again_in_one_file_is_not_looked_for_in_its_earlier_shards)
{
    make_shards();
    ASSERT_RUNS("$B import --from s --out r && cp s/model.safetensors.index.json a && "
                "$B import --from a --out q && "
                "[ \"$($B info r | grep state)\" = \"$($B info q | grep state)\" ]");
}

Test(import, info_describes_a_model_in_shards)
{
    make_shards();
    ASSERT_RUNS("$B info s --verify > o && grep -q 'safetensors s/one.safetensors' o && "
                "grep -q 'safetensors s/two.safetensors' o && grep -c ' tensor ' o > n && "
                "$B info a | grep -c ' tensor ' | cmp - n");
}

Test(import, names_the_tensor_that_is_not_as_config_json_says_with_its_file)
{
    static const struct {
        const char *change, *from, *says;
    } rows[] = {
        {"python3 edit.py a/model.safetensors 't[\"lm_head.weight\"] = "
         "t[\"model.embed_tokens.weight\"]'",
         "a", ""},
        {"python3 edit.py a/model.safetensors 't[\"lm_head.weight\"] = [\"F32\", [256, 32], "
         "bytes(256 * 32 * 4)]'",
         "a", "a/model.safetensors: lm_head.weight is not model.embed_tokens.weight"},
        {"python3 edit.py a/model.safetensors 't[\"model.norm.weight\"][0] = \"I32\"'", "a",
         "a/model.safetensors: model.norm.weight has type I32; expected F32, BF16, F16 or F64"},
        {"python3 edit.py a/model.safetensors 't[\"model.layers.1.mlp.up_proj.weight\"][1] = "
         "[96, 16, 2]'",
         "a",
         "a/model.safetensors: model.layers.1.mlp.up_proj.weight is [96, 16, 2]; expected "
         "[96, 32]"},
        {"rm a/model.safetensors", "a",
         "a: holds neither model.safetensors nor model.safetensors.index.json"},
        {"python3 edit.py s/two.safetensors 'del t[\"model.embed_tokens.weight\"]'", "s",
         "s: holds no tensor model.embed_tokens.weight"},
        {"python3 edit.py s/two.safetensors 't[\"model.layers.0.input_layernorm.weight\"] = "
         "t[\"model.norm.weight\"]'",
         "s", "s/one.safetensors: holds model.layers.0.input_layernorm.weight, and so does s/two"},
    };
    make_shards();
    for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++) {
        char command[512];
        snprintf(
            command, sizeof command,
            "{ rm -rf r kept && mkdir kept && cp -r a s kept && %s && $B import --from %s --out "
            "r; x=$?; rm -rf a s && mv kept/a kept/s . && exit $x; }",
            rows[i].change, rows[i].from);
        cr_assert_eq(run(command), rows[i].says[0] ? 3 : 0, "%s: %s", rows[i].change, output);
        cr_assert(strstr(output, rows[i].says) != NULL, "%s: %s", rows[i].change, output);
    }
}
