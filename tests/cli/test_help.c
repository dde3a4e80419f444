/* Help, man page and completion tell the same; an installed program finds its configs. */
#include "support/support.h"

#include <stdio.h>
#include <string.h>

/* Shell functions: `subcommands` and `flags SUBCOMMAND...` as --help tells them. */
static const char *const helpers =
    "subcommands() { $B --help | awk '/^subcommands:/ { on = 1; next } !NF { on = 0 } on { print "
    "$1 }'; }; "
    "commands() { subcommands | grep -v tokenizer; printf 'tokenizer %s\\n' train encode decode; "
    "}; "
    "flags() { $B $1 --help | awk '$1 ~ /^--/ { print $1 }'; }; ";

static void check(const char *script)
{
    char output[8192];
    const int code = nd_test_shell(output, sizeof output, "{ B=%s S=%s; %s %s; }", ND_BINARY,
                                   ND_SOURCE_DIR, helpers, script);
    cr_assert_eq(code, 0, "exit %d: %s", code, output);
    cr_assert_str_eq(output, "");
}

Test(help, the_man_page_names_every_subcommand_with_every_flag)
{
    check("commands | while read -r command; do "
          "  for word in \"$command\" $(flags \"$command\"); do "
          "    sed 's/\\\\-/-/g' $S/docs/nanochat_dist.1 | awk -v command=\"$command\" '"
          "      before == \".TP\" && !/--/ { on = index($0, command) } "
          "      /^.SH/ { on = /DESCRIPTION/ } on; { before = $0 }' | "
          "    grep -wF -e \"$word\" > /dev/null || echo \"$command: no $word\"; "
          "  done; done");
}

/* What the completion offers for a line; the cursor is at its end. */
static void completes(const char *line, const char *expected)
{
    char output[8192];
    nd_test_shell(
        output, sizeof output,
        "bash -c 'PATH=$(dirname %s):$PATH; cd %s; source launch/completion/nanochat_dist.bash; "
        "compopt() { :; }; read -ra COMP_WORDS <<<\"%s\"; [[ \"%s\" == *\" \" ]] && "
        "COMP_WORDS+=(\"\"); COMP_CWORD=$((${#COMP_WORDS[@]} - 1)); "
        "_nanochat_dist nanochat_dist \"${COMP_WORDS[COMP_CWORD]#=}\" "
        "\"${COMP_WORDS[COMP_CWORD - 1]}\"; echo \"${COMPREPLY[*]}\"'",
        ND_BINARY, ND_SOURCE_DIR, line, line);
    cr_assert_str_eq(output, expected, "%s", line);
}

Test(help, completion_offers_subcommands_flags_configs_keys_and_choices)
{
    completes("nanochat_dist to", "tokenizer\n");
    completes("nanochat_dist tokenizer de", "decode\n");
    completes("nanochat_dist tokenizer train --voc", "--vocab-size\n");
    completes("nanochat_dist --total", "--total-steps\n");
    completes("nanochat_dist train --resume no", "none\n");
    completes("nanochat_dist eval --split ", "val train\n");
    completes("nanochat_dist --config quickst", "quickstart.ini\n");
    completes("nanochat_dist --config e3/small/galo", "e3/small/galore2.ini\n");
    completes("nanochat_dist tokenizer encode --mo", "--model\n");
    completes("nanochat_dist --config quickstart.ini --set model.hid", "model.hidden_dim=\n");
    completes("nanochat_dist sample --max-tokens ", "\n");
    completes("nanochat_dist --config e3/cl", "\n");
    completes("nanochat_dist export --type tq", "tq2_0 tq1_0\n");
    completes("nanochat_dist --ver", "--version\n");
    completes("nanochat_dist eval --ver", "--version\n");
}

/* To bash "=" is a word of its own, which it does not pass as the one to complete; to zsh it is
 * part of the word. */
Test(help, completion_offers_the_same_after_a_flag_and_an_equals_sign)
{
    completes("nanochat_dist --config = quickst", "quickstart.ini\n");
    completes("nanochat_dist eval --split =", "val train\n");
    completes("nanochat_dist train --resume = no", "none\n");
    completes("nanochat_dist tokenizer train --input = README", "README.md\n");
    completes("nanochat_dist --set = model.hid", "model.hidden_dim=\n");
    completes("nanochat_dist --set model.arch =", "\n");
    completes("nanochat_dist --set = model.arch =", "\n");
    completes("nanochat_dist --config=quickst", "--config=quickstart.ini\n");
}

Test(help, every_subcommand_prints_help_and_exits_with_0)
{
    check("commands | while read -r command; do "
          "  $B $command --help | grep -q '^usage: nanochat_dist ' || echo \"$command\"; done");
}

Test(help, short_forms_and_versions_of_subcommands_print_the_same)
{
    check(
        "$B --help > /tmp/nd_help_$$; $B -h | cmp - /tmp/nd_help_$$; "
        "$B --version > /tmp/nd_help_$$; $B -V | cmp - /tmp/nd_help_$$; "
        "{ commands; echo tokenizer; } | while read -r command; do "
        "  $B $command --version | cmp - /tmp/nd_help_$$; $B $command -V | cmp - /tmp/nd_help_$$; "
        "done; rm /tmp/nd_help_$$");
}

Test(help, the_man_page_and_the_readme_list_the_exit_codes_of_the_program)
{
    check("$B --help | sed -n '/^exit codes/,$p' | grep -oE '[0-9]+' > /tmp/nd_codes_$$; "
          "sed -n 's/^| \\([0-9]*\\) | .*/\\1/p' $S/README.md | diff /tmp/nd_codes_$$ -; "
          "sed -n '/^.SH EXIT/,/^.SH ENV/{/^[0-9]*$/p}' $S/docs/nanochat_dist.1 | "
          "  diff /tmp/nd_codes_$$ -; "
          "sed -n '/^typedef enum nd_status/,/ND_ESTOPPED/s/.* = \\([0-9]*\\),.*/\\1/p' "
          "  $S/src/core/base/error.h | grep -vx 101 | sed '1a 1' | diff /tmp/nd_codes_$$ -; rm "
          "/tmp/nd_codes_$$");
}

Test(help, scripts_refuse_unknown_options_with_2_and_print_help)
{
    check(
        "cd $S; export CDPATH=$S; " /* with which cd prints where it goes */
        "for script in $(grep -l '^#!' launch/*.sh bench/*.sh tests/cluster/*.sh); do "
        "  $script --bogus x > /dev/null 2>&1 < /dev/null; [ $? = 2 ] || echo \"$script: not 2\"; "
        "  $script --help < /dev/null 2>&1 | grep -q \"$script\" || echo \"$script: no help\"; "
        "done");
}

Test(help, scripts_find_themselves_from_their_own_directory_and_through_a_link)
{
    check(
        "d=$(mktemp -d); cd $S; for script in $(grep -l '^#!' launch/*.sh bench/*.sh); do "
        "  name=$(basename $script); ln -s $S/$script \"$d/$name\"; "
        "  (cd $(dirname $script); ./$name --help) < /dev/null 2>&1 | grep -q \"$script\" || "
        "    echo \"./$name: no help\"; "
        "  (cd \"$d\"; ./$name --help) < /dev/null 2>&1 | grep -q \"$script\" || "
        "    echo \"a link to $name: no help\"; "
        "done; ln -s $S/launch/slurm/site.sh \"$d\"; "
        "bash -c '. \"$1/site.sh\"; [ $ND_SLURM = $2/launch/slurm ] || echo $ND_SLURM' x \"$d\" $S;"
        "rm -r \"$d\"");
}

Test(help, scripts_write_and_compare_decimals_with_points_where_the_locale_has_commas)
{
    check("d=$(mktemp -d); cd \"$d\"; localedef -i de_DE -f UTF-8 $PWD/de_DE.UTF-8 > out 2>&1; "
          "LOCPATH=$PWD LC_ALL=de_DE.UTF-8 bash -c '. $0/launch/shared.sh; printf %.1f 1.5; "
          "printf \"1.25\\n10.2\\n\" | sort -n | awk \"{ printf \\\" %.2f\\\", \\$1 + 1 }\"' $S "
          "> out 2> err; [ \"$(cat out)\" = '1.5 2.25 11.20' ] || cat out err; rm -r \"$d\"");
}

Test(help, scripts_check_the_same_where_posixly_correct_is_set)
{
    check("POSIXLY_CORRECT=1 $S/launch/modules.sh 2>&1 || echo \"exit $?\"");
}

Test(help, files_and_functions_that_are_too_long_are_named)
{
    check("d=$(mktemp -d); cp $S/CMakeLists.txt \"$d\"; cd \"$d\"; mkdir src cuda tests bench; "
          "echo '#include <stdio.h>' > src/a.c; yes '/**/' | head -499 >> src/a.c; "
          "{ echo 'void f(void)'; echo '{'; yes ';' | head -58; echo '}'; } > cuda/b.cu; "
          "$S/launch/modules.sh \"$d\" 2>&1; "
          "echo ';' >> src/a.c; sed -i '3i ;' cuda/b.cu; "
          "$S/launch/modules.sh \"$d\" > out && echo 'exit 0'; "
          "grep -qx 'src/a.c: 501 lines, more than 500' out && "
          "grep -qx 'cuda/b.cu:2: 61 lines, more than 60' out || cat out; rm -r \"$d\"");
}

Test(help, a_preset_configured_again_keeps_the_choice_of_cuda)
{
    check("d=$(mktemp -d); cd \"$d\"; cp $S/CMakePresets.json .; "
          "echo 'cmake_minimum_required(VERSION 3.22)\nproject(none NONE)' > CMakeLists.txt; "
          "for options in -DND_CUDA=OFF ''; do "
          "  cmake --preset release $options > out 2>&1 || cat out; "
          "  grep -q '^ND_CUDA:.*=OFF' build/release/CMakeCache.txt || "
          "    grep '^ND_CUDA:' build/release/CMakeCache.txt; done; rm -r \"$d\"");
}

Test(help, version_names_the_commit_the_build_and_the_libraries)
{
    char output[4096];
    cr_assert_eq(nd_test_shell(output, sizeof output, "%s --version", ND_BINARY), 0);
    static const char *const parts[] = {"nanochat_dist " ND_VERSION "\n",
                                        "\ncommit     ",
                                        "\nbuild      ",
                                        "CUDA o",
                                        "\nlibraries  ",
                                        ", HDF5 ",
                                        ", oneDNN ",
                                        ", OpenSSL "};
    for (size_t i = 0; i < sizeof parts / sizeof *parts; i++)
        cr_assert(strstr(output, parts[i]) != NULL, "no %s in %s", parts[i], output);
    const char *commit = strstr(output, "\ncommit     ") + strlen("\ncommit     ");
    char name[64];
    snprintf(name, sizeof name, "%.*s", (int)strcspn(commit, "-\n"), commit);
    if (nd_test_shell(NULL, 0, "git -C %s rev-parse HEAD", ND_SOURCE_DIR) != 0)
        cr_assert_str_eq(name, "unknown");
    else
        cr_assert_eq(nd_test_shell(NULL, 0, "git -C %s cat-file -e %s", ND_SOURCE_DIR, name), 0,
                     "%s is no commit", name);
}

/* As data/quickstart and runs/quickstart are. */
Test(help, a_directory_named_like_a_config_does_not_hide_it)
{
    check("d=$(mktemp -d); cd \"$d\" && mkdir quickstart && $B plan --config quickstart > out || "
          "cat out; $B plan --config \"$PWD/quickstart\" 2>&1 | grep -q 'quickstart: not a regular "
          "file' "
          "|| echo no; rm -r \"$d\"");
}

Test(help, an_installed_program_finds_its_config_by_name_from_anywhere)
{
    char output[8192];
    const char *directory = nd_test_directory();
    const int installed =
        nd_test_shell(output, sizeof output,
                      "umask 077; cmake --install $(dirname %s) --prefix %s/prefix && cd %s && "
                      "! find prefix ! -perm -444 -print -o -type d ! -perm -111 -print | grep .",
                      ND_BINARY, directory, directory);
    cr_assert_eq(installed, 0, "%s", output);
    const int code = nd_test_mpirun(output, sizeof output, 2,
                                    "--wdir %s prefix/bin/nanochat_dist --config quickstart "
                                    "--dataset synthetic --total-steps 1 --run-dir run "
                                    "--set model.hidden_dim=32 --set model.num_layers=1 "
                                    "--set model.vocab_size=32 --set training.seq_length=8 "
                                    "--set logging.eval_samples=4",
                                    directory);
    cr_assert_eq(code, 0, "%s", output);
    cr_assert_eq(nd_test_shell(output, sizeof output,
                               "cd / && PATH=%s/prefix/bin:$PATH nanochat_dist plan "
                               "--config e3/small/full.ini --ranks 2 && "
                               "%s/prefix/bin/nanochat_dist plan --config medium_3b --ranks 2",
                               directory, directory),
                 0, "%s", output);
    const int kept = nd_test_shell(
        output, sizeof output,
        "cd %s && export ND_PROGRAM=; prefix/share/nanochat_dist/launch/run.sh --np 1 -- --config "
        "quickstart --dataset synthetic --total-steps 1 --run-dir run_sh --set model.hidden_dim=32 "
        "--set model.num_layers=1 --set model.vocab_size=32 --set training.seq_length=8 "
        "--set logging.eval_samples=4 && bash -c '. "
        "prefix/share/nanochat_dist/launch/slurm/site.sh && "
        "$ND_PROGRAM --version'",
        directory);
    cr_assert_eq(kept, 0, "%s", output);
    nd_test_shell(output, sizeof output,
                  "cd %s && ls prefix/share/man/man1 "
                  "prefix/share/bash-completion/completions run/checkpoints/latest/manifest.json",
                  directory);
    cr_assert(strstr(output, "nanochat_dist.1") != NULL, "%s", output);
    cr_assert(strstr(output, "completions:\nnanochat_dist\n") != NULL, "%s", output);
    cr_assert(strstr(output, "No such file") == NULL, "%s", output);
    nd_test_remove_directory(directory);
}
