/* What tests read out of a run's directory. */
#pragma once

#include <stddef.h>
#include <stdint.h>

enum { ND_TEST_STEPS_MAX = 512 };

/* Bits are compared on more ranks in builds without a sanitizer: what one finds, it finds
 * on three. */
#if defined __SANITIZE_ADDRESS__ || defined __SANITIZE_THREAD__
enum { ND_TEST_RANKS_MAX = 3 };
#else
enum { ND_TEST_RANKS_MAX = 8 };
#endif

/* The value of a number at `key` for each line of RUN/metrics.jsonl, in order; returns how many
 * lines. Missing values are NaN. */
int nd_test_metric(const char *run, const char *key, double values[ND_TEST_STEPS_MAX]);

/* state_sha256 of RUN/checkpoints/latest; "" when there is none. The result is static. */
const char *nd_test_state(const char *run);

/* A directory for the test at hand with the configuration below in it: a TestSuite's .init and
 * .fini. */
typedef struct nd_test_place {
    char directory[64], config[128];
} nd_test_place;
extern nd_test_place nd_test_here;
void nd_test_run_setup(void);
void nd_test_run_teardown(void);

/* Runs a shell script in that directory and returns its exit code and what it printed. It sees $B
 * (the program), $F (the one with fault points), $C (the configuration), $D (the directory), $IO
 * (the library of tests/io_faults) and $T ($B with $C and --run-dir $D/run). */
int nd_test_run_script(char *output, size_t size, const char *script);

/* Runs both as one script and asserts that it ends with 0. */
void nd_test_run_scripts(const char *setup, const char *script);

/* Python text, after `import hashlib, json`: t is the new config.ini of the checkpoint d, whose
 * manifest says so. */
#define ND_TEST_SIGN_CONFIG                                                                        \
    "open(d + '/config.ini', 'w').write(t)\n"                                                      \
    "m = json.load(open(d + '/manifest.json'))\n"                                                  \
    "del m['checksum']\n"                                                                          \
    "for f in m['files']:\n"                                                                       \
    "    if f['name'] == 'config.ini':\n"                                                          \
    "        f.update(bytes=len(t), sha256=hashlib.sha256(t.encode()).hexdigest())\n"              \
    "text = json.dumps(m, sort_keys=True, separators=(',', ':'), ensure_ascii=False)\n"            \
    "m['checksum'] = hashlib.sha256(text.encode()).hexdigest()\n"                                  \
    "json.dump(m, open(d + '/manifest.json', 'w'))\n"

/* Shell text for nd_test_run_script: makes $D/shards, some shards of a few thousand tokens, and $S,
 * which is $T with them. */
#define ND_TEST_MAKE_SHARDS                                                                        \
    "$B train --print-config-docs | sed 's/[^a-z ]//g' > text; split -l 20 text part_;"            \
    "$B tokenizer train --input text --vocab-size 300 --output t.model > /dev/null &&"             \
    "$B pack --quiet --tokenizer t.model --out shards --val-fraction 0 --shard-tokens 1000 "       \
    "part_* > /dev/null || exit 98; S=\"$T --dataset shards --data-path $D/shards --set "          \
    "model.vocab_size=300 --set training.use_async_loader=false\";"

/* Writes a small configuration over synthetic data that every training test starts from: 2 layers
 * of 32, vocabulary 64, 8 sequences of 16 tokens a step. */
void nd_test_write_config(const char *path);

/* Trains with extra arguments under `ranks` ranks (0: alone), and fails the test when the exit code
 * is not `expected`. */
void nd_test_train(int ranks, int expected, const char *config, const char *run, const char *extra);
