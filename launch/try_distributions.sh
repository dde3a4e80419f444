#!/usr/bin/env bash
# Tries the project on clean distributions: for each SUITE debootstrap makes a bare root, a fresh
# clone of HEAD goes into it, and there run the README's two commands, two ranks under mpirun, and
# an export to GGUF. Prints a table of the versions and outcomes; exits 1 when anything failed.
# Needs root, a network and 6 GB of disk a suite; the machine itself is left as it is.
#
#   launch/try_distributions.sh [--dir DIR] [--mirror URL] [--steps N] [--only REGEX] [--compiler CC]
#                               [SUITE...]
#
#   SUITE          what debootstrap knows: bookworm and trixie (the default), Ubuntu's jammy and noble
#   --dir DIR      keep roots and logs there; a root that is there already is used again
#   --mirror URL   where the packages are (that of this system's own apt sources; Ubuntu's archive
#                  for its releases)
#   --steps N      of the quickstart (2)
#   --only REGEX   not the whole suite: the test programs whose name matches, as launch/test.sh has
#                  it
#   --compiler CC  build with this compiler, e.g. clang, installed in the root (the distribution's
#                  gcc)
set -euo pipefail
. "$(dirname "$(readlink -f "${BASH_SOURCE[0]}")")/shared.sh"
. "$root/launch/bare_root.sh"

dir='' mirror='' steps=2 only='' compiler=''
options 'dir mirror steps only compiler SUITE...' "$@"
suites=("${operands[@]}")
[ ${#suites[@]} -gt 0 ] || suites=(bookworm trixie)
bare_root_ready
settings=(${compiler:+"CC=$compiler"})

make_root() {
    bare_root_make "$1"
    local packages=$compiler
    [[ $compiler != clang* ]] || packages+=" libomp-dev" # its OpenMP is a package of its own
    [ -z "$compiler" ] || inside "$1" "apt-get -q update && apt-get -q install -y --no-install-recommends $packages"
}
quickstart() { inside "$1" "launch/quickstart.sh --steps $steps" "${settings[@]}"; }
tests() { inside "$1" "launch/test.sh ${only:+--only '$only'}" "${settings[@]}"; }
ranks() {
    inside "$1" "mpirun --oversubscribe --bind-to none -np 2 build/release/nanochat_dist \
        --config configs/quickstart.ini --dataset synthetic --total-steps 2 --run-dir /tmp/two_ranks"
}
export_gguf() {
    inside "$1" 'build/release/nanochat_dist export --checkpoint runs/quickstart --out /tmp/model.gguf &&
        [ "$(head -c 4 /tmp/model.gguf)" = GGUF ]'
}
versions() {
    inside "$1" 'for p in gcc cmake libopenmpi-dev libhdf5-dev libdnnl-dev libiniparser-dev; do
        dpkg-query -W -f "\${Package} \${Version}, " $p 2>/dev/null; done' |
        sed 's/[0-9]*://g; s/lib\([a-z0-9]*\)-dev/\1/g; s/[-+][^ ,]*,/,/g; s/, $//'
}

table='' failed=false
stage() { # suite, name
    local log=$dir/$1.$2.log started=$SECONDS said=ok
    "$2" "$1" >"$log" 2>&1 || { said=FAILED failed=true; tail -n 30 "$log" >&2; }
    printf '%s: %s %s, %d s (%s)\n' "$1" "$2" "$said" $((SECONDS - started)) "$log" >&2
    [ "$2" != tests ] || said+=", $(tail -n 1 "$log")"
    row+=" $said, $((SECONDS - started)) s |"
}
for suite in "${suites[@]}"; do
    row=''
    stage "$suite" make_root
    for what in quickstart tests ranks export_gguf; do
        stage "$suite" "$what"
    done
    table+="| $suite | $(versions "$suite" || true) |${row#*|}"$'\n'
done
printf '\n| suite | versions | quickstart | tests | two ranks | export |\n|---|---|---|---|---|---|\n%s' "$table"
! $failed
