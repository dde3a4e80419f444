#!/usr/bin/env python3
"""Tables and pictures of the runs of bench/scaling.sh.

Reads WORK/runs.jsonl and the runs it names; asks `PROGRAM plan` for predictions; leaves scaling.md,
CSV files, gnuplot scripts and, where gnuplot is installed, their pictures in OUT.
"""
import argparse
import csv
import json
import re
import statistics
import subprocess
import sys
from pathlib import Path

MIB = 1024.0 * 1024.0
SEQUENCE = 256  # tokens, of configs/e3/small


def read_run(work, record):
    """Medians over the steps of a run but the first few, in which memory is touched and kernels are made."""
    lines = [json.loads(line) for line in open(work / record["run"] / "metrics.jsonl")]
    used = lines[min(3, len(lines) // 3):]

    def median(key):
        return statistics.median(line[key] for line in used)

    record["step_ms"] = median("step_ms")
    record["steps_ms"] = [line["step_ms"] for line in used]
    record["tokens_per_s"] = 1e3 * record["batch"] * SEQUENCE / record["step_ms"]
    record["update_ms"] = statistics.median(line["phases_ms"]["update"]["median"] for line in used)
    record["comm_mib"] = median("comm_bytes") / MIB
    record["all_bytes"] = sum(line["comm_bytes"] for line in lines)
    record["wait_ms"] = median("comm_wait_ms")
    record["busy_ms"] = median("comm_busy_ms") if "comm_busy_ms" in used[0] else None
    busy = record["busy_ms"]
    record["overlap"] = max(0.0, 1.0 - record["wait_ms"] / busy) if busy else None
    return record


def last_object(path):
    """The last line of a benchmark's output that is a JSON object."""
    return json.loads([line for line in open(path) if line.startswith("{")][-1])


def cell(value):
    if value is None:
        return ""
    if isinstance(value, float):
        return f"{value:.3g}" if abs(value) < 10 else f"{value:.1f}" if abs(value) < 1000 else f"{value:.0f}"
    return str(value)


def table(head, rows):
    lines = ["| " + " | ".join(head) + " |", "|" + "---|" * len(head)]
    return "\n".join(lines + ["| " + " | ".join(cell(c) for c in row) + " |" for row in rows]) + "\n"


def slowest(records):
    """Median over steps of the time of the slowest of runs side by side: ranks that train together wait for it."""
    return statistics.median(max(steps) for steps in zip(*(r["steps_ms"] for r in records)))


def percent(value):
    return None if value is None else f"{100 * value:.1f} %"


class Report:
    def __init__(self, work, out, program, root):
        self.work, self.out, self.program, self.root = Path(work), Path(out), program, Path(root)
        self.records = [json.loads(line) for line in open(self.work / "runs.jsonl")]
        for record in self.records:
            if "run" in record:
                read_run(self.work, record)
            if "file" in record:
                measured = last_object(self.work / record["file"])
                if "gbit" in measured:
                    measured["gbit_measured"] = measured.pop("gbit")
                record.update(measured)
        self.machine = self.of("machine")[0]
        self.text = []

    def of(self, part, **where):
        return [r for r in self.records
                if r["part"] == part and all(r[k] == v for k, v in where.items())]

    def one(self, part, **where):
        found = self.of(part, **where)
        return found[0] if found else None

    def say(self, text):
        self.text.append(text)

    def write_csv(self, name, head, rows):
        with open(self.out / f"{name}.csv", "w", newline="") as file:
            writer = csv.writer(file, lineterminator="\n")
            writer.writerow(head)
            writer.writerows(rows)

    def one_host(self):
        cores, rows = self.machine["cores"], []
        runs = self.of("one host")
        if not runs:
            return
        for config in dict.fromkeys(r["config"] for r in runs):
            for kind in ("strong", "weak"):
                for r in (r for r in runs if r["config"] == config):
                    if r["batch"] != (16 if kind == "strong" else 2 * r["ranks"]):
                        continue
                    first = self.one("one host", config=config, ranks=1,
                                     batch=16 if kind == "strong" else 2)
                    used = min(r["ranks"], cores)
                    efficiency = r["tokens_per_s"] / (first["tokens_per_s"] * used)
                    rows.append([config, kind, r["ranks"], used, r["batch"], r["step_ms"],
                                 r["tokens_per_s"], r["comm_mib"], r["wait_ms"], r["busy_ms"],
                                 r["overlap"], efficiency])
        head = ["configuration", "scaling", "ranks", "cores", "sequences", "step ms", "tokens/s",
                "sent MiB", "wait ms", "busy ms", "overlap", "efficiency"]
        self.write_csv("one_host", head, rows)
        self.say("## One host\n\nA rank computes with one thread. Efficiency is tokens/s over those of one rank "
                 f"times the cores in use, which are at most {cores}: beyond that ranks share cores, and it "
                 "tells what is lost by splitting the work, not by a lack of cores. Weak scaling has two "
                 "sequences a rank.\n")
        self.say(table(head, [row[:10] + [percent(row[10]), percent(row[11])] for row in rows]))
        self.plot_one_host(rows)

    def links(self):
        rows = []
        for link in self.of("link"):
            rows.append([link["gbit"], link["gbit_measured"], link["reduce_gbit"], link["add_gbyte"],
                         link["latency_us"], link["core_ns"], link["veth"] / link["bytes"] - 1.0])
        head = ["link Gbit/s", "measured Gbit/s", "reducing Gbit/s", "adding GB/s", "latency us",
                "core ns/byte", "overhead"]
        self.write_csv("links", head, rows)
        self.say("### The links\n\nMeasured by `bench_link` through the program's own messages in the same "
                 "run: messages one way, reductions to the other rank, half a ping-pong of 8 bytes; what a byte "
                 "on its way takes from a computation beside it on the same core; and by how much the bytes that "
                 "passed the cable exceed the payload (headers, acknowledgements, MPI's start).\n")
        self.say(table(head, [row[:6] + [percent(row[6])] for row in rows]))

    def plan(self, config, batch, ranks, *more):
        """What `plan` prints for a step of so many sequences."""
        return subprocess.run(
            [self.program, "plan", "--config", str(self.root / self.machine["config_dir"] / f"{config}.ini"),
             "--set", f"training.batch_size={batch}",
             "--set", f"training.micro_batch_size={self.machine['micro_batch']}", "--ranks", str(ranks), *more],
            check=True, capture_output=True, text=True).stdout

    def predict_layout(self, run):
        """[predicted, simulated] ms, from the slowest of ranks that train alone in the places of all, at once."""
        between, within = (self.one("layout link", where=where, asked_gbit=run["gbit"])
                           for where in ("between", "within"))
        alone = self.of("at once", config=run["config"])
        step, optimizer = slowest(alone), statistics.mean(r["update_ms"] for r in alone)
        local = ["--local-bandwidth", f"{within['gbit_measured']:.6g}", "--local-latency",
                 f"{within['latency_us']:.6g}"] if within else []
        return self.plan_times(run["config"], run, run["hosts"], between,
                               run["ranks"] * (step - optimizer) + optimizer, optimizer, local)

    def layouts(self):
        """Other layouts than one rank on each of two hosts, against the same ranks without a network."""
        rows = []
        for run in self.of("layout"):
            near = read_run(self.work, dict(run, run=run["near"]))["step_ms"]
            planned = self.predict_layout(run)
            rows.append([run["layout"], run["config"], run["gbit"], run["batch"], near, run["step_ms"],
                         run["comm_mib"], run["wait_ms"]] + planned + [run["overlap"], near / run["step_ms"]] +
                        [ms / run["step_ms"] - 1.0 for ms in planned])
        head = ["layout", "configuration", "link Gbit/s", "sequences", "step ms without network", "step ms", "sent MiB",
                "wait ms", "predicted ms", "simulated ms", "overlap", "weak", "prediction off by", "simulation off by"]
        self.write_csv("layouts", head, rows)
        self.say("## Hosts x ranks\n\nThe same ranks on the same cores with the same batch, two rounds in turns: all "
                 "on one host through shared memory, then on hosts (network namespaces) with a link each, which tc "
                 "throttles each way. Weak efficiency is the first time over the second. `predicted` and `simulated` "
                 "are what `plan` says from the measured links and, step by step, the slowest of ranks that train "
                 "alone in the places of all, at once.\n")
        self.say(table(head, [row[:10] + [percent(v) for v in row[10:]] for row in rows]))
        self.link_bytes()

    def link_bytes(self):
        rows = []
        for pair in self.of("bytes"):
            planned = self.planned_links(pair)
            for host in range(1, pair["hosts"] + 1):
                first, last = (self.one("payload", of=pair[end], host=host) for end in ("first", "last"))
                for way, plan in zip(("out", "in"), planned[host - 1]):
                    sent = (last[way] - first[way]) / pair["steps"] / MIB
                    rows.append([pair["layout"], pair["config"], host, way, sent, plan, sent / plan - 1.0])
        head = ["layout", "configuration", "host", "way", "MiB a step", "by plan", "off by"]
        self.write_csv("link_bytes", head, rows)
        self.say("What passed each host's link, without the headers of Ethernet, IP and TCP (66 bytes a packet), with "
                 "grad_compression = off: of a run of more steps less one of one step; and what `plan` says.\n")
        self.say(table(head, [row[:4] + [f"{row[4]:.4f}", f"{row[5]:.4f}", f"{100 * row[6]:.2f} %"] for row in rows]))

    def planned_links(self, pair):
        """[(out, in)] of each host, MiB a step."""
        output = self.plan(pair["config"], pair["batch"], pair["ranks"], "--hosts", str(pair["hosts"]),
                           "--bandwidth", "1", "--step-ms", "1000", *pair["more"].split())
        return [tuple(float(v) for v in found) for found in
                re.findall(r"over the link of host \d+ +([\d.]+) MiB out, ([\d.]+) MiB in", output)]

    def first_codes(self, config, batch):
        """Bytes of weights that ranks send before the first step, which no step counts."""
        output = self.plan(config, batch, 2)
        sent = output[output.index("wire a step (MB)"):]
        return 1e6 * sum(float(re.search(rf"^  {kind} +([\d.]+)", sent, re.M).group(1))
                         for kind in ("codes", "dense"))

    def plan_times(self, config, run, hosts, link, step, optimizer, more):
        """[predicted, simulated] ms of a step, by `plan`, from a step of the whole batch on one rank."""
        output = self.plan(config, run["batch"], run["ranks"], "--hosts", str(hosts),
                           "--bandwidth", f"{link['gbit_measured']:.6g}", "--latency",
                           f"{link['latency_us']:.6g}", "--add-rate", f"{link['add_gbyte']:.6g}",
                           "--core-cost", f"{link['core_ns']:.6g}", "--step-ms", f"{step:.6g}",
                           "--optimizer-ms", f"{optimizer:.6g}", "--simulate", *more)
        return [float(re.search(rf"time a step +([\d.e+]+) ms.*\({kind}\)", output).group(1))
                for kind in ("predicted", "simulated")]

    def predict(self, run, link):
        """[predicted, simulated] ms, from the slower of two ranks that train alone at once."""
        alone = [self.one(part, config=run["base"], batch=run["batch"]) for part in ("together", "beside")]
        return self.plan_times(run["base"], run, 2, link, slowest(alone), alone[0]["update_ms"], run["more"].split())

    def two_hosts(self):
        rows = []
        for run in self.of("two hosts"):
            link = self.one("link", gbit=run["gbit"])
            alone = self.one("alone", config=run["base"], batch=run["batch"])["step_ms"]
            share = self.one("alone", config=run["base"], batch=run["batch"] // 2)["step_ms"]
            beside = self.one("together", config=run["base"], batch=run["batch"])["step_ms"]
            planned = self.predict(run, link)
            run["predicted"] = planned[0]
            rows.append([run["config"], run["gbit"], run["step_ms"], run["tokens_per_s"], run["comm_mib"],
                         run["wait_ms"], run["busy_ms"], run["overlap"],
                         alone / (2.0 * run["step_ms"]), share / run["step_ms"], alone / beside,
                         *planned, *[ms / run["step_ms"] - 1.0 for ms in planned],
                         run["veth"] / (run["all_bytes"] + self.first_codes(
                             run["base"], run["batch"])) - 1.0])
        head = ["configuration", "link Gbit/s", "step ms", "tokens/s", "sent MiB", "wait ms", "busy ms",
                "overlap", "strong", "weak", "ceiling", "predicted ms", "simulated ms", "prediction off by",
                "simulation off by", "overhead"]
        self.write_csv("two_hosts", head, rows)
        self.say("### Training\n\nTwo ranks of one core each against one rank with one core: strong = T1 / "
                 "(2 T2) for the same 16 sequences, weak = T1 of 8 sequences / T2 of 16. The ceiling "
                 "is what strong scaling would reach if nothing were exchanged: the two cores share caches, "
                 "memory and clock, so that a rank is slower when the other one computes. Overlap is the part "
                 "of the time in messages that computations hid. `predicted` and `simulated` are what `plan` says from "
                 "the measured link and the slower of two ranks that train alone at once, step by step; overhead, by "
                 "how much the bytes on the cable exceed those that the run counted in its steps and those of the "
                 "first codes.\n")
        self.say(table(head, [row[:7] + [percent(v) for v in row[7:11]] + row[11:13] +
                              [percent(v) for v in row[13:]] for row in rows]))
        self.baselines()

    def baselines(self):
        rows = []
        for config in dict.fromkeys(r["base"] for r in self.of("two hosts")):
            for step in (16, 8):
                alone = self.one("alone", config=config, batch=step)
                beside = self.one("together", config=config, batch=step)
                rows.append([config, step, alone["step_ms"], beside["step_ms"]])
        self.say("One rank on one core:\n")
        self.say(table(["configuration", "sequences", "step ms alone", "step ms, other core at work"],
                       rows))

    def against_ddp(self):
        rows = []
        for ddp in self.of("ddp"):
            for run in self.of("two hosts", gbit=ddp["gbit"], base=ddp["config"]):
                rows.append([run["config"], run["gbit"], run["step_ms"], run["comm_mib"]] + [
                    value for kind in ("fp32", "bf16") for value in
                    (ddp[f"{kind}_ms"], ddp[f"{kind}_bytes"] / MIB, ddp[f"{kind}_allreduce_ms"],
                     max(ddp["compute_ms"], ddp[f"{kind}_allreduce_ms"]))] +
                    [ddp["fp32_ms"] / run["step_ms"], ddp["bf16_ms"] / run["step_ms"]])
        head = ["configuration", "link Gbit/s", "ours ms", "MiB"] + [
            f"{kind} {what}" for kind in ("fp32", "bf16")
            for what in ("ms", "MiB", "all-reduce ms", "all hidden ms")] + [
            "fp32 / ours", "bf16 / ours"]
        self.write_csv("against_ddp", head, rows)
        self.say("### Beside plain data parallelism\n\n`bench_ddp`: the same model, data and optimizer; every "
                 "rank keeps and updates everything, and MPI_Allreduce sums all gradients after the backward "
                 "pass in buckets of 25 MiB. `all hidden` is a bound for one that overlaps: the longer of "
                 "computing and all-reducing.\n")
        self.say(table(head, rows))
        self.plot_ddp()

    def gnuplot(self, name, script):
        head = (f"# gnuplot {name}.gp draws {name}.svg again\n"
                "set terminal svg size 860,520 dynamic background rgb 'white'\nset termoption noenhanced\n"
                f"set output '{name}.svg'\nset datafile separator comma\nset grid\n"
                "set key outside right top\n")
        (self.out / f"{name}.gp").write_text(head + script)
        try:
            subprocess.run(["gnuplot", f"{name}.gp"], cwd=self.out, check=True)
            self.say(f"![{name}]({name}.svg)\n")
        except FileNotFoundError:
            self.say(f"({name}.gp draws the picture; gnuplot is not installed)\n")

    def plot_one_host(self, rows):
        kinds = dict.fromkeys((row[0], row[1]) for row in rows)
        lines = [f"'one_host.csv' every ::1 using "
                 f"(strcol(1) eq '{c}' && strcol(2) eq '{k}' ? $3 : NaN):(100*$12) "
                 f"with linespoints pointtype 7 title '{c}, {k}'" for c, k in kinds]
        self.gnuplot("one_host", "set logscale x 2\nset xlabel 'ranks'\nset xtics (1,2,4,8)\nset xrange [0.9:9]\n"
                     "set ylabel 'efficiency (%)'\nset yrange [0:*]\nset datafile missing NaN\n"
                     "plot " + ", \\\n     ".join(lines) + "\n")

    def plot_ddp(self):
        """One group of bars a link: the first configuration's step times."""
        config = self.of("ddp")[0]["config"]
        with open(self.out / "two_hosts_bars.csv", "w") as file:
            file.write("link,ours,predicted,fp32 all-reduce,bf16 all-reduce,one core\n")
            alone = self.one("alone", config=config, batch=16)["step_ms"]
            for ddp in self.of("ddp", config=config):
                run = self.one("two hosts", config=config, gbit=ddp["gbit"])
                file.write(f"{ddp['gbit']} Gbit/s,{run['step_ms']:.6g},{run['predicted']:.6g},"
                           f"{ddp['fp32_ms']:.6g},{ddp['bf16_ms']:.6g},{alone:.6g}\n")
        self.gnuplot("two_hosts", f"set title '{config}: a step of 16 sequences on two hosts'\n"
                     "set style data histograms\nset style histogram clustered gap 1\n"
                     "set style fill solid 0.85 border -1\nset ylabel 'ms a step'\nset yrange [0:*]\n"
                     "plot for [i=2:6] 'two_hosts_bars.csv' using i:xtic(1) title columnheader(i)\n")

    def write(self):
        self.out.mkdir(parents=True, exist_ok=True)
        m = self.machine
        self.say("# Scaling, measured\n\nWritten by `bench/scaling.sh`; "
                 f"{m['config_dir']}, {m['steps']} steps per run, medians; micro-batches of {m['micro_batch']}. "
                 f"{m['cores']} cores, {m['model']}; load average at the start {m['load']}.\n")
        self.one_host()
        for record in self.of("skipped"):
            self.say(f"## Two hosts\n\nNot measured; {record['reason']}.\n")
        if self.of("layout"):
            self.layouts()
        if self.of("two hosts"):
            self.say("## Two hosts\n\nNetwork namespaces on this machine, a core each, joined by a veth that tc "
                     "throttles each way; MPI over TCP. `_bf16` behind a configuration's name is "
                     "`grad_comm_dtype = bf16`; `_int8` is `grad_comm_dtype = int8`, `weight_sync = delta` and "
                     "`embedding_sync = int8_delta`.\n")
            self.links()
            self.two_hosts()
            self.against_ddp()
        (self.out / "scaling.md").write_text("\n".join(self.text))


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for name in ("WORK", "OUT", "PROGRAM", "ROOT"):
        parser.add_argument(name)
    Report(**{name.lower(): value for name, value in vars(parser.parse_args()).items()}).write()
