/* What `report` makes of metrics that are cut, foreign or incomplete, of names that mean something
 * to a shell, to Markdown or to SVG, and of wrong claims. */
#include "support/run_files.h"
#include "support/support.h"

#include <stdio.h>

static char output[32768];

/* `line STEP LOSS [KEYS]` prints a step of the metrics; `said TEXT` and `unsaid TEXT` say whether
 * the report in out/ holds the text; `well_formed` parses every picture. */
#define HELPERS                                                                                    \
    "line() { printf '{\"step\":%s,\"tokens\":%s00,\"loss\":%s,\"val_loss\":%s%s}\\n' $1 $1 $2 "   \
    "$2 \"$3\"; }\n"                                                                               \
    "report() { timeout 60 $B report \"$@\" --out out; }\n"                                        \
    "said() { grep -qF -e \"$1\" out/REPORT.md || { echo \"not said: $1\"; cat out/REPORT.md; "    \
    "exit 1; }; }\n"                                                                               \
    "unsaid() { ! grep -F -e \"$1\" out/REPORT.md || exit 1; }\n"                                  \
    "well_formed() { python3 -c 'import sys, xml.dom.minidom as m\n"                               \
    "for name in sys.argv[1:]: m.parse(name)' out/*.svg || exit 1; }\n"

static void run(const char *script)
{
    char whole[8192];
    const int length = snprintf(whole, sizeof whole, "%s%s", HELPERS, script);
    cr_assert_lt(length, (int)sizeof whole);
    cr_assert_eq(nd_test_run_script(output, sizeof output, whole), 0, "%s: %s", script, output);
}

TestSuite(report_input, .init = nd_test_run_setup, .fini = nd_test_run_teardown);

Test(report_input, numbers_that_no_picture_can_hold_count_as_missing)
{
    run("mkdir run; for n in 1e400 Infinity NaN 1e308 -1e308 1$(printf '%0400d' 0); do "
        "{ line 1 3; line 2 $n; line 3 2; } > run/metrics.jsonl; report run || exit 1; "
        "well_formed; said 'lacks `loss` in 1 of 3 steps'; done");
}

Test(report_input, steps_that_are_no_whole_numbers_and_nested_lines_are_left_out)
{
    run("mkdir run; python3 -c 'print(\"[\" * 100000)' > deep;"
        "{ line 1 3; line Infinity 3; line NaN 3; line 1.5 3; cat deep; line 2 2; } > "
        "run/metrics.jsonl; report run || exit 1; said '4 lines of metrics.jsonl are not'; "
        "unsaid cut; well_formed");
}

Test(report_input, a_step_done_again_after_a_restart_replaces_the_first)
{
    run("mkdir run; { line 1 5; line 2 4; line 3 3; line 2 4.5 ',\"restarts\":1'; } > "
        "run/metrics.jsonl; report run || exit 1; said '| 2 | 0.000 M | 4.5000 |'; "
        "said 'resumed before step 2 (restart 1)'");
}

Test(report_input, a_model_without_parameters_divides_nothing_by_zero)
{
    run("mkdir run; line 1 3 ',\"parameters\":0,\"ternary_parameters\":0,\"ranks\":0,"
        "\"mem\":{\"codes\":5}' > run/metrics.jsonl; report run");
}

Test(report_input, steps_without_a_line_are_named)
{
    run("mkdir run; { line 3 3; line 4 3; line 7 3; line 9 3; line 10 3; } > run/metrics.jsonl; "
        "report run || exit 1; said 'lacks the lines of steps: 1 to 2, 5 to 6, 8'");
    run("seq 1 40 | while read s; do line $((2 * s)) 3; done > run/metrics.jsonl; report run; "
        "said 'lacks the lines of steps: 1, 3, 5, 7, 9 and 35 more'");
    run("{ line 1 3; line 2 3; } > run/metrics.jsonl; report run; unsaid 'lacks the lines'");
}

Test(report_input, skipped_steps_are_counted_and_their_values_not_missed)
{
    run("mkdir run; { line 1 3 ',\"skipped\":0'; line 2 null ',\"skipped\":2'; } > "
        "run/metrics.jsonl; report run || exit 1; unsaid 'lacks `loss`'; "
        "said '2 steps were skipped for NaN, infinity or a loss spike'");
}

Test(report_input, empty_lines_are_no_damage)
{
    run("mkdir run; { line 1 3; echo; line 2 3; echo; head -c 1000000 /dev/zero | tr '\\0' ' '; "
        "echo; } > run/metrics.jsonl; report run; "
        "unsaid 'cut off'; unsaid 'not JSON'");
}

Test(report_input, runs_cut_short_have_curves_of_their_own_beside_the_mean_of_the_others)
{
    run("for s in 1 2 3; do mkdir run_$s; printf '[training]\\nseed = %d\\n' $s > "
        "run_$s/config.ini; for i in 1 2 3; do line $i $s; done > run_$s/metrics.jsonl; done; "
        "sed -i 3d run_1/metrics.jsonl; report run_1 run_2 run_3 || exit 1; "
        "grep '>run_1<' out/val_loss.svg && grep '>run_2, mean of 2<' out/val_loss.svg && "
        "! grep 'mean of 3' out/*_loss.svg");
}

Test(report_input, names_of_any_characters_leave_pictures_and_commands_whole)
{
    run("for n in \"$(printf 'control\\001')\" \"$(printf 'bad\\377')\" \"$(printf 'new\\nline')\" "
        "'a`b' '; touch executed' '<&\"' $(printf '%0255d' 0); do mkdir \"$n\"; line 1 3 > "
        "\"$n/metrics.jsonl\"; "
        "set -- \"$@\" \"$n\"; done; report \"$@\" || exit 1; well_formed; "
        "python3 -c 'open(\"out/REPORT.md\", encoding=\"utf-8\").read()' || exit 2; "
        "said '`` a`b ``'; said '`new line`'; "
        "said \"nanochat_dist --config '; touch executed/config.ini'\"");
}

Test(report_input, the_command_of_a_run_on_several_ranks_has_their_number)
{
    run("mkdir run; line 1 3 ',\"ranks\":4' > run/metrics.jsonl; report run && "
        "said 'mpirun -np 4 nanochat_dist --config run/config.ini'");
}

Test(report_input, a_step_takes_three_kilobytes_of_memory)
{
    run("mkdir run; python3 -c '\n"
        "import json\n"
        "step = {\"key_%d\" % i: i + 0.5 for i in range(25)}\n"
        "step[\"mem\"] = {\"memory_%d\" % i: 1000000 + i for i in range(12)}\n"
        "step[\"phases_ms\"] = {\"phase_%d\" % i: {\"min\": 0.5, \"max\": 1.5, \"rank\": 0} for i "
        "in "
        "range(6)}\n"
        "step[\"config_sha256\"] = step[\"data_sha256\"] = \"0\" * 64\n"
        "for i in range(20000): print(json.dumps(dict(step, step=i + 1, tokens=i, loss=2.5)))\n"
        "' > run/metrics.jsonl; python3 -c '\n"
        "import os, resource, subprocess, sys\n"
        "subprocess.check_call([\"python3\"] + sys.argv[1:])\n"
        "grown = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss - 20000\n"
        "text = os.path.getsize(\"run/metrics.jsonl\") // 1024\n"
        "assert grown < text + 3 * 20000, grown\n"
        "' " ND_SOURCE_DIR "/src/train/report/report.py 0 out '' run");
}

Test(report_input, a_pipe_in_a_run_is_not_waited_for)
{
    run("mkdir run; line 1 3 > run/metrics.jsonl; mkfifo run/config.ini run/command.txt; "
        "report run || exit 1; said 'cannot read config.ini: not a regular file'; "
        "rm run/metrics.jsonl; mkfifo run/metrics.jsonl; report run || exit 2; "
        "said 'cannot read metrics.jsonl: not a regular file'");
}

Test(report_input, a_damaged_manifest_is_said)
{
    run("mkdir -p run/checkpoints/step_00000001; line 1 3 > run/metrics.jsonl; "
        "for entry in '\"name\":5,\"shape\":[1,1]' '\"name\":\"x\",\"shape\":[[],1]' "
        "'\"name\":\"x\",\"shape\":[]'; do "
        "printf '{\"tensors\":[{%s,\"part\":\"momentum\",\"dtype\":\"f32\"}]}' \"$entry\" > "
        "run/checkpoints/step_00000001/manifest.json; report run || exit 1; "
        "said 'its newest checkpoint cannot be read'; done");
}

Test(report_input, a_report_goes_to_a_directory_of_any_name)
{
    run("mkdir run; line 1 3 > run/metrics.jsonl; bad=$(printf 'bad\\377'); "
        "$B report run --out \"$bad\" > log && grep -a 'REPORT.md: 1 run' log && "
        "PYTHONIOENCODING=ascii $B report run --out größe | grep 'größe/REPORT.md: 1 run'");
}

Test(report_input, a_picture_is_as_large_as_its_names_need)
{
    run("name=lr_$(printf '%060d' 0); for i in $(seq 40); do mkdir $name$i; "
        "printf '[training]\\nlearning_rate = %d\\n' $i > $name$i/config.ini; "
        "line 1 $i ',\"mem\":{\"codes\":5}' > $name$i/metrics.jsonl; done; report lr_* && python3 "
        "-c '\n"
        "import math, re, sys, xml.dom.minidom as m\n"
        "for name in sys.argv[1:]:\n"
        "    svg = m.parse(name).documentElement\n"
        "    width, height = map(float, svg.getAttribute(\"viewBox\").split()[2:])\n"
        "    for t in svg.getElementsByTagName(\"text\"):\n"
        "        long = 6 * len(t.firstChild.data) if t.firstChild else 0\n"
        "        x, y = t.getAttribute(\"x\"), t.getAttribute(\"y\")\n"
        "        turned = re.match(r\"translate.([\\d.]+) (\\d+). rotate.(\\d+).\", "
        "t.getAttribute(\"transform\"))\n"
        "        if turned:\n"
        "            x, y, angle = map(float, turned.groups())\n"
        "            assert y + long * math.sin(math.radians(angle)) <= height, name\n"
        "            assert x + long * math.cos(math.radians(angle)) <= width, name\n"
        "        elif x and t.getAttribute(\"text-anchor\") == \"start\":\n"
        "            assert float(x) + long <= width and float(y) <= height, name\n"
        "' out/*.svg");
}

/* Claims of "mtp" beside "baseline"; the claim is all but the section's rules. */
#define CLAIMS                                                                                     \
    "for n in baseline mtp; do mkdir -p $n; line 1 3 > $n/metrics.jsonl; echo '[training]' > "     \
    "$n/config.ini; done; echo 'use_mtp = true' >> mtp/config.ini; "                               \
    "claims() { printf '%s\\n' '[systems]' 'mtp = run.setting(\"training.use_mtp\")' "             \
    "'[configurations]' 'baseline =' 'mtp = mtp' '[report]' 'rules = none' '[topic]' "             \
    "'of mtp = >= 0 | any' 'measure = 1' 'unit = ratio' 'details = x' 'lacking = none' | "         \
    "sed \"$1\" > claims.ini; $B report baseline mtp --claims claims.ini --out out; }\n"           \
    "refused() { claims \"$1\" > log 2>&1; test $? = 2 && grep -qF -e \"$2\" log || "              \
    "{ echo \"$1\"; cat log; exit 1; }; }\n"

Test(report_input, claims_that_cannot_be_judged_are_refused_with_the_reason)
{
    run(CLAIMS
        "claims '' || exit 2; said '| topic | mtp | any | × 1.000 | pass | x |';"
        "for r in '>' '<' '==' '=>'; do refused \"s/>= 0/$r 0/\" "
        "\"claim [topic]: '$r' compares nothing; expected >= or <=\"; done; "
        "refused 's/of mtp/of mpt/' \"claim [topic]: 'mpt' is none of [configurations]\"; "
        "refused 's/^mtp = run.*/mtp = run.nothing/' '[systems] mtp: '; "
        "refused 's/^mtp = run.*/mtp = (/' '[systems] mtp: '; "
        "refused '/^baseline =/d;/^mtp = mtp/d' '[configurations] is empty'; "
        "refused 's/measure = 1/measure = 10.0**400/' 'claim [topic]: '; "
        "refused '/^details/d' 'claim [topic]: details is missing'; "
        "refused 's/= ratio/= parsecs/' \"claim [topic]: unit 'parsecs'; expected saved, \"");
}
