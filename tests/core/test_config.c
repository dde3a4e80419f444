/* Configuration: what is read, refused, written and read back. */
#include "core/config/config.h"
#include "core/config/config_keys.h"
#include "support/support.h"

static const char *directory;

static void setup(void)
{
    directory = nd_test_directory();
}

static void teardown(void)
{
    nd_test_remove_directory(directory);
}

TestSuite(config, .init = setup, .fini = teardown);

/* Writes `text` as c.ini of the test's directory and reads it over the defaults. */
static nd_status read_text(nd_config *config, const char *text)
{
    char path[256];
    snprintf(path, sizeof path, "%s/c.ini", directory);
    nd_test_write_file(path, text, strlen(text));
    nd_config_defaults(config);
    return nd_config_read_file(config, path);
}

static void assert_same(const nd_config *a, const nd_config *b)
{
    for (int i = 0; i < nd_config_key_count; i++) {
        char of_a[ND_CONFIG_TEXT_MAX], of_b[ND_CONFIG_TEXT_MAX];
        nd_config_key_format(a, &nd_config_keys[i], of_a, sizeof of_a);
        nd_config_key_format(b, &nd_config_keys[i], of_b, sizeof of_b);
        cr_assert_str_eq(of_a, of_b, "%s", nd_config_keys[i].name);
    }
}

Test(config, every_default_is_within_its_own_range)
{
    nd_config config;
    nd_config_defaults(&config);
    for (int i = 0; i < nd_config_key_count; i++) {
        const nd_config_key *key = &nd_config_keys[i];
        ND_ASSERT_OK(
            nd_config_set_key(&config, key->section, key->name, key->default_text, "the table"));
    }
}

Test(config, no_key_is_declared_twice)
{
    for (int i = 0; i < nd_config_key_count; i++)
        cr_assert(nd_config_key_find(nd_config_keys[i].section, nd_config_keys[i].name) ==
                      &nd_config_keys[i],
                  "%s", nd_config_keys[i].name);
}

Test(config, an_empty_file_leaves_the_defaults)
{
    nd_config config, defaults;
    nd_config_defaults(&defaults);
    ND_ASSERT_OK(read_text(&config, "# nothing\n\n; at all\n[model]\n"));
    assert_same(&config, &defaults);
}

Test(config, keys_of_every_type_are_read)
{
    nd_config config;
    ND_ASSERT_OK(read_text(&config, "[model]\nhidden_dim = 384 # a comment\n  ARCH=llama\n"
                                    "ffn_mult = 2.5\ntie_embeddings = no\n"
                                    "[data]\ndata_path = \"a path; with # marks\"\n"));
    cr_assert_eq(config.model.hidden_dim, 384);
    cr_assert_eq(config.model.arch, ND_ARCH_LLAMA);
    cr_assert_float_eq(config.model.ffn_mult, 2.5, 0.0);
    cr_assert_eq(config.model.tie_embeddings, false);
    cr_assert_str_eq(config.data.data_path, "a path; with # marks");
}

Test(config, whole_numbers_may_be_written_with_an_exponent)
{
    nd_config config;
    ND_ASSERT_OK(read_text(&config, "[training]\ntotal_steps = 1e6\nlearning_rate = 2E-2\n"));
    cr_assert_eq(config.training.total_steps, 1000000);
    cr_assert_float_eq(config.training.learning_rate, 0.02, 0.0);
    ND_ASSERT_FAILS(nd_config_set(&config, "training.total_steps=1.5e0", "--set"), ND_ECONFIG,
                    "expected a whole number from 1");
    ND_ASSERT_FAILS(nd_config_set(&config, "training.total_steps=1e400", "--set"), ND_ECONFIG,
                    "total_steps = '1e400' is not allowed");
}

Test(config, what_is_no_finite_number_is_refused)
{
    static const char *const words[] = {"nan", "inf", "-inf", "",       "0x",
                                        "1,5", "1 2", "1e",   "0x1p-3", "1e-400"};
    nd_config config;
    nd_config_defaults(&config);
    for (size_t i = 0; i < sizeof words / sizeof words[0]; i++) {
        ND_ASSERT_FAILS(nd_config_set_key(&config, "training", "learning_rate", words[i], "--set"),
                        ND_ECONFIG, "[training] learning_rate = '");
        cr_assert_float_eq(config.training.learning_rate, 0.02, 0.0);
    }
}

Test(config, both_ends_of_every_range_are_allowed_and_what_lies_beyond_is_not)
{
    nd_config config;
    nd_config_defaults(&config);
    for (int i = 0; i < nd_config_key_count; i++) {
        const nd_config_key *key = &nd_config_keys[i];
        if (key->type != ND_KEY_INT && key->type != ND_KEY_DOUBLE)
            continue;
        char low[64], high[64], below[64], above[64];
        const double step = key->type == ND_KEY_INT ? 1.0 : 0.5;
        snprintf(low, sizeof low, "%.17g", key->low);
        snprintf(high, sizeof high, "%.17g", key->high);
        snprintf(below, sizeof below, "%.17g", key->low - step);
        snprintf(above, sizeof above, "%.17g", key->high * 2 + step);
        ND_ASSERT_OK(nd_config_set_key(&config, key->section, key->name, low, "--set"));
        ND_ASSERT_OK(nd_config_set_key(&config, key->section, key->name, high, "--set"));
        ND_ASSERT_FAILS(nd_config_set_key(&config, key->section, key->name, below, "--set"),
                        ND_ECONFIG, key->name);
        ND_ASSERT_FAILS(nd_config_set_key(&config, key->section, key->name, above, "--set"),
                        ND_ECONFIG, key->name);
    }
}

/* As doubles it and the end of the range are equal. */
Test(config, a_whole_number_one_past_the_end_is_refused)
{
    nd_config config;
    nd_config_defaults(&config);
    ND_ASSERT_OK(nd_config_set(&config, "training.seed=9007199254740992", "--set"));
    ND_ASSERT_FAILS(nd_config_set(&config, "training.seed=9007199254740993", "--set"), ND_ECONFIG,
                    "[training] seed = '9007199254740993'");
}

Test(config, every_choice_is_allowed_by_name)
{
    for (int i = 0; i < nd_config_key_count; i++) {
        const nd_config_key *key = &nd_config_keys[i];
        if (key->type != ND_KEY_CHOICE)
            continue;
        char choices[256], text[ND_CONFIG_TEXT_MAX];
        nd_config config;
        nd_config_defaults(&config);
        snprintf(choices, sizeof choices, "%s", key->choices);
        for (char *choice = strtok(choices, "|"); choice; choice = strtok(NULL, "|")) {
            ND_ASSERT_OK(nd_config_set_key(&config, key->section, key->name, choice, "--set"));
            nd_config_key_format(&config, key, text, sizeof text);
            cr_assert_str_eq(text, choice);
        }
    }
}

Test(config, an_assignment_needs_a_section_a_key_and_an_equals_sign)
{
    static const char *const wrong[] = {
        "hidden_dim=3", "model.hidden_dim", "model.=3", ".a=3", "a=b.c", "", "=", "."};
    nd_config config;
    nd_config_defaults(&config);
    for (size_t i = 0; i < sizeof wrong / sizeof wrong[0]; i++)
        ND_ASSERT_FAILS(nd_config_set(&config, wrong[i], "--set"), ND_ECONFIG,
                        "is not of the form section.key=value");
}

Test(config, a_value_may_hold_equals_signs_and_dots)
{
    nd_config config;
    nd_config_defaults(&config);
    ND_ASSERT_OK(nd_config_set(&config, "data.data_path=/a.b/c=d", "--set"));
    cr_assert_str_eq(config.data.data_path, "/a.b/c=d");
}

Test(config, an_unknown_key_is_answered_with_the_nearest)
{
    static const char *const pairs[][2] = {{"model.hiden_dim=1", "'hidden_dim' in [model]"},
                                           {"model.num_head=1", "'num_heads' in [model]"},
                                           {"training.warmup=1", "'warmup_steps' in [training]"},
                                           {"model.batch_size=1", "'batch_size' in [training]"},
                                           {"nowhere.precision=1", "'precision' in [hardware]"},
                                           {"training.lr=1", "'learning_rate' in [training]"},
                                           {"training.bs=1", "'batch_size' in [training]"},
                                           {"model.layers=1", "'num_layers' in [model]"}};
    nd_config config;
    nd_config_defaults(&config);
    for (size_t i = 0; i < sizeof pairs / sizeof pairs[0]; i++)
        ND_ASSERT_FAILS(nd_config_set(&config, pairs[i][0], "--set"), ND_ECONFIG, pairs[i][1]);
}

Test(config, a_key_that_is_near_to_none_is_answered_with_the_list_of_keys)
{
    static const char *const far[] = {"training.x=1", "model.bogus=1", "nowhere.zz=1"};
    nd_config config;
    nd_config_defaults(&config);
    for (size_t i = 0; i < sizeof far / sizeof far[0]; i++) {
        ND_ASSERT_FAILS(nd_config_set(&config, far[i], "--set"), ND_ECONFIG, "train --list-keys");
    }
}

Test(config, messages_name_the_file_and_the_line)
{
    nd_config config;
    ND_ASSERT_FAILS(read_text(&config, "[model]\n\n# two\nnum_layers = none\n"), ND_ECONFIG,
                    "/c.ini:4: [model] num_layers = 'none'");
    ND_ASSERT_FAILS(read_text(&config, "[model]\nnum_layers = 1\nNum_Layers = 2\n"), ND_ECONFIG,
                    "/c.ini:3: key 'Num_Layers' in [model] is given twice; first on line 2");
}

Test(config, the_saved_config_reads_back_to_the_bit)
{
    static const char *const changes[] = {"training.learning_rate=0.1234567890123456789",
                                          "optimizer.adam_epsilon=3e-17",
                                          "model.rope_base=1234567.125",
                                          "data.data_path=a path; with # marks = and \\ more",
                                          "training.total_steps=9007199254740991",
                                          "training.schedule_type=cosine",
                                          "optimizer.nesterov=false"};
    nd_config config, back;
    char path[256];
    nd_config_defaults(&config);
    for (size_t i = 0; i < sizeof changes / sizeof changes[0]; i++)
        ND_ASSERT_OK(nd_config_set(&config, changes[i], "--set"));
    snprintf(path, sizeof path, "%s/saved.ini", directory);
    FILE *file = fopen(path, "w");
    cr_assert(file != NULL);
    ND_ASSERT_OK(nd_config_write(&config, file));
    fclose(file);
    nd_config_defaults(&back);
    ND_ASSERT_OK(nd_config_read_file(&back, path));
    assert_same(&config, &back);
    cr_assert_eq(config.training.learning_rate, back.training.learning_rate);
    cr_assert_eq(config.optimizer.adam_epsilon, back.optimizer.adam_epsilon);
}

Test(config, a_text_that_is_accepted_is_read_back_whatever_its_length)
{
    static const char *const keys[] = {"training.collider_reference", "data.data_path",
                                       "logging.run_dir", "logging.checkpoint_dir",
                                       "logging.snapshot_dir"};
    nd_config config, back;
    char path[256], assignment[2000];
    snprintf(path, sizeof path, "%s/saved.ini", directory);
    for (int k = 0; k < 5; k++)
        for (int length = 960; length < 1100; length++) {
            nd_config_defaults(&config);
            snprintf(assignment, sizeof assignment, "%s=%0*d", keys[k], length, 7);
            nd_error_clear();
            if (nd_config_set(&config, assignment, "--set") != ND_OK) {
                cr_assert(strstr(nd_error_get()->message, "a line of text up to 9") != NULL, "%s",
                          nd_error_get()->message);
                continue;
            }
            FILE *file = fopen(path, "w");
            cr_assert(file != NULL);
            ND_ASSERT_OK(nd_config_write(&config, file));
            fclose(file);
            nd_config_defaults(&back);
            ND_ASSERT_OK(nd_config_read_file(&back, path));
            assert_same(&config, &back);
        }
}

Test(config, a_comment_in_a_path_is_asked_about)
{
    nd_config config;
    nd_config_defaults(&config);
    ND_ASSERT_FAILS(read_text(&config, "[logging]\nrun_dir = x#y\n"), ND_ECONFIG,
                    "/c.ini:2: 'x#y': '#' begins a comment; put the value in quotation marks");
    ND_ASSERT_FAILS(read_text(&config, "[data]\n\ndata_path = a b;c d\n"), ND_ECONFIG,
                    "/c.ini:3: 'a b;c d': ';' begins a comment");
    ND_ASSERT_OK(read_text(&config, "[logging]\nrun_dir = x #y#z\ncheckpoint_dir = \"a#b;c\" # d\n"
                                    "[data]\ndata_path = # none\n[model]\nnum_layers = 3# few\n"));
    cr_assert_str_eq(config.logging.run_dir, "x");
    cr_assert_str_eq(config.logging.checkpoint_dir, "a#b;c");
    cr_assert_str_eq(config.data.data_path, "");
}

Test(config, old_names_set_the_keys_of_today_and_are_told_with_their_new_names)
{
    nd_config old, now;
    ND_ASSERT_OK(read_text(&old,
                           "[training]\nuse_8bit_optim = true\n[hardware]\npacked_codes = true\n"
                           "attention = own\n[dist]\noverlap = false\nreduction = allreduce\n"
                           "gradient_wire = int8\nweight_wire = changed\n"
                           "embedding_wire = dense\ncheck_interval = 7\nshorten_gradients = on\n"));
    ND_ASSERT_OK(read_text(&now, "[optimizer]\nstate_bits = 8\n[hardware]\n"
                                 "pack_ternary_weights = true\nattention_backend = builtin\n"
                                 "[dist]\noverlap_grad_reduce = false\ngrad_reduction = allreduce\n"
                                 "grad_comm_dtype = int8\nweight_sync = delta\n"
                                 "embedding_sync = full\nreplica_check_interval = 7\n"
                                 "grad_compression = on\n"));
    assert_same(&old, &now);
    cr_assert(strstr(old.old_names, "dist.weight_wire = changed is now dist.weight_sync = delta") !=
                  NULL,
              "%s", old.old_names);
    cr_assert(strstr(old.old_names, "check_interval = 7 is now dist.replica_check_interval = 7") !=
                  NULL,
              "%s", old.old_names);
    cr_assert(strstr(old.old_names, "use_8bit_optim") == NULL, "the E3 suite's own name: %s",
              old.old_names);
    cr_assert_str_eq(now.old_names, "");
}

Test(config, a_key_under_both_of_its_names_is_refused)
{
    nd_config config;
    ND_ASSERT_FAILS(read_text(&config, "[dist]\noverlap = true\noverlap_grad_reduce = true\n"),
                    ND_ECONFIG,
                    "/c.ini:3: 'overlap_grad_reduce' and 'overlap' on line 2 are the same key");
    ND_ASSERT_FAILS(read_text(&config, "[dist]\nweight_sync = full\nweight_wire = packed\n"),
                    ND_ECONFIG, "keep 'weight_sync'");
}

/* Files of earlier versions hold both keys, one of them at its default. */
Test(config, use_8bit_optim_and_state_bits_in_one_file_must_agree)
{
    static const struct {
        const char *eight, *bits;
        int expected; /* 0 is a contradiction */
    } cases[] = {{"false", "auto", 32}, {"true", "auto", 8}, {"true", "8", 8}, {"false", "8", 8},
                 {"false", "4", 4},     {"true", "4", 0},    {"true", "32", 0}};
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++)
        for (int first = 0; first < 2; first++) {
            nd_config config;
            char eight[64], bits[64], text[160];
            snprintf(eight, sizeof eight, "[training]\nuse_8bit_optim = %s\n", cases[i].eight);
            snprintf(bits, sizeof bits, "[optimizer]\nstate_bits = %s\n", cases[i].bits);
            snprintf(text, sizeof text, "%s%s", first ? eight : bits, first ? bits : eight);
            nd_error_clear();
            if (cases[i].expected) {
                ND_ASSERT_OK(read_text(&config, text));
                cr_assert_eq(nd_config_state_bits(&config), cases[i].expected, "%s", text);
            } else {
                ND_ASSERT_FAILS(read_text(&config, text), ND_ECONFIG, "use_8bit_optim = true");
            }
        }
}

Test(config, any_text_value_reads_back_or_is_refused)
{
    static const char *const values[] = {"plain",
                                         "with space ",
                                         " leading",
                                         "\"quoted\"",
                                         "a\"b",
                                         "'single'",
                                         "end\\",
                                         "back\\slash",
                                         "semi;colon",
                                         "hash # mark",
                                         "[section]",
                                         "key = value",
                                         "\xc3\xa9t\xc3\xa9",
                                         ""};
    for (size_t i = 0; i < sizeof values / sizeof values[0]; i++) {
        nd_config config, back;
        char path[256];
        nd_config_defaults(&config);
        nd_error_clear();
        if (nd_config_set_key(&config, "logging", "run_dir", values[i], "--run-dir") != ND_OK)
            continue;
        snprintf(path, sizeof path, "%s/saved.ini", directory);
        FILE *file = fopen(path, "w");
        cr_assert(file != NULL);
        ND_ASSERT_OK(nd_config_write(&config, file));
        fclose(file);
        nd_config_defaults(&back);
        ND_ASSERT_OK(nd_config_read_file(&back, path));
        cr_assert_str_eq(back.logging.run_dir, values[i]);
    }
}

Test(config, the_micro_batch_does_not_depend_on_ranks_and_divides_the_batch)
{
    nd_config config;
    nd_config_defaults(&config);
    for (int64_t batch = 1; batch <= 512; batch++) {
        config.training.batch_size = batch;
        const int64_t micro = nd_config_micro_batch(&config);
        cr_assert_eq(batch % micro, 0, "batch %lld, micro-batch %lld", (long long)batch,
                     (long long)micro);
        cr_assert(micro == 1 || batch / micro >= 8, "batch %lld, micro-batch %lld",
                  (long long)batch, (long long)micro);
    }
    config.training.micro_batch_size = 3;
    cr_assert_eq(nd_config_micro_batch(&config), 3);
}

/* 0.55 * 100 is above 55 in doubles, 0.57 * 100 below 57. */
Test(config, collider_filters_from_and_until_the_very_step_that_a_fraction_names)
{
    nd_config config;
    nd_config_defaults(&config);
    config.training.use_collider = true;
    config.training.total_steps = 100;
    for (int from = 0; from < 100; from++)
        for (int until = from + 1; until <= 100; until++) {
            char value[2][16];
            snprintf(value[0], sizeof value[0], "%d.%02d", from / 100, from % 100);
            snprintf(value[1], sizeof value[1], "%d.%02d", until / 100, until % 100);
            config.training.collider_from = strtod(value[0], NULL);
            config.training.collider_until = strtod(value[1], NULL);
            for (int step = 0; step < 100; step++)
                cr_assert_eq(nd_config_filters(&config, step), step >= from && step < until,
                             "step %d of 100, from %s until %s", step, value[0], value[1]);
        }
}

Test(config, a_config_is_found_by_its_installed_name)
{
    char output[2048];
    const int code = nd_test_shell(
        output, sizeof output,
        "cd %s && mkdir -p prefix/bin prefix/share/nanochat_dist/configs && "
        "cp %s prefix/bin/ && "
        "cp %s/configs/quickstart.ini prefix/share/nanochat_dist/configs/named.ini && "
        "prefix/bin/nanochat_dist --config named.ini --dataset synthetic --total-steps 1 "
        "--set model.hidden_dim=16 --set model.num_layers=1 --set model.vocab_size=32 "
        "--set training.seq_length=8 --set logging.eval_samples=4 --run-dir run",
        directory, ND_BINARY, ND_SOURCE_DIR);
    cr_assert_eq(code, 0, "%s", output);
}
