#!/usr/bin/env bash
# Builds on a machine with a GPU, nvcc and CMake, checks the CUDA backend there, measures it, and writes
# one report. Needs no network. Ends inside ten minutes: what hangs is killed, and sections for which no
# time is left are not run.
#
#   launch/gpu_check.sh [--deps DIR] [--sections LIST] [--build DIR] [--report FILE] [--arch N]
#                       [--seconds N]
#
#   --deps DIR       the packages that launch/gpu_deps.sh collected; without it the system's are used
#   --sections LIST  of build, conformance, attention, sanitizer, gradients, losses, graphs, e3, nccl,
#                    overlap, ops, models; all
#   --build DIR      the build directory (build/gpu); `build` brings it up to date
#   --report FILE    the report (build/gpu_report.md)
#   --arch N         CUDA architecture to build for (what nvidia-smi says the GPU is)
#   --seconds N      the time of everything together (570)
#
# Exits 0 when every section passed, 1 when one failed, 3 when none failed and some were not run.
set -uo pipefail

deps='' build=build/gpu report=build/gpu_report.md arch='' seconds=570
sections='build conformance attention sanitizer gradients losses graphs e3 nccl overlap ops models'
while [ $# -gt 0 ]; do
    case $1 in
    --help | -h)
        sed -n '2,/^set/{/^set/d;s/^# \{0,1\}//;p}' "$0"
        exit 0
        ;;
    --deps | --sections | --build | --report | --arch | --seconds)
        [ $# -gt 1 ] || { echo "gpu_check: $1 needs a value (see --help)" >&2; exit 2; }
        printf -v "${1#--}" %s "${2//,/ }"
        shift 2
        ;;
    *)
        echo "gpu_check: unknown option '$1' (see --help)" >&2
        exit 2
        ;;
    esac
done
for section in $sections; do
    case " build conformance attention sanitizer gradients losses graphs e3 nccl overlap ops models " in
    *" $section "*) ;;
    *) echo "gpu_check: no section '$section' (see --help)" >&2; exit 2 ;;
    esac
done
[ -z "$deps" ] || deps=$(cd "$deps" && pwd) || exit 2
cd "$(dirname "${BASH_SOURCE[0]}")/.." || exit 1
mkdir -p "$build" "$(dirname "$report")"
build=$(cd "$build" && pwd)
work=$(mktemp -d) || exit 1
trap 'rm -rf "$work"' EXIT
export PATH=$PATH:/usr/local/cuda/bin # nvcc and compute-sanitizer
cmake_arguments=(-G Ninja -DCMAKE_BUILD_TYPE=Release -DND_CUDA=ON -DND_WERROR=OFF)

# The packages, unpacked where nothing of the system is touched, and what finds them there.
. launch/unpacked.sh
unpack() {
    unpack_packages "$build/deps" "$deps"/*.deb || return 1
    use_unpacked "$build/deps"
    cmake_arguments+=(-DBUILD_TESTING=OFF)
    mpirun --version # fails most often because libc is older than the packages'
}

# The first files of NVIDIA's Python packages that are like each of the patterns below nvidia/.
in_python() {
    python3 - "$@" 2>/dev/null <<'P'
import glob, os, site, sys
bases = site.getsitepackages() + [site.getusersitepackages()] + sys.path
for pattern in sys.argv[1:]:
    found = (f for b in bases for f in glob.glob(os.path.join(b, "nvidia", pattern), recursive=True))
    print(next(found, ""))
P
}
# cuBLASLt, NCCL and cuDNN (which is larger than --deps may be) are the machine's own. They may lie in
# Python packages.
find_nvidia() {
    local header includes='' headers cublas
    { read -r cublas; mapfile -t headers; } < <(
        in_python '**/libcublasLt.so.*' '**/nccl.h' '**/cudnn_graph.h')
    for header in "${headers[@]}"; do
        [ -n "$header" ] || continue
        includes=${includes:+$includes;}${header%/*}
        export LD_LIBRARY_PATH=${LD_LIBRARY_PATH:+$LD_LIBRARY_PATH:}${header%/include/*}/lib
    done
    [ -z "$cublas" ] || [ -e /usr/local/cuda/lib64/libcublasLt.so ] ||
        [ -e /usr/local/cuda/lib64/libcublasLt.so.13 ] || export ND_CUDA_LIBRARIES=${cublas%/*}
    [ -z "$includes" ] || cmake_arguments+=("-DND_CUDA_INCLUDE_DIRS=$includes")
}

say() { printf '%s\n' "$*" | tee -a "$report"; }
failed=() not_run=()
not_run() { # SECTION REASON
    say '' "## $1" '' "$1: not run: $2"
    not_run+=("$1")
}
# Ends what is left of a process group. Programs of ours leave in good order when they are asked to, and
# not at all when the GPU does not answer.
end_group() {
    local i
    kill -TERM -- "-$1" 2>/dev/null || return
    for ((i = 0; i < 50; i++)); do
        kill -0 -- "-$1" 2>/dev/null || return
        sleep 0.1
    done
    kill -KILL -- "-$1" 2>/dev/null
}
# run SECTION SECONDS command...: its output goes into the report, its last lines to the terminal. A
# command that exits with 77 says that there was nothing to run.
run() {
    local name=$1 limit=$2 started=$SECONDS code child watchdog
    shift 2
    # Of the time of everything some is kept for ending what hangs.
    [ "$limit" -le $((seconds - 10 - SECONDS)) ] || limit=$((seconds - 10 - SECONDS))
    if [ "$name" != build ] && [ "$gpus" -eq 0 ]; then
        not_run "$name" 'no GPU'
        return
    elif [ "$name" != build ] && [[ " ${failed[*]} " == *' build '* ]]; then
        not_run "$name" 'no build'
        return
    elif [ "$limit" -le 0 ]; then
        not_run "$name" 'no time left'
        return
    fi
    say '' "## $name" ''
    say '```'
    : >"$work/log"
    set -m # process groups of their own, which can be ended whole
    "$@" >>"$work/log" 2>&1 </dev/null & # at its end, where the watchdog writes too
    child=$!
    # Holds no output of the script's open: who reads that waits for its end.
    (sleep "$limit"; echo "stopped after $limit s" >>"$work/log"; kill -TERM -- "-$child") \
        >/dev/null 2>&1 &
    watchdog=$!
    set +m
    wait $child
    code=$?
    kill -KILL -- "-$watchdog" 2>/dev/null
    wait $watchdog 2>/dev/null
    end_group $child
    tail -n 60 "$work/log" | tee -a "$report"
    say '```'
    if [ $code -eq 0 ]; then
        say "$name: passed, $((SECONDS - started)) s"
    elif [ $code -eq 77 ]; then
        say "$name: not run, $((SECONDS - started)) s"
        not_run+=("$name")
    else
        say "$name: FAILED (exit $code), $((SECONDS - started)) s"
        failed+=("$name")
    fi
}
wanted() { [[ " $sections " == *" $1 "* ]]; }

build_all() {
    cmake -S . -B "$build" "${cmake_arguments[@]}" &&
        cmake --build "$build" --parallel "$(env -u OMP_NUM_THREADS -u OMP_THREAD_LIMIT nproc)" --target nanochat_dist \
            bench_throughput bench_ops bench_gpu_attention device_tests
}
conformance() {
    local code=0 suite
    for suite in conformance products int8 kept_rows state code_kernels; do
        "$build/tests/cuda/device/cuda_device_$suite" 2>&1 | grep -v ', seed' || code=1
    done
    return $code
}
# cuDNN's attention: against the reference, the losses of a run beside those of the project's kernels, the
# same bits twice and as a graph, and both kernels' times.
attention() {
    local code=0 kind
    grep -q '^ND_CUDNN_INCLUDE_DIR:.*NOTFOUND' "$build/CMakeCache.txt" && {
        echo 'built without cuDNN: there are only the kernels of the project'
        return 77
    }
    "$build/tests/cuda/device/cuda_device_cudnn" 2>&1 | grep -v ', seed'
    [ "${PIPESTATUS[0]}" -eq 0 ] || code=1
    for kind in builtin auto; do
        train "attention.$kind" cuda configs/e3/small/baseline.ini 60 "hardware.attention_backend=$kind" ||
            code=1
    done
    grep '^device ' "$work/attention.auto.txt"
    compare 'own kernels and cuDNN' attention.builtin attention.auto 0.05 || code=1
    train attention.again cuda configs/e3/small/baseline.ini 60 hardware.attention_backend=auto || code=1
    same 'cuDNN twice' attention.auto attention.again || code=1
    train attention.graphs cuda configs/e3/small/baseline.ini 60 hardware.attention_backend=auto \
        training.micro_batch_size=1 hardware.cuda_graphs=true || code=1
    train attention.ops cuda configs/e3/small/baseline.ini 60 hardware.attention_backend=auto \
        training.micro_batch_size=1 || code=1
    same 'cuDNN, ops and graphs' attention.ops attention.graphs || code=1
    "$build/bench/bench_gpu_attention" --target cuda || code=1
    return $code
}
# Some tests of each suite: under the sanitizer a kernel takes a hundred times as long.
sanitizer() {
    local code=0 tool
    command -v compute-sanitizer >/dev/null || { echo 'no compute-sanitizer here'; return 77; }
    for tool in memcheck racecheck; do
        for only in conformance:rmsnorm conformance:swiglu conformance:codes conformance:cross \
            products:group_scales products:large_scores products:symmetric int8:finite \
            kept_rows:agrees state:tiles state:adamw code_kernels:scales_of_groups code_kernels:stand_one_behind; do
            echo "== $tool, ${only#*:}"
            compute-sanitizer --tool "$tool" --error-exitcode 3 --print-limit 5 \
                "$build/tests/cuda/device/cuda_device_${only%%:*}" --only "${only#*:}" 2>&1 |
                grep -vE 'seed|^=+ *$' | tail -n 8
            [ "${PIPESTATUS[0]}" -eq 0 ] || code=1
        done
    done
    return $code
}
# One run, under $launcher: NAME TARGET CONFIG STEPS [SETTING]...
launcher=()
train() {
    local name=$1 target=$2 config=$3 steps=$4 settings=()
    shift 4
    for setting in "$@"; do settings+=(--set "$setting"); done
    "${launcher[@]}" "$build/nanochat_dist" --config "$config" --run-dir "$work/$name" --dataset synthetic \
        --n-samples 4096 --total-steps "$steps" --set "hardware.target=$target" \
        --set logging.checkpoint_at_end=false --set logging.eval_interval=0 "${settings[@]}" \
        >"$work/$name.txt" 2>&1 || { tail -n 5 "$work/$name.txt"; return 1; }
}
# Losses of two runs: the largest difference over the steps and that of the last twenty in the mean.
compare() { # NAME A B TOLERANCE
    python3 - "$1" "$work/$2/metrics.jsonl" "$work/$3/metrics.jsonl" "$4" <<'P'
import json, sys
a, b = ([json.loads(l)["loss"] for l in open(f)] for f in sys.argv[2:4])
worst = max(abs(x - y) for x, y in zip(a, b))
n = min(20, len(a))
end = abs(sum(a[-n:]) - sum(b[-n:])) / n
ok = len(a) == len(b) and end <= float(sys.argv[4])
print(f"{sys.argv[1]}: {len(a)} steps, {a[0]:.4f} -> {a[-1]:.4f} and {b[-1]:.4f}, "
      f"largest difference {worst:.2g}, of the last {n} in the mean {end:.2g}", "" if ok else "TOO FAR")
sys.exit(not ok)
P
}
# Losses and norms of two runs: the same bits; and how long a step took in each.
same() { # NAME A B
    python3 - "$1" "$work/$2/metrics.jsonl" "$work/$3/metrics.jsonl" <<'P'
import json, statistics, sys
a, b = ([json.loads(l) for l in open(f)] for f in sys.argv[2:4])
ok = len(a) == len(b) > 0 and all(
    x[k] == y[k] for x, y in zip(a, b) for k in ("loss", "total_loss", "grad_norm"))
ms, wait = ([statistics.median(r[k] for r in rows[len(rows) // 2:]) for rows in (a, b)]
            for k in ("step_ms", "comm_wait_ms"))
print(f"{sys.argv[1]}: {len(a)} steps, {ms[0]:.1f} and {ms[1]:.1f} ms a step, of which the host waited "
      f"for the wire {wait[0]:.1f} and {wait[1]:.1f}", "" if ok else "NOT THE SAME")
sys.exit(not ok)
P
}
# Gradients of one batch on both, in f32.
gradients() {
    local program=$build/tests/cuda/device/cuda_program_gradients target
    train seed cpu configs/e3/small/baseline.ini 3 hardware.precision=fp32 \
        logging.checkpoint_at_end=true || return 1
    "$program" tokens "$work/tokens.h5" || return 1
    for target in cpu cuda; do
        "$build/nanochat_dist" grad --checkpoint "$work/seed" --precision fp32 --target $target \
            --tokens "$work/tokens.h5" --out "$work/$target.h5" || return 1
    done
    "$program" compare "$work/cpu.h5" "$work/cuda.h5" 1e-3
}
losses() {
    local code=0 name
    for name in baseline full; do
        train "$name.cpu" cpu "configs/e3/small/$name.ini" 200 &
        train "$name.gpu" cuda "configs/e3/small/$name.ini" 200 || code=1
        wait || code=1
        compare "$name" "$name.cpu" "$name.gpu" 0.05 || code=1
    done
    train baseline.int8 cuda configs/e3/small/baseline.ini 200 \
        hardware.backward_precision=int8 || code=1
    compare 'baseline, gradients in 8 bits' baseline.gpu baseline.int8 0.05 || code=1
    return $code
}
# A micro-batch's ops one by one, and as a CUDA graph.
graphs() {
    local code=0 name
    for name in baseline mtp_only; do
        train "$name.ops" cuda "configs/e3/small/$name.ini" 60 training.micro_batch_size=1 || code=1
        train "$name.graphs" cuda "configs/e3/small/$name.ini" 60 training.micro_batch_size=1 \
            hardware.cuda_graphs=true || code=1
        grep 'nothing is recorded' "$work/$name.graphs.txt" && code=1
        same "$name, ops and graphs" "$name.ops" "$name.graphs" || code=1
    done
    return $code
}
has_nccl() {
    grep -q '^ND_NCCL_INCLUDE_DIR:.*NOTFOUND' "$build/CMakeCache.txt" || return 0
    echo 'built without NCCL'
    return 1
}
nccl() {
    has_nccl || return 77
    "$build/tests/cuda/device/cuda_program_nccl"
}
# Gradients that travel beside the backward pass and after it, and NCCL's all-reduce.
overlap() {
    local code=0 name on
    [ "$gpus" -ge 2 ] || { echo "$gpus GPU, and this takes two"; return 77; }
    command -v mpirun >/dev/null || { echo 'no mpirun'; return 77; }
    has_nccl || return 77
    launcher=(mpirun --allow-run-as-root --oversubscribe -np 2)
    for name in baseline galore2; do
        for on in true false; do
            train "$name.tree.$on" cuda "configs/e3/small/$name.ini" 40 "dist.overlap_grad_reduce=$on" || code=1
            train "$name.any.$on" cuda "configs/e3/small/$name.ini" 40 "dist.overlap_grad_reduce=$on" \
                dist.deterministic=off || code=1
        done
        same "$name, in the tree's order, beside and after" "$name.tree.true" "$name.tree.false" ||
            code=1
        same "$name, in any order, beside and after" "$name.any.true" "$name.any.false" || code=1
        train "$name.all" cuda "configs/e3/small/$name.ini" 40 dist.deterministic=off \
            dist.grad_reduction=allreduce || code=1
        compare "$name, to owners and to all" "$name.any.true" "$name.all" 0.05 || code=1
    done
    "${launcher[@]}" "$build/tests/cuda/device/cuda_program_nccl" || code=1
    launcher=()
    return $code
}
e3() {
    local code=0 name
    for name in baseline mtp_only muon_8bit galore2 full; do
        train "e3.$name" cuda "configs/e3/$name.ini" 6 || { code=1; echo "$name: failed"; continue; }
        python3 - "$name" "$work/e3.$name/metrics.jsonl" <<'P' || code=1
import json, math, sys
rows = [json.loads(l) for l in open(sys.argv[2])]
losses = [r["loss"] for r in rows]
print(f"{sys.argv[1]}: {len(rows)} steps, loss {losses[0]:.3f} -> {losses[-1]:.3f}, "
      f"{rows[-1]['step_ms']:.0f} ms a step")
sys.exit(not all(map(math.isfinite, losses)))
P
    done
    return $code
}
model() { # NAME STEPS SETTING...
    local name=$1 steps=$2 settings=()
    shift 2
    for setting in "$@"; do settings+=(--set "$setting"); done
    echo "== $name"
    "$build/bench/bench_throughput" --steps "$steps" --set hardware.target=cuda \
        --set data.dataset=synthetic --set model.vocab_size=32000 "${settings[@]}"
}
models() {
    local code=0 backward
    model 125M 6 model.hidden_dim=768 model.num_layers=12 model.num_heads=12 model.num_kv_heads=4 \
        model.ffn_mult=4 training.seq_length=1024 training.batch_size=64 \
        training.micro_batch_size=16 || code=1
    # Muon's iterations cost a step the same whatever its tokens: 131072 of them, as is usual.
    for backward in same int8; do
        model "1.5B, backward_precision = $backward" 4 model.hidden_dim=2048 model.num_layers=28 \
            model.num_heads=16 model.num_kv_heads=4 model.ffn_mult=3.5 model.max_seq_len=2048 \
            training.seq_length=2048 training.batch_size=64 training.micro_batch_size=8 \
            dist.deterministic=off "hardware.backward_precision=$backward" || code=1
    done
    # Of 24 GB: 22.7 by the plan, the workspace and CUDA's own beside them.
    for backward in same int8; do
        model "7B, every system, backward_precision = $backward" 3 model.hidden_dim=4096 \
            model.num_layers=32 model.num_heads=32 model.num_kv_heads=8 model.ffn_mult=3.5 \
            model.max_seq_len=2048 training.seq_length=2048 training.batch_size=16 \
            training.micro_batch_size=2 training.use_8bit_optim=true training.use_galore=true \
            training.galore_rank=256 training.use_collider=true \
            hardware.gradient_checkpointing=true hardware.pack_ternary_weights=true \
            optimizer.master_precision=bf16 dist.deterministic=off \
            "hardware.backward_precision=$backward" || code=1
    done
    return $code
}
: >"$report"
gpus=$(nvidia-smi -L 2>/dev/null | grep -c '^GPU')
gpu=$(nvidia-smi --query-gpu=name,driver_version,memory.total --format=csv,noheader 2>/dev/null | head -n 1)
say "# GPU check: ${gpu:-no GPU}"
say '' "$(nvcc --version 2>/dev/null | grep release), $(uname -r), $(env -u OMP_NUM_THREADS -u OMP_THREAD_LIMIT nproc) cores, sections: $sections"
if [ -z "$arch" ]; then
    arch=$(nvidia-smi --query-gpu=compute_cap --format=csv,noheader 2>/dev/null | head -n 1 | tr -d .)
fi
cmake_arguments+=("-DCMAKE_CUDA_ARCHITECTURES=${arch:-90}-real")
[ -z "$deps" ] || unpack >"$work/unpacking" 2>&1 || {
    say "$(cat "$work/unpacking")" 'the packages could not be unpacked, or do not run on this system'
    exit 1
}
find_nvidia

wanted build && run build 300 build_all
wanted conformance && run conformance 120 conformance
wanted attention && run attention 120 attention
wanted nccl && run nccl 60 nccl
wanted gradients && run gradients 60 gradients
wanted losses && run losses 150 losses
wanted graphs && run graphs 60 graphs
wanted overlap && run overlap 150 overlap
wanted e3 && run e3 90 e3
wanted ops && run ops 60 "$build/bench/bench_ops" --target cuda
wanted models && run models 200 models
wanted sanitizer && run sanitizer 150 sanitizer

say ''
if [ ${#failed[@]} -gt 0 ]; then
    say "failed: ${failed[*]}${not_run[*]:+; not run: ${not_run[*]}}; $SECONDS s"
    exit 1
elif [ ${#not_run[@]} -gt 0 ]; then
    say "nothing failed, but not run: ${not_run[*]}; $SECONDS s"
    exit 3
fi
say "all sections passed, $SECONDS s"
