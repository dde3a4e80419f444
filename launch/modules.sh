#!/usr/bin/env bash
# Checks who includes whom. A module of src/ includes its own headers and those of the modules that
# its line in CMakeLists.txt names, with what these name; cuda/ those of core and dist and its own;
# nobody includes cuda/. Libraries that are called in one place are included there only. A file has
# at most 500 lines, a function 60 from brace to brace.
#
#   launch/modules.sh [DIR]     DIR: the tree to check, this one without it
#
# Prints every include, file and function that breaks a rule; exits 1 when there is one.
set -euo pipefail

. "$(dirname "$(readlink -f "${BASH_SOURCE[0]}")")/shared.sh"
options 'DIR...' "$@"
cd "${operands[0]:-$root}"

# "module known known ..." a line, in the order of CMakeLists.txt: below before above.
known=$(awk -F '[ ()]+' '/^nd_add_module\(/ {
    line = $2
    for (i = 4; i <= NF; i++)
        if (substr($i, 4) in all) line = line " " substr($i, 4) all[substr($i, 4)]
    all[$2] = substr(line, length($2) + 1)
    print line
}' CMakeLists.txt)
[ "$(wc -l <<<"$known")" -ge 7 ] || { echo 'modules: CMakeLists.txt names fewer than 7 modules' >&2; exit 2; }

# header: the only places that include it.
places='mpi\.h: src/dist/
hdf5\.h: src/data/ src/train/checkpoint/checkpoint_hdf5\.c
lapacke\.h: src/optim/galore\.c
oneapi/.*: src/core/backend/cpu/onednn\.c
sentencepiece_.*: src/data/tokenizer/sentencepiece_shim\.cc
(cuda|cublas|cudnn|nccl|nvml)[^/]*\.h: cuda/'

bad=0
grep -rnE '^[[:space:]]*#[[:space:]]*include' src cuda --include='*.[ch]' --include='*.cc' \
    --include='*.cu' --include='*.cuh' | awk -v known="$known" -v places="$places" '
BEGIN {
    n = split(known, lines, "\n")
    for (i = 1; i <= n; i++) {
        k = split(lines[i], word, " ")
        module[word[1]]
        for (j = 1; j <= k; j++) may[word[1], word[j]]
    }
    may["cuda", "core"]; may["cuda", "dist"]
    n_places = split(places, place, "\n")
}
function broken(why) { print file ":" number ": " $0 ": " why; bad = 1 }
{
    split($0, part, ":"); file = part[1]; number = part[2]
    sub(/^[^:]*:[^:]*:/, "")
    header = $0; sub(/^[^<"]*[<"]/, "", header); sub(/[>"].*$/, "", header)
    split(file, path, "/")
    from = path[1] == "cuda" ? "cuda" : path[2]
    for (i = 1; i <= n_places; i++) {
        k = split(place[i], word, /: | /)
        if (header !~ "^" word[1] "$") continue
        for (j = 2; j <= k && file !~ "^" word[j]; j++) continue
        if (j > k) { broken("that is for " substr(place[i], index(place[i], ": ") + 2)); next }
    }
    split(header, path, "/")
    if ($0 ~ /"/ && header !~ /\// && from != "cuda")
        broken("headers are named with their module, and cuda/ is not for src/")
    else if (path[1] in module && !((from, path[1]) in may))
        broken(from " does not know " path[1])
}
END { exit bad }' || bad=1

# clang-format puts the outer braces of a function, and theirs alone, into the first column.
find src cuda tests bench \( -name '*.[ch]' -o -name '*.cc' -o -name '*.cu' -o -name '*.cuh' \) \
    -exec awk '
function check(what, lines, most) {
    if (lines > most) { print what ": " lines " lines, more than " most; bad = 1 }
}
FNR == 1 { check(file, last, 500); file = FILENAME; begin = 0 }
{ last = FNR }
/^\{/ { begin = FNR }
/^\}/ && begin { check(FILENAME ":" begin, FNR - begin + 1, 60); begin = 0 }
END { check(file, last, 500); exit bad }' {} + || bad=1
exit "$bad"
