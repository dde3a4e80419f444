/* The grad subcommand: one batch in, its loss and gradients out. */
#include "data/shards/hdf5_arrays.h"
#include "support/run_files.h"
#include "support/support.h"

#include <hdf5.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>

enum { ROWS = 2, COLS = 9, VOCABULARY = 256 }; /* the vocabulary of nd_test_write_config */

static const char *directory;

static void setup(void)
{
    char config[128], run[128];
    directory = nd_test_directory();
    snprintf(config, sizeof config, "%s/c.ini", directory);
    snprintf(run, sizeof run, "%s/run", directory);
    nd_test_write_config(config);
    nd_test_train(0, 0, config, run, "--total-steps 2");
}

static void teardown(void)
{
    nd_test_remove_directory(directory);
}

TestSuite(grad, .init = setup, .fini = teardown);

static void write_tokens(const char *name, int32_t last)
{
    char path[128];
    int32_t tokens[ROWS * COLS];
    nd_hdf5_out *out;
    for (int i = 0; i < ROWS * COLS; i++)
        tokens[i] = (7 * i + 3) % VOCABULARY;
    tokens[ROWS * COLS - 1] = last;
    snprintf(path, sizeof path, "%s/%s", directory, name);
    ND_ASSERT_OK(nd_hdf5_out_create(path, "/tokens", &out));
    ND_ASSERT_OK(nd_hdf5_out_write(out, "/tokens", nd_cview_of(tokens, ND_I32, ROWS, COLS)));
    ND_ASSERT_OK(nd_hdf5_out_close(out, true));
}

/* The loss grad prints. */
static double loss_of(const char *tokens, const char *out, const char *flags)
{
    char output[4096];
    const int code = nd_test_shell(output, sizeof output,
                                   "cd %s && %s grad --checkpoint run --tokens %s --out %s %s",
                                   directory, ND_BINARY, tokens, out, flags);
    cr_assert_eq(code, 0, "%s", output);
    const char *loss = strstr(output, "loss ");
    cr_assert(loss != NULL, "%s", output);
    return strtod(loss + 5, NULL);
}

Test(grad, agrees_between_the_fast_and_the_reference_ops)
{
    write_tokens("t.h5", 5);
    const double fast = loss_of("t.h5", "fast.h5", "");
    const double reference = loss_of("t.h5", "reference.h5", "--reference");
    cr_assert(fabs(fast - reference) < 1e-5 * reference, "%.9f and %.9f", fast, reference);
    cr_assert(reference > 0.5 * log(VOCABULARY) && reference < 2.0 * log(VOCABULARY), "%.9f",
              reference);
}

/* Without codes no rounding lies between the two. */
Test(grad, with_unquantized_activations_agrees_more_closely)
{
    write_tokens("t.h5", 5);
    const double coded = loss_of("t.h5", "out.h5", "--reference");
    const double fast = loss_of("t.h5", "fast.h5", "--no-activation-quant");
    const double reference = loss_of("t.h5", "out.h5", "--no-activation-quant --reference");
    cr_assert(fabs(fast - reference) < 1e-7 * reference, "%.9f and %.9f", fast, reference);
    cr_assert(fabs(coded - reference) > 1e-6 * reference, "%.9f and %.9f", coded, reference);
}

Test(grad, keeps_the_batch_beside_the_gradients)
{
    char path[128];
    int32_t *tokens;
    int64_t rows, cols;
    write_tokens("t.h5", 5);
    const double first = loss_of("t.h5", "out.h5", "");
    snprintf(path, sizeof path, "%s/out.h5", directory);
    ND_ASSERT_OK(nd_hdf5_read_tokens(path, "/tokens", &tokens, &rows, &cols));
    cr_assert_eq(rows, ROWS);
    cr_assert_eq(cols, COLS);
    cr_assert_eq(tokens[1], 10);
    free(tokens);
    cr_assert_eq(loss_of("out.h5", "again.h5", ""), first);
}

/* How many tokens `grad` marks as kept, after a run with Collider and these arguments. */
static int64_t kept_with(const char *arguments)
{
    char path[128], run[128], all[256];
    int32_t *kept;
    int64_t rows, cols, count = 0;
    snprintf(path, sizeof path, "%s/c.ini", directory);
    snprintf(run, sizeof run, "%s/run", directory);
    snprintf(all, sizeof all, "--resume none --total-steps 1 --set training.use_collider=true %s",
             arguments);
    nd_test_train(0, 0, path, run, all);
    write_tokens("t.h5", 5);
    loss_of("t.h5", "kept.h5", "");
    snprintf(path, sizeof path, "%s/kept.h5", directory);
    ND_ASSERT_OK(nd_hdf5_read_tokens(path, "/kept", &kept, &rows, &cols));
    cr_assert_eq(rows, ROWS);
    cr_assert_eq(cols, COLS - 1);
    for (int64_t i = 0; i < rows * cols; i++)
        count += kept[i];
    free(kept);
    return count;
}

Test(grad, marks_the_tokens_that_collider_keeps)
{
    cr_assert_eq(kept_with("--set training.collider_threshold=1 "
                           "--set training.collider_sparsity=0.25"),
                 12, "a quarter of 16 tokens is filtered");
}

/* As at the start of the run, where a filter that begins later is not on. */
Test(grad, keeps_all_tokens_of_a_collider_that_begins_later)
{
    cr_assert_eq(kept_with("--set training.collider_from=0.1"), 16);
}

static double scalar(const char *file, const char *name)
{
    char path[128];
    double value = NAN;
    snprintf(path, sizeof path, "%s/%s", directory, file);
    const hid_t in = H5Fopen(path, H5F_ACC_RDONLY, H5P_DEFAULT);
    const hid_t dataset = H5Dopen2(in, name, H5P_DEFAULT);
    H5Dread(dataset, H5T_NATIVE_DOUBLE, H5S_ALL, H5S_ALL, H5P_DEFAULT, &value);
    H5Dclose(dataset);
    H5Fclose(in);
    return value;
}

/* Even if the run's schedule has ended them. */
Test(grad, has_the_terms_of_further_tokens)
{
    static const char *const forms[] = {"shared", "sequential", "separate"};
    char path[128], run[128], keys[256];
    snprintf(path, sizeof path, "%s/c.ini", directory);
    snprintf(run, sizeof run, "%s/run", directory);
    write_tokens("t.h5", 5);
    for (int f = 0; f < 3; f++) {
        double total[2];
        for (int weight = 1; weight <= 2; weight++) {
            snprintf(keys, sizeof keys,
                     "--resume none --total-steps 3 --set training.use_mtp=true --set "
                     "training.mtp_n_tokens=2 --set training.mtp_form=%s --set "
                     "training.learning_rate=1e-9 --set training.mtp_weight=%d",
                     forms[f], weight);
            nd_test_train(0, 0, path, run, keys);
            const double loss = loss_of("t.h5", "o.h5", "--reference");
            total[weight - 1] = scalar("o.h5", "/total_loss") - loss;
        }
        /* the second token's loss is about that of a guess, once and twice */
        cr_assert(total[0] > 0.5 * log(VOCABULARY) && total[0] < 2.0 * log(VOCABULARY), "%s: %g",
                  forms[f], total[0]);
        cr_assert(fabs(total[1] - 2.0 * total[0]) < 0.05 * total[0], "%s: %g and %g", forms[f],
                  total[0], total[1]);
    }
}

Test(grad, of_the_excess_over_a_reference_model_is_refused)
{
    char path[128], run[128], output[4096];
    snprintf(path, sizeof path, "%s/c.ini", directory);
    snprintf(run, sizeof run, "%s/run", directory);
    snprintf(output, sizeof output,
             "--resume none --total-steps 1 --set training.use_collider=true --set "
             "training.collider_rule=excess --set training.collider_reference=%s",
             run);
    snprintf(run, sizeof run, "%s/excess", directory);
    nd_test_train(0, 0, path, run, output);
    write_tokens("t.h5", 5);
    const int code = nd_test_shell(output, sizeof output,
                                   "cd %s && %s grad --checkpoint excess --tokens t.h5 --out o.h5",
                                   directory, ND_BINARY);
    cr_assert_eq(code, 2, "%s", output);
    cr_assert(strstr(output, "collider_rule = excess: no reference model is loaded") != NULL, "%s",
              output);
}

static void check_refused(const char *checkpoint, const char *message)
{
    char output[4096];
    const int code = nd_test_shell(output, sizeof output,
                                   "cd %s && %s grad --checkpoint %s --tokens t.h5 --out o.h5",
                                   directory, ND_BINARY, checkpoint);
    cr_assert_eq(code, 3, "%s", output);
    cr_assert(strstr(output, message) != NULL, "%s", output);
}

Test(grad, a_token_beyond_the_vocabulary_is_named_with_its_place)
{
    write_tokens("t.h5", VOCABULARY);
    check_refused("run", "t.h5: token 256 at element 17; the vocabulary has 256");
}

Test(grad, sequences_longer_than_the_model_reads_are_refused)
{
    char config[128], run[128];
    snprintf(config, sizeof config, "%s/c.ini", directory);
    snprintf(run, sizeof run, "%s/short", directory);
    nd_test_train(0, 0, config, run,
                  "--total-steps 1 --set model.max_seq_len=7 --set training.seq_length=7");
    write_tokens("t.h5", 5);
    check_refused("short",
                  "t.h5: sequences of 8 tokens and the next; the model's max_seq_len is 7");
}
