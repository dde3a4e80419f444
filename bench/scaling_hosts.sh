# The part of bench/scaling.sh on two hosts; sourced by two_hosts.sh with the hosts up:
#
#   two_hosts.sh DIR scaling_hosts.sh ROOT PROGRAM DATA WORK CONFIGS STEPS MICRO_BATCH RATES LATENCY_US
#
# Two ranks, one core each, against one rank with one core.
root=$1 program=$2 data=$3 work=$4 configs=$5 steps=$6 micro_batch=$7 rates=$8 latency_us=$9
. "$root/bench/scaling_runs.sh"
bench=$(dirname "$program")/bench
batch=16

say 'one rank on one core: alone, and with another on the other core'
for config in $configs; do
    for share in $batch $((batch / 2)); do
        launch=(on_host 1)
        train "${config}_alone_$share" "$config" "$share" "$steps"
        record part='"alone"' config="\"$config\"" ranks=1 batch="$share" \
            run="\"${config}_alone_$share\""
        launch=(on_host 2)
        train "${config}_beside_$share" "$config" "$share" "$steps" &
        beside=$!
        launch=(on_host 1)
        train "${config}_together_$share" "$config" "$share" "$steps"
        wait "$beside"
        record part='"together"' config="\"$config\"" ranks=1 batch="$share" \
            run="\"${config}_together_$share\""
    done
done

for rate in $rates; do
    say "a link of $rate Gbit/s"
    set_link "$rate" "$latency_us"
    before=$(link_bytes)
    mpirun_hosts "$bench/bench_link" --mib 8 --rounds 3 >"$work/link_$rate.json"
    record part='"link"' gbit="$rate" asked_latency_us="$latency_us" \
        veth=$(($(link_bytes) - before)) file="\"link_$rate.json\""
    launch=(mpirun_hosts)
    while read -r name config more; do
        before=$(link_bytes)
        # shellcheck disable=SC2086 # several arguments
        train "${name}_$rate" "$config" $batch "$steps" $more
        record part='"two hosts"' config="\"$name\"" base="\"$config\"" ranks=2 batch=$batch \
            gbit="$rate" more="\"$more\"" veth=$(($(link_bytes) - before)) run="\"${name}_$rate\""
    done < <(variants)
    for config in $configs; do
        settings "$config" $((batch / 2))
        mpirun_hosts "$bench/bench_ddp" "${arguments[@]}" --steps $((steps / 2)) \
            </dev/null >"$work/ddp_${config}_$rate.txt"
        record part='"ddp"' config="\"$config\"" ranks=2 batch=$batch gbit="$rate" \
            file="\"ddp_${config}_$rate.txt\""
    done
done
