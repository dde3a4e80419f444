#!/usr/bin/env python3
"""The parts of bench/kills.sh that count."""
import argparse
import json
import math
import os
import random
import signal
import statistics
import subprocess
import sys
import time


def lines(run):
    with open(os.path.join(run, "metrics.jsonl"), encoding="utf-8") as file:
        return [json.loads(line) for line in file]


def rate(run, seconds):
    """Steps that take so many seconds, from those after the first."""
    ms = statistics.median(line["step_ms"] for line in lines(run)[20:])
    print(int(float(seconds) * 1000 / ms))


def ranks(run):
    found = []
    for name in os.listdir("/proc"):
        try:
            with open(f"/proc/{name}/cmdline", encoding="utf-8") as file:
                words = file.read().split("\0")
        except OSError:
            continue
        if words[0].endswith("nanochat_dist") and run in words:
            found.append(int(name))
    return found


def size(run):
    try:
        return os.path.getsize(os.path.join(run, "metrics.jsonl"))
    except OSError:
        return 0


def last_step(run):
    try:
        return lines(run)[-1]["step"]
    except (OSError, IndexError, ValueError):
        return 0


def wait_for_step(run, since, limit=60.0):
    """A restart shortens the file to the step it resumes from; the next line is the next step."""
    time.sleep(0.3)  # what was on its way when the fault came
    least = size(run)
    while time.monotonic() - since < limit:
        now = size(run)
        if now > least:
            return time.monotonic() - since
        least = min(least, now)
        time.sleep(0.005)
    return None


def link(state):
    subprocess.run(["ip", "-n", "host2", "link", "set", "eth0", state], check=True)


def fault(run, number, count):
    """Of `count` faults the middle one cuts the link, and two kill two ranks at once; returns what was done and, where
    it is to be undone, how."""
    if number == count // 2:
        link("down")
        return "link cut", lambda: link("up")
    victims = random.sample(ranks(run), 2 if number in (count // 4, 3 * count // 4) else 1)
    for victim in victims:
        os.kill(victim, signal.SIGKILL)
    return f"{len(victims)} killed", None


def kill(run, every, steps, seconds):
    every, steps = float(every), int(steps)
    count = max(round(float(seconds) / every), 1)
    took = []
    seed = int(os.environ.get("ND_KILLS_SEED", "1"))
    random.seed(seed)
    while last_step(run) < 10:
        time.sleep(0.1)
    begun = time.monotonic()
    for number in range(count):
        time.sleep(max(0.0, begun + (number + 1) * every - time.monotonic()))
        step = last_step(run)
        if step > steps - 10 or len(ranks(run)) < 2:
            break
        start = time.monotonic()
        what, undo = fault(run, number, count)
        waited = wait_for_step(run, start)
        print(f"step {step}: {what}, next step after " + (f"{waited:.2f} s" if waited else "never"), flush=True)
        took.append(waited or math.inf)
        if undo:
            time.sleep(max(0.0, 10.0 - (time.monotonic() - start)))
            undo()
    print(f"seed {seed}, {len(took)} of {count} faults, median {statistics.median(took):.2f} s, most {max(took):.2f} s")


def duration(run):
    """Seconds between the first and the last line that training wrote, by the times of the log."""
    stamps = []
    with open(os.path.join(run, "training.log"), encoding="utf-8") as file:
        for line in file:
            try:
                stamps.append(time.mktime(time.strptime(line[:19], "%Y-%m-%d %H:%M:%S")))
            except ValueError:
                pass
    return stamps[-1] - stamps[0]


def state(run):
    with open(os.path.join(run, "checkpoints", "latest", "manifest.json"), encoding="utf-8") as file:
        return json.load(file)["state_sha256"]


def compare(whole, cut):
    times, states = [duration(whole), duration(cut)], [state(whole), state(cut)]
    print(f"{last_step(whole)} steps in {times[0]:.0f} s undisturbed, {times[1]:.0f} s disturbed: "
          f"{100 * times[0] / times[1]:.1f} % of the steps in the same time")
    print(f"state {states[0][:16]} undisturbed, {states[1][:16]} disturbed: "
          + ("the same" if states[0] == states[1] else "NOT the same"))
    print(f"restarts {lines(cut)[-1]['restarts']}")
    sys.exit(states[0] != states[1])


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parts = parser.add_subparsers(metavar="PART", required=True)
    for part, does, words in (
            (rate, "steps that RUN takes SECONDS for", ("run", "seconds")),
            (kill, "kills ranks of RUN or cuts its link, every EVERY of so many SECONDS or until STEPS are done",
             ("run", "every", "steps", "seconds")),
            (compare, "the steps and states of two runs", ("whole", "cut"))):
        words_of = parts.add_parser(part.__name__, help=does, description=does)
        words_of.set_defaults(part=part)
        for word in words:
            words_of.add_argument(word)
    arguments = vars(parser.parse_args())
    arguments.pop("part")(**arguments)
