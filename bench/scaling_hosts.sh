# The part of bench/scaling.sh on two hosts; sourced by two_hosts.sh with the hosts up:
#
#   two_hosts.sh DIR scaling_hosts.sh ROOT PROGRAM DATA WORK CONFIGS STEPS MICRO_BATCH RATES LATENCY_US LAYOUT \
#                                     SHARE CONFIG_DIR
#
# Two ranks, one core each, against one rank with one core; other layouts against the same ranks
# without a network.
root=$1 program=$2 data=$3 work=$4 configs=$5 steps=$6 micro_batch=$7 rates=$8 latency_us=$9
layout=${10} share=${11} config_dir=${12}
. "$root/bench/scaling_runs.sh"
bench=$(dirname "$program")/bench
batch=16

# payload RUN: records what each host has sent and received since the last call.
declare -A before_payload
payload() {
    local n at before
    for ((n = 1; n <= layout_hosts; n++)); do
        read -ra at < <(link_payload $n)
        read -ra before <<<"${before_payload[$n]:-0 0}"
        before_payload[$n]="${at[*]}"
        [ -z "${1:-}" ] || record part='"payload"' of="\"$1\"" host=$n out=$((at[0] - before[0])) \
            in=$((at[1] - before[1]))
    done
}

# measure_link WHERE PLACES GBIT: by bench_link between two ranks, of two hosts or of one.
measure_link() {
    local mpi_options=(-np 2 "${mpi_options[@]:2}") places=$2 file=link_${1}_$3.json
    mpirun_hosts "$bench/bench_link" --mib 8 --rounds 3 >"$work/$file"
    record part='"layout link"' where="\"$1\"" asked_gbit="$3" file="\"$file\""
}

# alone_at_once CONFIG: one rank trains alone in the place of each of the ranks, all at once.
alone_at_once() {
    local config=$1 n running=() pid
    for ((n = 0; n < all_ranks; n++)); do
        launch=(on_host $((n / ranks_each + 1)))
        train "${config}_at_once_$n" "$config" "$share" "$steps" &
        running+=($!)
    done
    for pid in "${running[@]}"; do wait "$pid"; done
    for ((n = 0; n < all_ranks; n++)); do
        record part='"at once"' config="\"$config\"" ranks=1 batch="$share" \
            run="\"${config}_at_once_$n\""
    done
}

# The same ranks with and without the network, in turns; then two runs, the longer of which sends
# $steps steps more, with whole gradients in the usual parts and, for GaLore, as many new subspaces
# in every step.
layouts() {
    local rate config round count batch=$((share * all_ranks)) near far
    local even='--set training.galore_update_freq=10 --set dist.part_kib=256'
    for config in $configs; do
        say "$all_ranks ranks that train alone at once: $config"
        alone_at_once "$config"
    done
    for rate in $rates; do
        say "$layout, links of $rate Gbit/s"
        set_link "$rate" "$latency_us"
        measure_link between ,host1:1,host2:1 "$rate"
        [ "$ranks_each" -eq 1 ] || measure_link within ,host1:2 "$rate"
        for config in $configs; do
            for round in 1 2; do
                near=${config}_near_${rate}_$round far=${config}_far_${rate}_$round
                launch=(mpirun_without_network)
                train "$near" "$config" "$batch" "$steps"
                launch=(mpirun_hosts)
                train "$far" "$config" "$batch" "$steps"
                record part='"layout"' layout="\"$layout\"" config="\"$config\"" ranks="$all_ranks" \
                    hosts="$layout_hosts" batch="$batch" gbit="$rate" round="$round" near="\"$near\"" \
                    run="\"$far\""
            done
            [ "$rate" = "${rates%% *}" ] || continue
            for count in 1 $((steps + 1)); do
                payload
                # shellcheck disable=SC2086 # several arguments
                train "${config}_bytes_$count" "$config" "$batch" "$count" $even \
                    --set dist.grad_compression=off
                payload "${config}_bytes_$count"
            done
            record part='"bytes"' layout="\"$layout\"" config="\"$config\"" ranks="$all_ranks" \
                hosts="$layout_hosts" batch="$batch" steps="$steps" more="\"$even\"" first="\"${config}_bytes_1\"" \
                last="\"${config}_bytes_$((steps + 1))\""
        done
    done
}
if [ "$layout" != 2x1 ]; then
    layouts
    return
fi

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
        record part='"beside"' config="\"$config\"" ranks=1 batch="$share" \
            run="\"${config}_beside_$share\""
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
