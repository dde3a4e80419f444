#!/usr/bin/env bash
# Trains, and starts the ranks again by itself when one of them, a host or the network is lost.
# Every start goes on from the newest complete snapshot in memory or checkpoint on disk (--resume auto;
# docs/recovery.md).
#
#   launch/run.sh [OPTIONS] [--] ARGUMENTS OF nanochat_dist train
#
#   --np N             ranks on this machine (1)
#   --hosts A:4,B:4    hosts and their ranks, instead of --np
#   --hostfile FILE    the same, a host a line: `A:4` or `A slots=4`
#   --spare C:4,...    hosts that take the place of lost ones
#   --take-back N      with fewer hosts than named, asks the others every N seconds (5); when one
#                      answers, the run saves, stops and goes on with it. After that it asks half as
#                      often. 0: only at the next restart
#   --max-restarts N   gives up after N restarts in a row without a step done in between (10)
#   --launch COMMAND   starts the ranks with this instead of mpirun: 'srun --mpi=pmix'
#
# Ended by success, a signal (after saving) or an error that would come again (a wrong
# configuration, damaged data or checkpoints, numbers beyond recovery): the program's exit code is
# passed on. Started again after exit code 5, a rank that died of a signal, a launcher that lost a
# host (205), and one that then cannot start all ranks (1, 193 to 255). The first restart comes at
# once; one without progress since the last waits, at first 1 s, then twice as long each time, up to
# 60 s.
#
# After 0 and 6 what hosts that the run has lost still hold of it in memory is removed from those
# that answer; the others are named with the command to type.
#
# Lost hosts are those that do not answer `$ND_AGENT HOST true` (ssh) within 5 s. The ranks that are
# left are as many as the configuration allows (`nanochat_dist plan --ranks N`). ND_PROGRAM names
# the program (the checkout's or the installed one, else nanochat_dist on the path),
# ND_MPIRUN_OPTIONS further options of mpirun.
set -euo pipefail

. "$(dirname "$(readlink -f "$0")")/shared.sh"

# A full disk must not end what supervises the run, nor must a pipe that nobody reads any more, of
# which mpirun bears ten writes: later starts do not write there.
say() { printf 'run.sh: %s\n' "$*" >&2 || [ ! -p /dev/stderr ] || exec >/dev/null 2>&1; }

# For any POSIX shell; %q of printf is for bash.
quote() { [[ $1 != *[!A-Za-z0-9_./:-]* ]] && echo "$1" || echo "'${1//\'/\'\\\'\'}'"; }

np='' hosts='' hostfile='' spare='' max=10 launch='' take_back=5
while [ $# -gt 0 ]; do
    case $1 in
    --help | -h)
        print_help
        exit 0
        ;;
    --np | --hosts | --hostfile | --spare | --max-restarts | --launch | --take-back)
        [ $# -gt 1 ] || usage "$1 needs a value"
        name=${1#--}
        case $1 in --max-restarts) max=$2 ;; *) printf -v "${name//-/_}" %s "$2" ;; esac
        shift 2
        ;;
    --)
        shift
        break
        ;;
    *) # the program's, unless they follow a --
        for word in "$@"; do
            [ "$word" != -- ] || usage "unknown option '$1' before --"
        done
        break
        ;;
    esac
done
whole --np "${np:-1}"
whole --max-restarts "$max" 0
whole --take-back "$take_back" 0
[ -z "$hosts" ] || [ -z "$np$hostfile" ] || usage '--hosts excludes --np and --hostfile'
[ -z "$hostfile" ] || [ -z "$np" ] || usage '--hostfile excludes --np'
[ -z "$launch" ] || [ -z "$np$hosts$hostfile$spare" ] ||
    usage '--launch says itself where ranks run'
[ -z "$spare" ] || [ -n "$hosts$hostfile" ] || usage '--spare needs --hosts or --hostfile'

# In a checkout, beside an installation's share/nanochat_dist/launch, or on the path.
here=$(dirname "$(readlink -f "$0")")
program=${ND_PROGRAM:-}
for place in "$here/../build/release/nanochat_dist" "$here/../../../bin/nanochat_dist"; do
    [ -n "$program" ] || [ ! -x "$place" ] || program=$(realpath "$place")
done
program=${program:-nanochat_dist}
command -v "$program" >/dev/null ||
    usage "there is no program $program; build it, or name it with ND_PROGRAM"
allow_root
setsid=$(command -v setsid) || usage 'there is no setsid; install util-linux'
agent=${ND_AGENT:-ssh -o BatchMode=yes -o ConnectTimeout=4}

# Hosts in use and spare ones: HOST:RANKS, which are all, in the order in which they are taken.
if [ -n "$hostfile" ]; then
    [ -r "$hostfile" ] || usage "cannot read $hostfile"
    hosts=$(sed -e 's/#.*//' -e 's/[[:space:]]*slots *= */:/' "$hostfile" | awk 'NF { print $1 }' | paste -sd,)
    [ -n "$hosts" ] || usage "$hostfile names no host"
fi
IFS=, read -ra used <<<"$hosts"
IFS=, read -ra spares <<<"$spare"
for entry in "${used[@]}" "${spares[@]}"; do
    [[ $entry =~ ^[^:]+(:[1-9][0-9]*)?$ ]] || usage "'$entry' is not HOST or HOST:RANKS"
done
all=("${used[@]}" "${spares[@]}") wanted=${#used[@]}

# What of the arguments is asked for here: what decides the number of ranks, and how the first start
# begins.
resume=auto of_plan=() passed=()
while [ $# -gt 0 ]; do
    case $1 in
    --resume) resume=${2:-}; shift $(($# > 1 ? 2 : 1)); continue ;;
    --resume=*) resume=${1#*=}; shift; continue ;;
    --config | --set) of_plan+=("$1" "${2:-}") ;;
    --config=* | --set=*) of_plan+=("$1") ;;
    esac
    passed+=("$1")
    shift
done
run_dir=$("$program" "${passed[@]}" --print-run-dir) || exit $?

ranks_of() { [ "${1%:*}" = "$1" ] && echo 1 || echo "${1##*:}"; }
last_step() { tail -n 1 "$run_dir/metrics.jsonl" 2>/dev/null | sed -n 's/.*"step": *\([0-9]*\).*/\1/p' || true; }

# Sets `alive` to those of the arguments that answer.
find_alive() {
    local entry answers
    answers=$(for entry in "$@"; do
        # shellcheck disable=SC2086 # the agent has options
        { timeout 5 $agent "${entry%:*}" true </dev/null >/dev/null 2>&1 && echo "$entry"; } &
    done; wait)
    alive=$'\n'$answers$'\n'
}

# Removes what hosts that the run has lost still hold of it in memory. The program lists them, after
# "of RUN", "HOST DIRECTORY" a line, and takes those off on which it ended itself.
clean_lost_hosts() {
    local list=$run_dir/snapshot_hosts all host directory remove left='' of
    [ -s "$list" ] && [ ! -e "$run_dir/run.lock" ] || return 0
    all=$(<"$list")
    of=$(sed -n '1s/^of //p' <<<"$all")
    if [ -n "$of" ] && [ -d "$of" ] && [ ! "$of" -ef "$run_dir" ]; then
        say "$run_dir is a copy of $of, so what lost hosts hold of it stays"
        return 0
    fi
    while read -r host directory; do
        [[ $directory =~ /[0-9a-f]{16}/[^/]+$ ]] || continue
        remove="rm -rf $(quote "$directory") && { rmdir $(quote "${directory%/*}") \
$(quote "${directory%/*/*}") 2>/dev/null; true; }"
        # shellcheck disable=SC2086 # the agent has options
        if timeout 60 $agent "$host" "$remove" </dev/null >/dev/null 2>&1; then
            say "removed the snapshots of host $host, which the run had lost"
        else
            say "host $host does not answer and may hold snapshots; once it does: $agent $host $(quote "$remove")"
            left+=$(awk -v host="$host" '$1 == host' <<<"$all")$'\n'
        fi
    done <<<"$all"
    if [ -n "$left" ]; then printf 'of %s\n%s' "$(realpath "$run_dir")" "$left" >"$list"; else rm -f "$list"; fi
}

# The first hosts that answer, as many as were named: spare ones take the place of lost ones, which
# come back when they answer again. True when a host in use was lost.
choose_hosts() {
    local entry chosen=() lost=1
    [ ${#used[@]} -gt 0 ] || return 1
    find_alive "${all[@]}"
    for entry in "${all[@]}"; do
        [[ $alive = *$'\n'"$entry"$'\n'* ]] || continue
        [ ${#chosen[@]} -eq "$wanted" ] || chosen+=("$entry")
    done
    for entry in "${used[@]}"; do
        [[ $alive = *$'\n'"$entry"$'\n'* ]] || { say "host ${entry%:*} does not answer"; lost=0; }
    done
    if [ ${#chosen[@]} -eq 0 ]; then
        say 'no host answers'
        return 1
    fi
    used=("${chosen[@]}")
    return $lost
}

# Of the named hosts those not in use, one a line.
unused_hosts() { printf '%s\n' "${all[@]}" | grep -vxF "$(printf '%s\n' "${used[@]}")" || true; }

# Ends with 0 when a host that is not in use answers, after asking the ranks to save and stop.
wait_for_hosts() {
    local away alive=''
    mapfile -t away < <(unused_hosts)
    until [[ $alive = *[!$'\n']* ]]; do
        read -rt "$take_back" <> <(:) || true # sleeps, without a process that a signal would leave behind
        find_alive "${away[@]}"
        kill -0 $$ 2>/dev/null || exit 1 # nobody would go on
    done
    read -ra away <<<"${alive//$'\n'/ }"
    say "host ${away[*]%:*} answers again: saving, to go on with it"
    kill -USR1 "$child" 2>/dev/null
}

# As many ranks as there is room for and the configuration allows.
allowed_ranks() {
    local n=$1
    while [ "$n" -gt 1 ] && ! "$program" plan "${of_plan[@]}" --ranks "$n" >/dev/null 2>&1; do
        n=$((n - 1))
    done
    echo "$n"
}

# Sets `command_line`. Without the options mpirun notices a lost host after minutes, and gives ranks
# that are to end a second for it.
quickly='--mca odls_base_sigkill_timeout 0'
compose() {
    local entry room=0 list=''
    if [ -n "$launch" ]; then
        read -ra command_line <<<"$launch"
        return
    fi
    if [ ${#used[@]} -eq 0 ]; then
        room=${np:-1}
        [ "$room" -le "$(cores)" ] || list=--oversubscribe
        read -ra command_line <<<"mpirun $quickly $list -np $room ${ND_MPIRUN_OPTIONS:-}"
        return
    fi
    for entry in "${used[@]}"; do
        room=$((room + $(ranks_of "$entry")))
        list+=${list:+,}${entry%:*}:$(ranks_of "$entry")
    done
    [ "$room" = "${full_room:=$room}" ] || room=$(allowed_ranks "$room")
    read -ra command_line <<<"mpirun $quickly --mca oob_tcp_keepalive_time 1 --mca oob_tcp_keepalive_intvl 1 \
--mca oob_tcp_keepalive_probes 1 --host $list -np $room ${ND_MPIRUN_OPTIONS:-}"
}

# While ranks run, signals are passed on to them; else they are only noted.
pass_on() {
    stopped=yes
    kill -USR1 "$child" 2>/dev/null || true
}
interrupt() {
    if [ -z "$stopped" ]; then
        say 'saving, to stop; Ctrl-C once more stops at once'
        pass_on
    else
        kill -TERM "$child" 2>/dev/null || true
    fi
}

# What the run has written so far; it is another, or more, once a start has done a step.
run_id() { sed -n 's/^; run_id = //p' "$run_dir/config.ini" 2>/dev/null || true; }
written() { run_id; stat -c '%i %s %Y' "$run_dir/metrics.jsonl" 2>/dev/null || true; }

# shellcheck disable=SC2006
start() {
    local before id
    compose
    [ -z "$stopped" ] || exit "${code:-75}"
    # Backquotes, here and below: bash 5.2 cannot run a trap while it reads a $(.
    before=`written` id=`run_id`
    say "start $starts: ${command_line[*]} $program ... --resume $resume"
    # In a session of its own: Ctrl-C would make mpirun end the ranks before they have saved.
    setsid "${command_line[@]}" "$program" "${passed[@]}" --resume "$resume" </dev/null &
    child=$! watcher='' returned='' code=0
    # Until it has become the launcher it would swallow a signal.
    for ((i = 0; i < 50; i++)); do
        [ "/proc/$child/exe" -ef "/proc/$$/exe" ] || [ "/proc/$child/exe" -ef "$setsid" ] || break
        sleep 0.01 || true
    done
    trap pass_on TERM USR1 USR2 HUP
    trap interrupt INT
    [ -z "$stopped" ] || pass_on
    if [ "${#used[@]}" -lt "$wanted" ] && [ "$take_back" -gt 0 ]; then
        wait_for_hosts &
        watcher=$!
    fi
    while :; do # a signal ends `wait`, not the ranks
        wait "$child" && code=0 || code=$?
        kill -0 "$child" 2>/dev/null || break
    done
    if [ -n "$watcher" ]; then
        kill "$watcher" 2>/dev/null || true
        ! wait "$watcher" 2>/dev/null || returned=yes
    fi
    trap 'stopped=yes' TERM USR1 USR2 HUP INT
    # Before its first step a start leaves what was there: then the next one begins as it did.
    [ "`written`" = "$before" ] || resume=auto
    [ "`run_id`" = "$id" ] || [ -n "$ours" ] || reached=0 ours=yes # an earlier run's
}

# Whether what ended with this code may go well another time.
is_accident() {
    case $code in
    5 | 205) return 0 ;;
    # Of a launcher that lost a host, or after such an accident could not start all ranks.
    1) [ -n "$lost" ] || { [ -n "$cause" ] && [ "${step:-0}" -le "${reached:-0}" ]; } ;;
    # Of mpirun that cannot start anything on its hosts: at first their names are wrong, or it lacks
    # ssh.
    19[3-9] | 2??) [ -n "$lost$cause" ] || [ "${step:-0}" -gt "${reached:-0}" ] ;;
    *) [ "$code" -ge 128 ] ;;
    esac
}

# shellcheck disable=SC2006
supervise() {
    while :; do
        start
        case $code in 0 | 6) clean_lost_hosts ;; esac
        [ -z "$stopped" ] || exit "$code"
        if [ "$code$returned" = 75yes ]; then
            choose_hosts || true
            [ -z "$stopped" ] || exit "$code"
            take_back=$((take_back * 2)) delay=0 starts=$((starts + 1))
            continue
        fi
        case $code in 0 | 2 | 3 | 4 | 6 | 75) exit "$code" ;; esac
        lost=''
        ! choose_hosts || lost=yes
        step=`last_step`
        is_accident || exit "$code"
        case $code in 19[3-9]) ;; 5 | 205 | 1??) cause=$code ;; esac
        if [ "${step:-0}" -gt "${reached:-0}" ]; then
            fruitless=0 delay=0
        fi
        [ "${step:-0}" -le "${reached:-0}" ] || reached=$step
        fruitless=$((fruitless + 1))
        if [ "$fruitless" -gt "$max" ]; then
            say "ended with $code; giving up after $max restarts without a step done in between (--max-restarts)"
            exit "${cause:-$code}"
        fi
        how='at once'
        [ "$fruitless" -eq 1 ] || how="in $delay s, restart $fruitless of $max in a row without a step done in between"
        say "ended with $code after step ${step:-0}; starting again $how"
        { [ "$delay" -eq 0 ] || sleep "$delay"; } >/dev/null 2>&1 & # a signal leaves it: it must not hold the output
        wait $! || true
        [ -z "$stopped" ] || exit "$code"
        delay=$((delay == 0 ? 1 : delay * 2 > 60 ? 60 : delay * 2))
        starts=$((starts + 1))
    done
}

starts=1 fruitless=0 delay=0 reached=$(last_step) cause= ours= stopped=''
trap 'stopped=yes' TERM USR1 USR2 HUP INT
trap '' PIPE
supervise
