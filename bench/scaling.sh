#!/usr/bin/env bash
# How training scales: 1, 2, 4 and 8 ranks on this host, then two hosts (network namespaces) with
# one core each and a cable of 10, 1 and 0.1 Gbit/s between them; the same batch over all ranks
# (strong scaling) and the same batch a rank (weak); beside plain data parallelism, which
# all-reduces all gradients in fp32 or bf16; and the times that `plan` predicts. About ten minutes
# on two cores that nothing else uses.
#
#   bench/scaling.sh --data-path DIR --out DIR [options]
#
#   --data-path DIR    packed shards with a vocabulary of 4096, as launch/quickstart.sh leaves them
#   --out DIR          where scaling.md, CSV files and pictures go
#   --steps N          of each run; the median of all but the first few counts (15)
#   --quick            six steps: shows that everything works, measures little
#   --only PART        one-host or two-hosts
#   --layout HxR       H hosts with R ranks each (2x1); see below
#   --share N          sequences a rank in other layouts than 2x1 (8)
#   --micro-batch N    sequences of a micro-batch (2: one for each of eight ranks)
#   --config-dir DIR   where the configurations are (configs/e3/small/suite)
#   --configs 'A B'    of it ('baseline full')
#   --rates 'G G ...'  of the cable, Gbit/s ('10 1 0.1')
#   --latency US       added to the cable, microseconds; needs netem in the kernel (0)
#   --work DIR         keep the runs here (a temporary directory)
#
# Ranks have one thread each; up to the number of cores they are bound to one each, beyond it they
# share.
#
# Other layouts than 2x1 (--only two-hosts is implied) may have more ranks than cores. Then one rank
# alone on a core says nothing about what the network costs. So the same ranks with the same batch
# run on the same cores twice, in turns: all on one host through shared memory, with no network; and
# on the hosts. Weak efficiency is the first time over the second. Bytes over each host's cable
# stand beside those of `plan`; they are measured with whole gradients (grad_compression = off), as
# `plan` counts them.
set -euo pipefail
. "$(dirname "$(readlink -f "${BASH_SOURCE[0]}")")/../launch/shared.sh"
cd "$root"

data_path='' out='' steps=15 quick='' only='' configs='baseline full' rates='10 1 0.1' latency=0 work=''
layout=2x1 share=8 micro_batch=2 config_dir=configs/e3/small/suite
options 'data-path out steps quick! only layout share micro-batch config-dir configs rates latency work' "$@"
data=$data_path
[ -z "$quick" ] || steps=6
[ -n "$data" ] && [ -n "$out" ] || usage '--data-path and --out are needed'
[ -d "$data" ] || usage "--data-path: no directory '$data'"
whole --steps "$steps" 4
whole --micro-batch "$micro_batch"
case $only in '' | one-host | two-hosts) ;; *) usage "--only is '$only'; expected one-host or two-hosts" ;; esac
for config in $configs; do
    [ -e "$config_dir/$config.ini" ] || usage "--configs: no $config_dir/$config.ini"
done
data=$(cd "$data" && pwd)
[ "$layout" = 2x1 ] || only=two-hosts
mkdir -p "$out"
if [ -z "$work" ]; then
    work=$(mktemp -d)
    trap 'rm -rf "$work"' EXIT
fi
mkdir -p "$work"
work=$(cd "$work" && pwd)
rm -f "$work/runs.jsonl"

[ -e build/release/build.ninja ] || cmake --preset release -DBUILD_TESTING=OFF
cmake --build build/release --target nanochat_dist bench_link bench_ddp
program=$root/build/release/nanochat_dist
. bench/scaling_runs.sh
launcher 1 # Open MPI's variables for root
record part='"machine"' config_dir="\"$config_dir\"" cores="$(cores)" steps="$steps" \
    micro_batch="$micro_batch" \
    load="$(cut -d' ' -f1 /proc/loadavg)" \
    model="\"$(sed -n 's/^model name[^:]*: //p' /proc/cpuinfo | head -n 1)\""

if [ "$only" != two-hosts ]; then
    for config in $configs; do
        for ranks in 1 2 4 8; do
            launch=(mpirun --bind-to core -np $ranks)
            [ $ranks -le "$(cores)" ] || launcher $ranks
            say "one host: $config on $ranks ranks"
            batches="16 $((2 * ranks))"
            [ $ranks -ne 8 ] || batches=16 # both are the same run
            for batch in $batches; do
                run=${config}_${ranks}_$batch
                train "$run" "$config" "$batch" "$steps"
                record part='"one host"' config="\"$config\"" ranks=$ranks batch="$batch" \
                    run="\"$run\""
            done
        done
    done
fi
if [ "$only" != one-host ]; then
    if reason=$(bench/two_hosts.sh --layout "$layout" --check); then
        bench/two_hosts.sh --layout "$layout" "$work/hosts" bench/scaling_hosts.sh "$root" "$program" "$data" "$work" \
            "$configs" "$steps" "$micro_batch" "$rates" "$latency" "$layout" "$share" "$config_dir"
    else
        echo "two hosts: $reason"
        record part='"skipped"' reason="\"$reason\""
    fi
fi
python3 bench/scaling_tables.py "$work" "$out" "$program" "$root"
say "done: $out/scaling.md"
