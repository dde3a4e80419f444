#!/usr/bin/env bash
# Builds and runs every test, and checks the sources. The last line says how many tests passed and
# failed; the exit code is 0 only when all passed and every check held.
#
#   launch/test.sh [--preset NAME] [--only REGEX] [--skip REGEX]
#
#   --preset NAME  release (the default), debug, asan (address and undefined behavior), tsan (data
#                  races) or coverage; layout, modules, circles, cppcheck and docs are checked
#                  with release only
#   --only REGEX   only the test programs whose name (module/test_thing) matches, and no checks
#   --skip REGEX   not those whose name matches; of both, only what the tests need is built
set -euo pipefail

. "$(dirname "$(readlink -f "${BASH_SOURCE[0]}")")/shared.sh"
cd "$root"
preset=release only='' skip=''
options 'preset only skip' "$@"
build=build/$preset
jobs=$(cores)

say() { printf '\n== [%d s] %s\n' "$SECONDS" "$*"; }
broken=()
check() { # name, command...
    say "$1"
    local name=$1 started=$SECONDS
    shift
    if "$@"; then
        echo "ok, $((SECONDS - started)) s"
    else
        broken+=("$name")
        echo "FAILED"
    fi
}
# What the sources are kept to is one version's word: the next has other opinions.
check_with() { # tool, version, name, command
    local found
    found=$("$1" --version | sed -n 1p)
    if [[ $found =~ \ $2([^0-9]|$) ]]; then
        check "$3" "$4"
    else
        say "$3"
        echo "left out: the sources are kept to version $2 of $1, and this is '$found'"
    fi
}

sources() { find src tests bench cuda -name '*.[ch]' -o -name '*.cc' -o -name '*.cu' -o -name '*.cuh' | sort; }
layout() { sources | xargs clang-format --dry-run -Werror; }
# Every buffer is cut from an arena of bytes, so that casts from char * are how floats are made
# here; the arenas align them.
mistakes() {
    cppcheck --project="$build/compile_commands.json" -D__CPPCHECK__ \
        --file-filter='src/*' -j "$jobs" \
        --enable=warning,performance,portability --inline-suppr --error-exitcode=1 --quiet \
        --suppress=missingIncludeSystem --suppress=invalidPointerCast
}
# No two source files of a library need each other, be it through others.
circles() {
    nm -A "$build"/libnd_{core,optim,data,dist,train,exchange,cli}.a | awk '
        { split($1, at, ":"); file = at[1] ":" at[2] }
        $2 == "U" { user[++n] = file; used[n] = $3 }
        $2 ~ /^[TDBR]$/ { home[$3] = file }
        END { for (i = 1; i <= n; i++)
                  if (used[i] in home && home[used[i]] != user[i]) print user[i], home[used[i]] }' |
        tsort >/dev/null
}
config_docs() {
    diff -u docs/config.md <("$build/nanochat_dist" train --print-config-docs) ||
        { echo "docs/config.md is out of date: $build/nanochat_dist train --print-config-docs"; false; }
}

say 'dependencies'
# The tests of the batch scripts bring up a Slurm in namespaces, where there may be any; else they
# are skipped with the reason.
cluster=()
[ "$(id -u)" -ne 0 ] || ! unshare --mount --net --pid --fork true 2>/dev/null || cluster=(--cluster)
launch/install_deps.sh --build --test --report "${cluster[@]}"
say "build, preset $preset"
cmake --preset "$preset" --log-level=WARNING
chosen=(--preset "$preset" ${only:+--tests-regex "$only"} ${skip:+--exclude-regex "$skip"})
targets=()
if [ -n "$only$skip" ]; then # module/test_thing[.isa] is the program module_test_thing; docs want all
    mapfile -t targets < <(ctest "${chosen[@]}" --show-only |
        sed -n 's/^ *Test *#[0-9]*: \([^.]*\).*/\1/p' |
        sed 's|^docs/.*|all|; s|/device_nccl|/program_nccl|; s|/|_|' | sort -u)
fi
cmake --build --preset "$preset" --parallel "$jobs" ${targets[@]:+--target "${targets[@]}"}

if [ "$preset" = release ] && [ -z "$only" ]; then
    check_with clang-format 14 'layout (clang-format)' layout
    check 'modules (who includes whom) and lengths' launch/modules.sh
    check 'circles (who calls whom)' circles
    check_with cppcheck 2.10 'mistakes (cppcheck)' mistakes
    check 'docs/config.md' config_docs
fi

say "tests, preset $preset"
export CRITERION_VERBOSITY_LEVEL=1 # a line and a time for every test
allow_root
started=$SECONDS
report=$build/Testing/test_report.log
mkdir -p "$build/Testing"
# One more than cores for every two: tests wait for processes, deadlines and disks a third of their
# time.
ctest "${chosen[@]}" --parallel $((jobs + (jobs + 1) / 2)) --output-log "$report" --no-tests=error || broken+=('ctest')
echo "$((SECONDS - started)) s"

# CTest keeps what each program printed; a program that died says nothing at its end, and counts as
# one failure.
log=$build/Testing/Temporary/LastTest.log
say 'the slowest ten tests'
sed -n 's/^\[\(PASS\|FAIL\)\] \(.*\): (\([0-9.]*\)s)$/\3 s  \2/p' "$log" | sort -rn | sed -n 1,10p
read -r passed failed < <(awk '
    /^----------------------------------------------------------$/ { next }
    /Testing: / { if (open) failed++; open = 1 }
    /^SKIPPED: / { open = 0 } # neither passed nor failed
    /Synthesis: Tested:/ { passed += $7; failed += $10 + $13; open = 0 }
    END { print passed + 0, failed + open }' "$log")

limited=$(sed -n 's|^.* Test *#[0-9]*: [a-z]*/test_[a-z0-9_]*\.\([a-z0-9_]*\) .*|\1|p' "$report" | sort | uniq -c |
    sed 's/^ *\([0-9]*\) \(.*\)/\2 (\1 programs)/' | paste -sd , | sed 's/,/, /g')
[ -z "$limited" ] || printf '\ninstruction sets: all of this CPU, and limited to %s\n' "$limited"
skipped=$(sed -n 's/^\[SKIP\] //p; s/^SKIPPED: //p' "$log" | uniq -c | sed 's/^ *1 //; s/^ *\([0-9]*\) /\1 x /')
[ -z "$skipped" ] || printf '\nskipped:\n%s\n' "$skipped"
[ ${#broken[@]} -eq 0 ] || printf '\nnot in order: %s\n' "$(IFS=';'; echo "${broken[*]}")"
printf '\n%d passed, %d failed\n' "$passed" "$failed"
[ ${#broken[@]} -eq 0 ] && [ "$failed" -eq 0 ]
