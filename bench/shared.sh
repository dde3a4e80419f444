# shellcheck shell=bash
# What scripts in bench/ share; to be sourced.

root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)

fail() { # as for wrong usage
    printf '%s: %s\n' "$(basename "$0" .sh)" "$*" >&2
    exit 2
}

# options 'NAME NAME ... [WORD...]' "$@": an option --a-name VALUE sets the variable a_name; what
# follows -- goes to the array `more`. Other words go to the array `operands` where the names end in
# dots, and are errors elsewhere. --help prints the head of the script.
options() {
    local names=" $1 " name
    more=() operands=()
    shift
    while [ $# -gt 0 ]; do
        name=${1#--}
        case $1 in
        --help | -h)
            sed -n '2,/^set/{/^set/d;s/^# \{0,1\}//;p}' "$0"
            exit 0
            ;;
        --)
            shift
            more=("$@")
            return
            ;;
        --*)
            [[ $names = *" $name "* ]] || fail "unknown option '$1' (see --help)"
            [ $# -gt 1 ] || fail "$1 needs a value (see --help)"
            printf -v "${name//-/_}" %s "$2"
            shift 2
            ;;
        *)
            [[ $names = *'... ' ]] || fail "unknown argument '$1' (see --help)"
            operands+=("$1")
            shift
            ;;
        esac
    done
}

# on_two_hosts "$@": the script again, with its arguments, on the hosts of two_hosts.sh; there,
# $work is its directory.
on_two_hosts() {
    if ! declare -F mpirun_hosts >/dev/null; then
        work=$(mktemp -d)
        trap 'rm -rf "$work"' EXIT
        "$root/bench/two_hosts.sh" "$work" "$(realpath "$0")" "$@"
        exit
    fi
    [ "$(id -u)" -ne 0 ] || export OMPI_ALLOW_RUN_AS_ROOT=1 OMPI_ALLOW_RUN_AS_ROOT_CONFIRM=1
    work=$dir
}

# keys KEY=VALUE...: the array `set`, of a --set for each.
keys() {
    local pair
    set=()
    for pair in "$@"; do set+=(--set "$pair"); done
}

# need_shards: fails unless $data_path is a directory of packed shards.
need_shards() {
    [ -n "$data_path" ] || fail '--data-path is needed (see --help)'
    [[ -d $data_path && -n $(find "$data_path" -name '*.h5' -print -quit) ]] ||
        fail "--data-path: no shards (*.h5) in '$data_path'"
}

# vocabulary DIR: vocab_size of the shards in it.
vocabulary() {
    "$binary" info "$(find "$1" -name '*.h5' | sort | head -n 1)" |
        sed -n 's/^vocab_size *//p' | head -n 1
}

# once RUN COMMAND...: runs it unless it has made $out/RUN, which an interrupted one has not.
once() {
    local run=$out/$1
    shift
    [ ! -e "$run/done" ] || return 0
    rm -rf "$run"
    "$@" >&2
    touch "$run/done"
}

# value RUN KEY: the last one in $out/RUN/metrics.jsonl.
value() {
    sed -n "s/.*\"$2\":\([0-9.e+-]*\).*/\1/p" "$out/$1/metrics.jsonl" | tail -n 1
}

# losses_head WHAT [COLUMN...], losses NAME RUN [BASE [KEY]]: head and rows of a table of the
# held-out losses of RUN_seedN at their ends, for every N of $seeds, and their mean; with BASE, by
# how much it is above the mean of BASE_seedN; with KEY, its value at the end of the last.
losses_head() {
    local seed column line="| $1 |" rule='|---|'
    shift
    for seed in $seeds; do line+=" seed $seed |" rule+='---|'; done
    for column in mean "$@"; do line+=" $column |" rule+='---|'; done
    printf '%s\n%s\n' "$line" "$rule"
}
losses() {
    local name=$1 run=$2 base=${3:-$2} key=${4:-val_loss} seed
    for seed in $seeds; do
        echo "$(value "${run}_seed$seed" val_loss) $(value "${base}_seed$seed" val_loss)" \
            "$(value "${run}_seed$seed" "$key")"
    done | awk -v name="$name" -v columns=$# '
        { row = row sprintf(" %.4f |", $1); mean += $1; of_base += $2; extra = $3 }
        END {
            printf "| %s |%s %.4f |", name, row, mean / NR
            if (columns > 2) printf " %+.2f %% |", 100 * (mean / of_base - 1)
            if (columns > 3) printf " %d |", extra
            print ""
        }'
}
