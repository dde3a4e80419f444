/* A run's id and fingerprints: in its files, between ranks, and on resume. */
#include "data/data_identity.h"
#include "support/data_files.h"
#include "support/run_files.h"
#include "support/support.h"
#include "train/checkpoint/manifest_identity.h"

#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static char output[16384], run[128];

static void setup(void)
{
    nd_test_run_setup();
    snprintf(run, sizeof run, "%s/run", nd_test_here.directory);
}

TestSuite(identity, .init = setup, .fini = nd_test_run_teardown);

/* Trains alone and returns the exit code; `output` has what was said. */
static int train(const char *directory, const char *arguments)
{
    return nd_test_shell(output, sizeof output, "%s --config %s --run-dir %s %s", ND_BINARY,
                         nd_test_here.config, directory, arguments);
}

static void says(const char *text)
{
    cr_assert(strstr(output, text) != NULL, "\"%s\" is not in:\n%s", text, output);
}

/* The string at `key` of a checkpoint's manifest; static. */
static const char *manifest_text(const char *directory, const char *key)
{
    static char texts[4][128];
    static int next;
    char *text = texts[next++ % 4], path[256];
    snprintf(path, sizeof path, "%s/checkpoints/latest/manifest.json", directory);
    json_t *object = json_load_file(path, 0, NULL);
    const char *value = json_string_value(json_object_get(object, key));
    snprintf(text, sizeof texts[0], "%s", value ? value : "absent");
    json_decref(object);
    return text;
}

Test(identity, stands_in_manifest_config_and_every_line_of_the_metrics)
{
    static const char *const keys[] = {"run_id", "config_sha256", "data_sha256"};
    nd_test_train(2, 0, nd_test_here.config, run, "");
    for (int k = 0; k < 3; k++) {
        const char *value = manifest_text(run, keys[k]);
        cr_assert_eq(strlen(value), k == 0 ? 16 : 64, "%s: %s", keys[k], value);
        nd_test_shell(output, sizeof output,
                      "cd %s && grep -c '\"%s\":\"%s\"' metrics.jsonl && "
                      "grep -c '^; %s = %s$' config.ini && "
                      "grep -c '^; %s = %s$' checkpoints/latest/config.ini",
                      run, keys[k], value, keys[k], value, keys[k], value);
        cr_assert_str_eq(output, "12\n1\n1\n", "%s", keys[k]);
    }
    static const char *const program[] = {"version",  "commit", "host",
                                          "launcher", "build",  "libraries"};
    for (int k = 0; k < 6; k++) {
        char quoted[1024];
        const char *value = manifest_text(run, program[k]);
        cr_assert_str_neq(value, "absent", "%s", program[k]);
        snprintf(quoted, sizeof quoted, "grep -qF -- '%s' %s/training.log", value, run);
        cr_assert_eq(nd_test_shell(output, sizeof output, "%s", quoted), 0, "%s", quoted);
    }
}

Test(identity, the_id_is_new_at_a_fresh_start_and_kept_on_resume)
{
    char first[128];
    cr_assert_eq(train(run, "--epochs 1"), 0);
    strcpy(first, manifest_text(run, "run_id"));
    cr_assert_eq(train(run, "--resume auto"), 0);
    cr_assert_str_eq(manifest_text(run, "run_id"), first);
    cr_assert_eq(train(run, ""), 0);
    cr_assert_str_neq(manifest_text(run, "run_id"), first);
}

Test(identity, the_configurations_fingerprint_leaves_places_out_and_nothing_else)
{
    char first[128], other[128];
    snprintf(other, sizeof other, "%s/other", nd_test_here.directory);
    cr_assert_eq(train(run, ""), 0);
    strcpy(first, manifest_text(run, "config_sha256"));
    cr_assert_eq(train(other, ""), 0);
    cr_assert_str_eq(manifest_text(other, "config_sha256"), first);
    cr_assert_eq(train(other, "--set optimizer.adam_epsilon=1e-9"), 0);
    cr_assert_str_neq(manifest_text(other, "config_sha256"), first);
}

#define ON_SHARDS                                                                                  \
    "--dataset shards --set model.vocab_size=65536 --set logging.checkpoint_interval=1 "

/* Two ranks; `second` comes after `common` for the second, and instead of what it names of it. */
static int train_apart(const char *common, const char *second)
{
    const char *at = strstr(second, "--run-dir") ? "" : run;
    const char *own = strstr(second, "--data-path") ? ON_SHARDS : common;
    return nd_test_shell(output, sizeof output,
                         "OMPI_ALLOW_RUN_AS_ROOT=1 OMPI_ALLOW_RUN_AS_ROOT_CONFIRM=1 "
                         "OMP_NUM_THREADS=1 mpirun --oversubscribe -np 1 %s --config %s --run-dir "
                         "%s %s : -np 1 %s --config %s %s %s %s %s",
                         ND_BINARY, nd_test_here.config, run, common, ND_BINARY,
                         nd_test_here.config, *at ? "--run-dir" : "", at, own, second);
}

Test(identity,
     ranks_of_another_configuration_are_named_with_key_and_values_before_anything_is_touched)
{
    static const char *const differences[][2] = {
        {"--set training.seed=43", "rank 1: ranks differ: 'training.seed' is 43 on this rank and"},
        {"--set training.learning_rate=0.01", "'training.learning_rate' is 0.01 on this rank and "
                                              "0.02 on rank 0"},
        {"--total-steps 13", "'training.total_steps' is 13 on this rank and 12 on rank 0"},
        {"--set dist.replica_check_interval=7", "'dist.replica_check_interval' is 7 on this rank"},
        {"--resume auto", "'--resume' is auto on this rank and none on rank 0"},
        {"--run-dir /tmp/nd_test_elsewhere", "'logging.run_dir' is /tmp/nd_test_elsewhere"}};
    for (size_t i = 0; i < sizeof differences / sizeof *differences; i++) {
        const int code = train_apart("", differences[i][0]);
        cr_assert_eq(code, 2, "%s: exit %d: %s", differences[i][0], code, output);
        says(differences[i][1]);
        cr_assert_neq(nd_test_shell(NULL, 0, "ls %s /tmp/nd_test_elsewhere", run), 0);
    }
    cr_assert_eq(train_apart("", "--set hardware.threads=2"), 0, "%s", output);
}

Test(identity, a_rank_of_another_version_is_named)
{
    const int code = nd_test_shell(
        output, sizeof output,
        "cd %s && sed 's/0\\.1\\.0/0.1.9/g' %s > newer && chmod +x newer && "
        "OMPI_ALLOW_RUN_AS_ROOT=1 OMPI_ALLOW_RUN_AS_ROOT_CONFIRM=1 OMP_NUM_THREADS=1 "
        "mpirun --oversubscribe -np 1 %s --config %s --run-dir %s : -np 1 ./newer --config %s "
        "--run-dir %s",
        nd_test_here.directory, ND_BINARY, ND_BINARY, nd_test_here.config, run, nd_test_here.config,
        run);
    cr_assert_eq(code, 2, "exit %d: %s", code, output);
    says("rank 1: ranks differ: 'version' is 0.1.9 on this rank and 0.1.0 on rank 0");
}

/* Shards 0 .. count - 1 of 200 tokens each in DIRECTORY/name. */
static const char *write_shards(const char *name, int count)
{
    static char directory[160];
    snprintf(directory, sizeof directory, "%s/%s", nd_test_here.directory, name);
    nd_test_shell(NULL, 0, "mkdir -p %s", directory);
    for (int i = 0; i < count; i++)
        nd_test_write_counting_shard(directory, i, 200 * i, 200);
    return directory;
}

static void write_held_out(const char *in)
{
    char path[192];
    int32_t tokens[200];
    for (int i = 0; i < 200; i++)
        tokens[i] = i;
    snprintf(path, sizeof path, "%s/val_00000.h5", in);
    nd_test_write_shard(path, 65536, ND_TEST_SHA, "val", tokens, 200);
}

Test(identity, ranks_with_another_copy_of_the_data_are_named_with_the_shard_before_training)
{
    char common[512], second[512], path[192];
    snprintf(common, sizeof common, ON_SHARDS "--data-path %s", write_shards("data", 3));
    snprintf(second, sizeof second, "--data-path %s", write_shards("same", 3));
    cr_assert_eq(train_apart(common, second), 0, "%s", output);
    snprintf(second, sizeof second, "--data-path %s", write_shards("fewer", 2));
    int code = train_apart(common, second);
    cr_assert_eq(code, 3, "exit %d: %s", code, output);
    says("rank 1: ranks have different data: 'shard train_00002.h5' is absent on this rank and 200 "
         "tokens");
    snprintf(path, sizeof path, "%s", write_shards("other", 3));
    nd_test_write_counting_shard(path, 1, 7, 200); /* as many tokens, and others */
    snprintf(second, sizeof second, "--data-path %s", path);
    code = train_apart(common, second);
    cr_assert_eq(code, 3, "exit %d: %s", code, output);
    says("'shard train_00001.h5' is 200 tokens");
}

Test(identity, a_shard_added_removed_or_changed_is_an_error_on_resume_that_names_it)
{
    char arguments[512], data[160];
    strcpy(data, write_shards("data", 3));
    snprintf(arguments, sizeof arguments, ON_SHARDS "--data-path %s --total-steps 2", data);
    cr_assert_eq(train(run, arguments), 0, "%s", output);
    snprintf(arguments, sizeof arguments, ON_SHARDS "--data-path %s --total-steps 3 --resume auto",
             data);
    static const char *const changes[][2] = {
        {"cp train_00002.h5 train_00003.h5", "'shard train_00003.h5' was absent, is 200 tokens"},
        {"rm train_00003.h5 && mv train_00001.h5 aside", "'shard train_00001.h5' was 200 tokens"},
        {"cp train_00002.h5 train_00001.h5", "'shard train_00001.h5' was 200 tokens"}};
    for (size_t i = 0; i < sizeof changes / sizeof *changes; i++) {
        nd_test_shell(NULL, 0, "cd %s && %s", data, changes[i][0]);
        nd_test_index(data);
        cr_assert_eq(train(run, arguments), 3, "%s: %s", changes[i][0], output);
        says(changes[i][1]);
        says("--new-data");
    }
    nd_test_shell(NULL, 0, "cd %s && mv aside train_00001.h5", data);
    write_held_out(data);
    nd_test_index(data);
    cr_assert_eq(train(run, arguments), 0, "%s", output);
    says("changed held-out ");
    nd_test_shell(NULL, 0, "cd %s && rm val_00000.h5 && cp train_00002.h5 train_00003.h5", data);
    nd_test_index(data);
    snprintf(arguments, sizeof arguments, ON_SHARDS "--data-path %s --total-steps 4 --resume auto",
             data);
    cr_assert_eq(train(run, arguments), 3, "beside a change of held-out data: %s", output);
    says(changes[0][1]);
    nd_test_shell(NULL, 0, "cd %s && rm train_00003.h5", data);
    nd_test_index(data);
    nd_test_shell(NULL, 0, "mv %s %s_moved", data, data);
    snprintf(arguments, sizeof arguments,
             ON_SHARDS "--data-path %s_moved --total-steps 3 --resume auto", data);
    cr_assert_eq(train(run, arguments), 0, "the same data at another place: %s", output);
}

Test(identity, new_data_starts_at_an_epoch_of_its_own_and_epochs_are_counted_from_there)
{
    double steps[ND_TEST_STEPS_MAX];
    cr_assert_eq(train(run, "--total-steps 5"), 0, "%s", output); /* 40 of 64 windows */
    cr_assert_eq(train(run, "--resume auto --n-samples 96 --epochs 1 --total-steps 100 --new-data"),
                 0, "%s", output);
    says("starts at epoch 1, sample 96");
    cr_assert_eq(nd_test_metric(run, "step", steps), 5 + 96 / 8);
    /* The flag may stay on the command line: the data is what the newest checkpoint was
     * trained on. */
    cr_assert_eq(train(run, "--resume auto --n-samples 96 --epochs 2 --total-steps 100 --new-data"),
                 0, "%s", output);
    cr_assert(strstr(output, "starts at epoch") == NULL, "%s", output);
    cr_assert_eq(nd_test_metric(run, "step", steps), 5 + 2 * 96 / 8);
}

Test(identity, epochs_end_where_the_data_does_after_a_change_of_batch_size)
{
    double steps[ND_TEST_STEPS_MAX];
    cr_assert_eq(train(run, "--total-steps 4"), 0, "%s", output); /* 32 of 64 windows */
    cr_assert_eq(train(run, "--resume auto --epochs 1 --set training.batch_size=16"), 0, "%s",
                 output);
    says("a step has 256 tokens now, 128 before");
    cr_assert_eq(nd_test_metric(run, "step", steps), 4 + 2);
}

Test(identity, a_checkpoint_of_another_run_is_refused_among_the_runs_own)
{
    char other[128], first[64], second[64];
    snprintf(other, sizeof other, "%s/other", nd_test_here.directory);
    cr_assert_eq(train(run, "--total-steps 4"), 0, "%s", output);
    strcpy(first, manifest_text(run, "run_id"));
    cr_assert_eq(train(other, "--total-steps 8"), 0, "%s", output);
    strcpy(second, manifest_text(other, "run_id"));
    nd_test_shell(NULL, 0, "cp -r %s/checkpoints/step_00000008 %s/checkpoints", other, run);
    cr_assert_eq(train(run, "--resume auto"), 4, "%s", output);
    says(first);
    says(second);
}

Test(identity,
     another_runs_checkpoints_are_neither_removed_nor_moved_by_a_run_that_is_told_to_save_there)
{
    char other[128], arguments[512], before[4096];
    snprintf(other, sizeof other, "%s/other", nd_test_here.directory);
    cr_assert_eq(train(run, "--total-steps 4"), 0, "%s", output);
    cr_assert_eq(train(other, "--total-steps 8 --checkpoint-interval 2"), 0, "%s", output);
    nd_test_shell(before, sizeof before, "ls %s/checkpoints", other);
    snprintf(arguments, sizeof arguments,
             "--resume %s/checkpoints/step_00000004 --checkpoint-dir %s/checkpoints "
             "--total-steps 8 --set logging.checkpoint_keep=1",
             run, other);
    cr_assert_eq(train(run, arguments), 4, "%s", output);
    says("give another --checkpoint-dir");
    nd_test_shell(output, sizeof output, "ls %s/checkpoints", other);
    cr_assert_str_eq(output, before);
}

Test(identity, a_checkpoint_of_another_run_that_is_named_sets_this_directorys_run_aside)
{
    char other[160], arguments[256], first[64];
    double steps[ND_TEST_STEPS_MAX];
    snprintf(other, sizeof other, "%s/other", nd_test_here.directory);
    cr_assert_eq(train(run, "--total-steps 8"), 0, "%s", output);
    strcpy(first, manifest_text(run, "run_id"));
    cr_assert_eq(train(other, "--total-steps 4"), 0, "%s", output);
    snprintf(arguments, sizeof arguments, "--resume %s", other);
    cr_assert_eq(train(run, arguments), 0, "%s", output);
    says("previous_001");
    cr_assert_str_eq(manifest_text(run, "run_id"), manifest_text(other, "run_id"));
    cr_assert_eq(nd_test_metric(run, "step", steps), 12 - 4);
    snprintf(other, sizeof other, "%s/previous_001", run);
    cr_assert_str_eq(manifest_text(other, "run_id"), first);
}

/* As a checkpoint that a version before identities wrote. */
Test(identity, a_checkpoint_without_one_goes_on)
{
    cr_assert_eq(train(run, "--epochs 1"), 0, "%s", output);
    const int code = nd_test_shell(
        output, sizeof output,
        "cd %s && rm config.ini && python3 -c '\n"
        "import hashlib, json\n"
        "for step in (4, 8):\n"
        "    path = \"checkpoints/step_%%08d/manifest.json\" %% step\n"
        "    m = json.load(open(path))\n"
        "    for k in (\"run_id\", \"config_sha256\", \"data_sha256\", \"data\", \"version\",\n"
        "              \"commit\", \"host\", \"launcher\", \"build\", \"libraries\", "
        "\"checksum\"):\n"
        "        del m[k]\n"
        "    text = json.dumps(m, sort_keys=True, separators=(\",\", \":\"), ensure_ascii=False)\n"
        "    m[\"checksum\"] = hashlib.sha256(text.encode()).hexdigest()\n"
        "    json.dump(m, open(path, \"w\"))'",
        run);
    cr_assert_eq(code, 0, "%s", output);
    cr_assert_eq(train(run, "--resume auto"), 0, "%s", output);
    says("resumed ");
    says("does not say what data it was trained on");
    cr_assert_eq(strlen(manifest_text(run, "run_id")), 16);
}

Test(identity, every_command_finds_a_runs_checkpoints_in_the_same_places)
{
    static const char *const commands[] = {"eval --samples 2 --checkpoint", "info",
                                           "sample --max-tokens 2 --checkpoint",
                                           "export --format safetensors --out %s/m%d --checkpoint"};
    char elsewhere[160];
    snprintf(elsewhere, sizeof elsewhere, "--checkpoint-dir %s/elsewhere", nd_test_here.directory);
    cr_assert_eq(train(run, elsewhere), 0, "%s", output);
    for (int usable = 1; usable >= 0; usable--) {
        if (!usable) /* the newest whole one is found without it */
            nd_test_shell(NULL, 0, "rm %s/elsewhere/latest", nd_test_here.directory);
        for (size_t i = 0; i < sizeof commands / sizeof *commands; i++) {
            char command[256];
            snprintf(command, sizeof command, commands[i], nd_test_here.directory, usable);
            cr_assert_eq(nd_test_shell(output, sizeof output, "%s %s %s", ND_BINARY, command, run),
                         0, "%s: %s", command, output);
        }
        char arguments[512], branch[160];
        snprintf(branch, sizeof branch, "%s/branch%d", nd_test_here.directory, usable);
        snprintf(arguments, sizeof arguments, "--resume %s --total-steps 13", run);
        cr_assert_eq(train(branch, arguments), 0, "%s", output);
        says("at step 12\n");
        cr_assert_eq(nd_test_shell(output, sizeof output,
                                   "%s report %s --out %s/report%d && cat %s/report%d/REPORT.md",
                                   ND_BINARY, run, nd_test_here.directory, usable,
                                   nd_test_here.directory, usable),
                     0, "%s", output);
    }
}

static void malformed(const char *text, const char *expected)
{
    nd_identity parsed = {0};
    json_t *root = json_loads(text, 0, NULL);
    cr_assert(root != NULL);
    ND_ASSERT_FAILS(nd_manifest_parse_identity(root, "manifest.json", &parsed), ND_ECHECKPOINT,
                    expected);
    nd_identity_destroy(&parsed);
    json_decref(root);
}

Test(identity, in_a_manifest_that_is_malformed_is_an_error_that_names_the_key)
{
    malformed("{\"run_id\": 7}", "\"run_id\" is malformed");
    malformed("{\"run_id\": \"01234567890123456\"}", "\"run_id\" is malformed");
    malformed("{\"data\": \"seq_length = 16\"}", "\"data\" is not a list");
    malformed("{\"data\": [\"seq_length = 16\", 3]}", "entry 1 of \"data\"");
}

Test(identity, goes_through_a_manifest_as_it_is)
{
    char lines[] = "seq_length = 16\nshard a.h5 = 3 tokens\n";
    nd_identity parsed = {0};
    const nd_identity written = {.run_id = "0123456789abcdef", .host = "a", .data = lines};
    json_t *root = json_object();
    nd_manifest_add_identity(root, &written);
    ND_ASSERT_OK(nd_manifest_parse_identity(root, "manifest.json", &parsed));
    cr_assert_str_eq(parsed.run_id, written.run_id);
    cr_assert_str_eq(parsed.host, written.host);
    cr_assert_str_eq(parsed.version, "");
    cr_assert_str_eq(parsed.data, lines);
    nd_identity_destroy(&parsed);
    json_decref(root);
}
