#!/usr/bin/env python3
"""Runs the commands of README.md and docs/, and checks their links and the paths they name.

Every fenced block marked `sh`, but for those of a report, is run by bash, a page's blocks in turn
in one directory, with a model and data so small that all take about a minute. A block that cannot
be run here has a line

  <!-- not run: the reason -->

above it. In the directory of a page there are texts/, tok.model, shards/ and runs/quickstart, as
the README's commands leave them; the README's own begin with texts/ alone. Prints one line a page
and, last, a count as Criterion does, for launch/test.sh.
"""
import argparse
import glob
import os
import re
import shutil
import subprocess
import sys
import tempfile

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
SECONDS_MOST = 60  # of one block

# Follows the words of every training or plan command, so that it is small.
SMALL = [
    "training.total_steps=2", "training.batch_size=8", "training.micro_batch_size=1",
    "training.seq_length=16", "training.warmup_steps=1", "model.hidden_dim=256", "model.ffn_mult=1",
    "model.num_layers=1", "model.num_heads=2", "model.num_kv_heads=1", "model.max_seq_len=64", "logging.eval_samples=4",
    "logging.checkpoint_interval=0", "logging.eval_interval=0", "hardware.threads=1",
]

WRAPPER = """#!/bin/bash
small=()
for word in "$@"; do
    case $word in
    --config) small=({small}) ;;
    esac
done
[ "$1" != plan ] || small=()
exec {program} "$@" "${{small[@]}}"
"""


def pages():
    found = [os.path.join(ROOT, name) for name in ("README.md", "CONTRIBUTING.md", "CHANGELOG.md")]
    return found + sorted(glob.glob(ROOT + "/docs/**/*.md", recursive=True))


def blocks(text):
    """(line, language, reason not to run it or None, body) of each fenced block."""
    found, reason, start = [], None, None
    for number, line in enumerate(text.split("\n"), 1):
        if start is not None:
            if line.startswith("```"):
                found.append((start, language, reason, "\n".join(body)))
                start = reason = None
            else:
                body.append(line)
        elif line.startswith("```"):
            start, language, body = number, line[3:].strip(), []
        elif line.startswith("<!-- not run:"):
            reason = line[len("<!-- not run:"):].replace("-->", "").strip()
        elif line.strip():
            reason = None
    return found


def without_code(text):
    return re.sub(r"(?ms)^```.*?^```$", "", text)


def anchors(text):
    """As GitHub makes them of headings."""
    titles = re.findall(r"(?m)^#+ (.*)$", without_code(text))
    plain = [re.sub(r"[^\w\- ]", "", re.sub(r"[`*]|\]\([^)]*\)", "", t).lower()) for t in titles]
    return {t.strip().replace(" ", "-") for t in plain}


def check_links(page, text):
    for target in re.findall(r"\]\(([^)\s]+)\)", without_code(text)):
        if re.match(r"https?:", target):
            continue
        path, _, anchor = target.partition("#")
        full = os.path.normpath(os.path.join(os.path.dirname(page), path)) if path else page
        if not os.path.exists(full):
            yield f"the link {target} leads nowhere"
        elif anchor and full.endswith(".md") and anchor not in anchors(open(full).read()):
            yield f"the link {target}: no such heading"


def check_paths(text, build):
    """Files of the checkout and programs of the build, wherever they are named."""
    named = r"(?<![\w./-])((?:launch|bench|tests|src|cuda|configs|cmake|docs)/[\w/.-]*\w)(?![\w*<{])"
    for path in set(re.findall(named, text)):
        there = [path, path + ".c", path + ".h"]
        if path.startswith("tests/"):
            there.append("tests/" + path[6:])
        if not any(os.path.exists(os.path.join(ROOT, p)) for p in there):
            yield f"there is no {path}"
    for module, test in set(re.findall(r"(?<![\w/])(core|optim|data|dist|train|exchange|cli|cuda)/(test_\w+)", text)):
        if not os.path.exists(f"{ROOT}/tests/{module}/{test}.c"):
            yield f"there is no test {module}/{test}"
    for name in set(re.findall(r"(?<!\w)T/(\w+)", text)):
        if not os.path.exists(f"{build}/tests/{name}"):
            yield f"there is no test program T/{name}"
    # Options of scripts that print theirs; --help is in launch/shared.sh.
    for script, rest in re.findall(r"(?m)((?:launch|bench)/\w+\.sh)((?: +(?:--)?[\w./'*^=-]+)*)", text):
        full = os.path.join(ROOT, script)
        if os.path.exists(full):
            known = open(full).read() + " --help"
            for option in re.findall(r"--[a-z][\w-]*", rest.split(" -- ")[0]):
                if option not in known:
                    yield f"{script} has no {option}"


def make_tree(place, build):
    """A checkout of links, whose programs are the build's, made small."""
    os.makedirs(place + "/build/release/bench")
    os.makedirs(place + "/bin")
    os.makedirs(place + "/texts")
    for name in os.listdir(ROOT):
        if name not in ("build", "runs", "data", ".git"):
            os.symlink(os.path.join(ROOT, name), os.path.join(place, name))
    for name in os.listdir(build + "/bench"):
        os.symlink(f"{build}/bench/{name}", f"{place}/build/release/bench/{name}")
    os.symlink(build + "/tests", place + "/build/release/tests")
    small = " ".join(f"--set {key}" for key in SMALL)
    for path in ("/bin/nanochat_dist", "/build/release/nanochat_dist"):
        with open(place + path, "w") as file:
            file.write(WRAPPER.format(small=small, program=build + "/nanochat_dist"))
        os.chmod(place + path, 0o755)
    sources = sorted(glob.glob(ROOT + "/src/**/*.c", recursive=True))
    for source in sources:
        shutil.copy(source, f"{place}/texts/{os.path.basename(source)[:-2]}.txt")


def environment(place):
    e = dict(os.environ, PATH=f"{place}/bin:" + os.environ["PATH"], OMP_WAIT_POLICY="passive",
             OMPI_MCA_rmaps_base_oversubscribe="1", OMPI_MCA_hwloc_base_binding_policy="none",
             PRTE_MCA_rmaps_default_mapping_policy=":oversubscribe", HOME=place)
    if os.getuid() == 0:
        e.update(OMPI_ALLOW_RUN_AS_ROOT="1", OMPI_ALLOW_RUN_AS_ROOT_CONFIRM="1")
    return e


def run(script, place, limit):
    """Exit code and output; what the script started ends with it."""
    process = subprocess.Popen(["bash", "-euo", "pipefail", "-c", script], cwd=place, text=True, errors="replace",
                               env=environment(place), stdin=subprocess.DEVNULL,
                               stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
                               start_new_session=True)
    try:
        output, _ = process.communicate(timeout=limit)
        return process.returncode, output
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, 9)
        return 124, process.communicate()[0] + f"\nnot done after {limit} s"


def prepare(place, build):
    make_tree(place, build)
    code, output = run(
        "nanochat_dist tokenizer train --input texts --vocab-size 4096 --output tok.model\n"
        "nanochat_dist pack --quiet --tokenizer tok.model --out shards texts --val-fraction 0.05\n"
        "mkdir -p data/quickstart && cp -r shards data/quickstart/shards\n"
        "nanochat_dist --config configs/quickstart.ini --data-path shards --run-dir runs/quickstart",
        place, SECONDS_MOST)
    if code:
        sys.exit("check_docs: preparing: " + output)


def check_commands(name, text, prepared, scratch):
    place = None
    for line, language, reason, body in blocks(text):
        if language != "sh":
            continue
        if reason is not None:
            if len(reason.split()) < 2:
                yield f"line {line}: 'not run' needs a reason"
            continue
        if place is None:
            place = tempfile.mkdtemp(dir=scratch)
            subprocess.run(["cp", "-a", prepared + "/.", place], check=True)
            if name == "README.md":
                for made in ("shards", "runs"):
                    shutil.rmtree(f"{place}/{made}")
                os.remove(place + "/tok.model")
        code, output = run(body, place, SECONDS_MOST)
        if code:
            yield f"line {line}: the commands end with {code}:\n{body}\n{output[-2000:]}"
    if place:
        shutil.rmtree(place)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("build", metavar="BUILD_DIRECTORY", type=os.path.abspath)
    parser.add_argument("--only", metavar="PAGE", help="a page alone, such as docs/install.md")
    arguments = parser.parse_args()
    build, only = arguments.build, arguments.only
    failed = tested = 0
    with tempfile.TemporaryDirectory() as scratch:
        prepared = scratch + "/prepared"
        prepare(prepared, build)
        for page in pages():
            name = os.path.relpath(page, ROOT)
            if only and name != only:
                continue
            text = open(page).read()
            wrong = list(check_links(page, text))
            # What `nanochat_dist report` writes has the length it has, and commands and paths of runs that were.
            if not text.startswith("# Report of "):
                wrong += check_paths(text, build)
                most = {"README.md": 150, "CHANGELOG.md": sys.maxsize}.get(name, 250)
                if text.count("\n") > most:
                    wrong.append(f"the page is longer than {most} lines")
                if name == "docs/glossary.md" and text.count("\n| ") > 31:
                    wrong.append("the glossary has more than 30 terms")
                wrong += check_commands(name, text, prepared, scratch)
            tested += 1
            failed += bool(wrong)
            print(f"[{'FAIL' if wrong else 'PASS'}] docs::{name}", *wrong, sep="\n  ", flush=True)
    print(f"[====] Synthesis: Tested: {tested} | Passing: {tested - failed} | Failing: {failed} | Crashing: 0")
    sys.exit(1 if failed else 0)


main()
