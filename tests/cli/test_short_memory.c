/* Memory that runs short in any one allocation: the command says so and fails, or does all that it
 * does otherwise. (An allocation of HDF5, oneDNN and other libraries does not fail here.) */
#include "support/run_files.h"
#include "support/support.h"

#include <stdio.h>

TestSuite(short_memory, .init = nd_test_run_setup, .fini = nd_test_run_teardown);

/* Runs `command`, which leaves `out`, with allocation 1, 1 + stride, ... and each of the last 60
 * failing. What `outcome` then prints of `out`, if the command ends with 0, are lines that it
 * prints when none fails. */
static void check(const char *setup, const char *command, const char *outcome, int stride)
{
    static char script[8192], output[65536];
    snprintf(script, sizeof script,
             "export OMP_NUM_THREADS=1; { %s; } > setup.log 2>&1 || { cat setup.log; exit 1; }\n"
             "run() { %s; }; outcome() { %s; }\n"
             "ND_SHORT_MEMORY_COUNT=$D/count run > log 2>&1 || { cat log; exit 1; }\n"
             "outcome > expected; n=1\n"
             "while [ $n -le $(cat count) ]; do rm -rf out\n"
             "    (export ND_SHORT_MEMORY=$n; run) > log 2>&1; code=$?\n"
             "    case $code in\n"
             "    0) outcome > found; [ -s found ] && ! grep -vxFf expected found ;;\n"
             "    1|4) grep -Eq 'memory|cannot grow' log ;;\n"
             "    *) false ;;\n"
             "    esac || { echo \"allocation $n: exit code $code\"; cat log; exit 1; }\n"
             "    n=$((n + (n > $(cat count) - 60 ? 1 : %d))); done\n",
             setup, command, outcome, stride);
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
          41);
}

Test(short_memory, an_export_is_whole)
{
    check("$T --total-steps 1", "$F export --checkpoint run --format safetensors --out out",
          "cat out/* | sha256sum", 71);
}

Test(short_memory, an_import_leaves_out_nothing)
{
    check(MODEL, "$F import --from model --out out",
          "$B info out --verify | tail -n 1; ls out/checkpoints/latest", 23);
}
