#!/usr/bin/env bash
# Runs every test of the coverage preset and writes build/coverage/coverage.md: the part of the
# lines of src/ that they run, by file, and the ten tests that take longest.
#
#   launch/coverage.sh
set -euo pipefail
. "$(dirname "$(readlink -f "${BASH_SOURCE[0]}")")/shared.sh"
cd "$root"
options '' "$@"
build=build/coverage
find "$build" -name '*.gcda' -delete 2>/dev/null || true # counts of earlier runs

launch/test.sh --preset coverage | tee "$build.log"
closing=$(tail -n 1 "$build.log")
slowest=$(sed -n '/the slowest ten tests/,/^$/p' "$build.log" | grep '^[0-9.]* s  ')

# Kernels for an instruction set this CPU lacks cannot run here, which the table then shows.
gcovr --root . --filter 'src/' --exclude '.*/main\.c$' --object-directory "$build" \
    --gcov-ignore-parse-errors --csv "$build.csv" >/dev/null
{
    cat <<END
# Line coverage

Written by \`launch/coverage.sh\` on a CPU with $(grep -o -m 1 -w avx512f /proc/cpuinfo || echo 'no AVX-512');
$closing. Instrumented and without optimization, so times are longer than in \`launch/test.sh\`.

| module | lines | run | part |
|---|---:|---:|---:|
END
    awk -F, 'NR > 1 { split($1, at, "/"); module = at[1] "/" at[2]
                      lines[module] += $2; run[module] += $3; all += $2; ran += $3 }
             END { for (module in lines)
                       printf "| %s | %d | %d | %.1f %% |\n", module, lines[module], run[module],
                              100 * run[module] / lines[module] | "sort"
                   close("sort")
                   printf "| **src** | %d | %d | **%.1f %%** |\n", all, ran, 100 * ran / all }' \
        "$build.csv"
    printf '\n## Files with less than 90 %%\n\n| file | lines | run | part |\n|---|---:|---:|---:|\n'
    awk -F, 'NR > 1 && $2 > 0 && $3 < 0.9 * $2 {
                 printf "| %s | %d | %d | %.1f %% |\n", $1, $2, $3, 100 * $3 / $2 }' "$build.csv"
    printf '\n## The slowest ten tests\n\n| seconds | test |\n|---:|---|\n'
    sed 's/^\([0-9.]*\) s  \(.*\)$/| \1 | \2 |/' <<<"$slowest"
} >build/coverage/coverage.md
echo "build/coverage/coverage.md"
