/* Memory that runs short in any one allocation: the command says so and fails, or does all that it
 * does otherwise. (An allocation of HDF5, oneDNN and other libraries does not fail here.) */
#include "data/shards/hdf5_arrays.h"
#include "support/run_files.h"
#include "support/support.h"

#include <stdio.h>

TestSuite(short_memory, .init = nd_test_run_setup, .fini = nd_test_run_teardown);

/* Runs `command`, which leaves `out`, with allocation 1, 1 + stride, ... and each of the last
 * `last` failing. What `outcome` then prints of `out`, if the command ends with 0, are lines that
 * it prints when none fails. */
static void check(const char *setup, const char *command, const char *outcome, int stride, int last)
{
    static char script[8192], output[65536];
    snprintf(script, sizeof script,
             "export OMP_NUM_THREADS=1; { %s; } > setup.log 2>&1 || { cat setup.log; exit 1; }\n"
             "run() { %s; }; outcome() { %s; }\n"
             "rm -rf out; ND_SHORT_MEMORY_COUNT=$D/count run > log 2>&1 || { cat log; exit 1; }\n"
             "outcome > expected; n=1\n"
             "while [ $n -le $(cat count) ]; do rm -rf out\n"
             "    (export ND_SHORT_MEMORY=$n; run) > log 2>&1; code=$?\n"
             "    case $code in\n"
             "    0) outcome > found; [ -s found ] && ! grep -vxFf expected found ;;\n"
             "    1|4) grep -Eq 'memory|cannot grow' log ;;\n"
             "    *) false ;;\n"
             "    esac || { echo \"allocation $n: exit code $code\"; cat log; exit 1; }\n"
             "    n=$((n + (n > $(cat count) - %d ? 1 : %d))); done\n",
             setup, command, outcome, last, stride);
    const int code = nd_test_run_script(output, sizeof output, script);
    cr_assert_eq(code, 0, "%s", output);
}

#define MODEL                                                                                      \
    "$T --total-steps 1 --set model.vocab_size=300 && $B tokenizer train --input $C "              \
    "--vocab-size 300 --output t && "                                                              \
    "$B export --checkpoint run --format safetensors --out model && mv t model/tokenizer.model"

Test(short_memory, a_run_leaves_whole_checkpoints_and_metrics)
{
    check("true", "$F --config $C --run-dir out --total-steps 2",
          "$B info out --verify | tail -n 1; python3 -c \"import json\n"
          "for k, v in json.load(open('out/checkpoints/latest/manifest.json')).items():\n"
          "    print(k, len(v) if isinstance(v, (list, dict)) else '')\n"
          "for l in open('out/metrics.jsonl'):\n"
          "    m = json.loads(l); print(m['step'], sorted(m), sorted(m['mem']), "
          "m['phases_ms'].keys())\"",
          71, 60);
}

Test(short_memory, an_export_is_whole)
{
    check("$T --total-steps 1", "$F export --checkpoint run --format safetensors --out out",
          "cat out/* | sha256sum", 97, 30);
}

Test(short_memory, an_import_leaves_out_nothing)
{
    check(MODEL, "$F import --from model --out out",
          "$B info out --verify | tail -n 1; ls out/checkpoints/latest", 47, 30);
}

#define PACK "P='pack --quiet --tokenizer t --val-fraction 0.5 --jsonl-field text --out'; "
#define DATA                                                                                       \
    PACK "$B tokenizer train --input $C --vocab-size 300 --output t; "                             \
         "sed 's/.*/{\"text\": \"&\"}/' $C > good.jsonl; (cat good.jsonl; echo bad) > bad.jsonl; " \
         "gzip -k good.jsonl; $B $P shards --shard-tokens 99 good.jsonl"
#define SHARDS "$B info out --verify | tail -n 1; cat out/index.json log"

Test(short_memory, a_pack_is_whole_and_what_it_replaces_stays)
{
    check(DATA, PACK "$F $P out good.jsonl.gz", SHARDS, 197, 20);
    check("true", PACK "$F $P out --skip-bad bad.jsonl", SHARDS, 197, 20);
    check("true",
          PACK "cp -r shards out; $F $P out --overwrite --skip-bad bad.jsonl; code=$?; "
               "$B info out --verify > after || code=99; return $code",
          SHARDS, 37, 10);
    check("true", "cp -r shards out; rm out/index.json; $F pack --index out", SHARDS, 23, 10);
    check("true", "$F info shards --verify > out", "cat out", 1, 0);
}

Test(short_memory, a_tokenizer_and_its_tokens_are_whole)
{
    check("$B tokenizer train --input $C --vocab-size 300 --output t",
          "cp t out; $F tokenizer train --input $C --vocab-size 300 --output out; code=$?; "
          "cmp t out || code=99; return $code",
          "sha256sum out", 2, 3);
    check("true", "$F tokenizer encode --model t $C > out", "cat out", 1, 0);
    check("$B tokenizer encode --model t $C > ids", "$F tokenizer decode --model t ids > out",
          "cat out", 41, 3);
}

Test(short_memory, a_plan_is_complete)
{
    check("true",
          "$F plan --config $C --ranks 4 --hosts 2 --bandwidth 10 --flops 1e12 --simulate "
          "--groups > out",
          "cat out", 71, 3);
    check("true", "$F plan --config $C --ranks 2 --workspace > out", "cat out", 17, 3);
}

static void write_tokens(void)
{
    char path[128];
    int32_t tokens[2 * 17] = {0};
    nd_hdf5_out *out;
    snprintf(path, sizeof path, "%s/tokens.h5", nd_test_here.directory);
    ND_ASSERT_OK(nd_hdf5_out_create(path, "/tokens", &out));
    ND_ASSERT_OK(nd_hdf5_out_write(out, "/tokens", nd_cview_of(tokens, ND_I32, 2, 17)));
    ND_ASSERT_OK(nd_hdf5_out_close(out, true));
}

/* Nine allocations of ten are those of the manifest, which is read first. */
Test(short_memory, what_reads_a_checkpoint_prints_all_or_fails)
{
    write_tokens();
    check(MODEL, "$F eval --checkpoint run --json > out", "cat out", 797, 25);
    check("true", "$F info run --verify > out", "cat out", 397, 5);
    check("true", "$F info model --verify > out", "cat out", 29, 10);
    check("true", "$F sample --checkpoint run --ids --max-tokens 3 --logits out > ids",
          "cat ids; sha256sum out", 797, 25);
    check("true", "$F grad --checkpoint run --tokens tokens.h5 --out out",
          "cat log; wc -c < out; strings out | grep blk", 797, 40);
}

Test(short_memory, a_conversation_is_whole)
{
    check(ND_TEST_MAKE_SHARDS " $S --total-steps 1",
          "printf 'a\\nb\\n' | $F sample --chat --checkpoint run --max-tokens 3 > out", "cat out",
          797, 30);
}

Test(short_memory, a_resumed_run_goes_on_or_leaves_its_checkpoint)
{
    check("$T --total-steps 2 && mv run kept",
          "rm -rf run; cp -r kept run; "
          "$F --config $C --run-dir run --resume auto --total-steps 3; code=$?; "
          "$B info run --verify > out || code=99; return $code",
          "cat out", 397, 12);
}

Test(short_memory, on_one_of_two_ranks_ends_both_with_its_reason)
{
    nd_test_run_scripts(
        "$T --total-steps 2 > log || exit 1; mv run kept;",
        "for n in 2 4 12 500; do rm -rf run; cp -r kept run\n"
        "timeout -k 1 60 mpirun --oversubscribe -np 2 sh -c 'test $OMPI_COMM_WORLD_RANK = 1 && "
        "export ND_SHORT_MEMORY=$0; exec \"$@\"' $n $F --config $C --run-dir run --resume auto "
        "--total-steps 3 > log 2>&1; code=$?\n"
        "test $code = 1 && grep -q 'rank 1: .*memory' log && $B info run --verify > out || "
        "{ echo allocation $n: exit code $code; cat log out; exit 1; }; done");
}

Test(short_memory, a_run_resumed_from_a_snapshot_goes_on_from_it)
{
    check("S=\"--config $C --run-dir $D/run --set logging.snapshot_interval=3 --set "
          "logging.snapshot_dir=$D/memory --set logging.checkpoint_interval=0\";"
          "ND_FAULT=slow@backward:step=4,slow@backward:step=5,kill@snapshot_written:step=9:rank=0 "
          "$F $S; mv run kept; mv memory kept_memory",
          "rm -rf run memory; cp -r kept run; cp -r kept_memory memory; "
          "$F $S --resume auto --total-steps 7; code=$?; cp -r run out; return $code",
          "grep -o 'resumed .*a snapshot in memory, at step 6' log", 199, 12);
}
