#include "cli/args.h"
#include "cli/cli.h"
#include "cli/config_arguments.h"
#include "train/plan/plan.h"
#include "train/plan/plan_choice.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

/* "24GiB", "24G", "512MiB", or bytes. */
static nd_status parse_bytes(const char *text, size_t *bytes)
{
    static const struct {
        const char *suffix;
        double factor;
    } units[] = {{"", 1.0},     {"K", 0x1p10},   {"KiB", 0x1p10}, {"M", 0x1p20},  {"MiB", 0x1p20},
                 {"G", 0x1p30}, {"GiB", 0x1p30}, {"T", 0x1p40},   {"TiB", 0x1p40}};
    char *end;
    const double value = strtod(text, &end);
    const bool decimal = end != text && !strpbrk(text, "xX");
    for (size_t i = 0; decimal && value > 0.0 && i < sizeof units / sizeof units[0]; i++)
        if (strcasecmp(end, units[i].suffix) == 0 && value * units[i].factor < 0x1p62) {
            *bytes = (size_t)(value * units[i].factor);
            return ND_OK;
        }
    return ND_FAIL(ND_ECONFIG, "--device-memory: '%.40s' is not a size such as 24GiB", text);
}

/* Options that describe the machine, in the units of the command line. */
typedef struct machine_arguments {
    int64_t hosts;
    double bandwidth, latency, local_bandwidth, local_latency; /* Gbit/s, us */
    double add_rate, core_cost;                                /* GB/s, ns a byte */
    const char *flops;
    double step_ms, optimizer_ms;
    bool simulate, groups;
} machine_arguments;

static const machine_arguments unknown_machine = {.hosts = -1, /* not given, as NaN */
                                                  .bandwidth = NAN,
                                                  .step_ms = NAN,
                                                  .latency = 50.0,
                                                  .local_bandwidth = 64.0,
                                                  .local_latency = 2.0,
                                                  .add_rate = 5.0};

/* Without --bandwidth no time is predicted, and what describes the machine has no meaning. */
static nd_status check_no_machine(const machine_arguments *a)
{
    const machine_arguments *u = &unknown_machine;
    const struct {
        const char *flag;
        bool given;
    } options[] = {{"--flops", a->flops != NULL},
                   {"--step-ms", !isnan(a->step_ms)},
                   {"--optimizer-ms", a->optimizer_ms != u->optimizer_ms},
                   {"--simulate", a->simulate},
                   {"--groups", a->groups},
                   {"--hosts", a->hosts != u->hosts},
                   {"--latency", a->latency != u->latency},
                   {"--local-bandwidth", a->local_bandwidth != u->local_bandwidth},
                   {"--local-latency", a->local_latency != u->local_latency},
                   {"--add-rate", a->add_rate != u->add_rate},
                   {"--core-cost", a->core_cost != u->core_cost}};
    for (size_t i = 0; i < sizeof options / sizeof options[0]; i++)
        ND_FAIL_IF(options[i].given, ND_ECONFIG,
                   "%s needs --bandwidth, Gbit/s of a host's link, without which no time is "
                   "predicted",
                   options[i].flag);
    return ND_OK;
}

static nd_status check_machine(const machine_arguments *a, int64_t ranks)
{
    const struct {
        const char *flag;
        double value, low, high;
    } ranges[] = {{"--bandwidth", a->bandwidth, 1e-6, 1e6},
                  {"--local-bandwidth", a->local_bandwidth, 1e-6, 1e6},
                  {"--add-rate", a->add_rate, 1e-6, 1e6},
                  {"--latency", a->latency, 0.0, 1e9},
                  {"--local-latency", a->local_latency, 0.0, 1e9},
                  {"--core-cost", a->core_cost, 0.0, 1e6},
                  {"--step-ms", a->step_ms, 1e-6, 1e12}};
    for (size_t i = 0; i < sizeof ranges / sizeof ranges[0]; i++)
        ND_FAIL_IF(ranges[i].value < ranges[i].low || ranges[i].value > ranges[i].high, ND_ECONFIG,
                   "%s: %g is not from %g to %g", ranges[i].flag, ranges[i].value, ranges[i].low,
                   ranges[i].high);
    if (a->hosts < 1 || a->hosts > ranks)
        return ND_FAIL(ND_ECONFIG, "--hosts: %lld is not from 1 to the number of ranks, %lld",
                       (long long)a->hosts, (long long)ranks);
    if ((a->flops != NULL) == !isnan(a->step_ms))
        return ND_FAIL(ND_ECONFIG, "the time of a step needs --bandwidth and what a rank computes: "
                                   "either --flops or --step-ms");
    if (a->optimizer_ms < 0.0 || (a->optimizer_ms > 0.0 && !(a->optimizer_ms < a->step_ms)))
        return ND_FAIL(ND_ECONFIG, "--optimizer-ms: %g is not a part of --step-ms, %g",
                       a->optimizer_ms, a->step_ms);
    return ND_OK;
}

static nd_status parse_flops(const nd_config *config, const machine_arguments *a, int ranks,
                             double *flops)
{
    char *end;
    if (!a->flops)
        return ND_OK;
    if (strcmp(a->flops, "measured") == 0)
        return nd_plan_measure_flops(config, (ranks + (int)a->hosts - 1) / (int)a->hosts, NULL,
                                     flops);
    *flops = strtod(a->flops, &end);
    ND_FAIL_IF(end == a->flops || *end != '\0' || strpbrk(a->flops, "xX") ||
                   !(*flops >= 1e6 && *flops <= 1e18),
               ND_ECONFIG,
               "--flops: '%.40s' is neither `measured` nor operations a second such as 2e14",
               a->flops);
    return ND_OK;
}

static nd_status print_fastest_groups(const nd_config *config, int ranks,
                                      const nd_plan_machine *machine,
                                      const nd_plan_cost *configured)
{
    nd_plan_groups groups;
    ND_TRY(nd_plan_groups_predict(config, ranks, machine, &groups));
    const int best = nd_plan_groups_fastest(&groups);
    printf(
        "groups of ranks  dist.group_ranks=%d takes least: %.4g ms a step (as configured: %.4g)\n",
        groups.ranks[best], groups.cost[best].cost.step * 1e3, configured->cost.step * 1e3);
    return ND_OK;
}

static nd_status describe_machine(const nd_config *config, const machine_arguments *a, int ranks,
                                  nd_plan_machine *machine)
{
    *machine = (nd_plan_machine){.between = {a->latency * 1e-6, 8e-9 / a->bandwidth},
                                 .within = {a->local_latency * 1e-6, 8e-9 / a->local_bandwidth},
                                 .add_per_byte = 1e-9 / a->add_rate,
                                 .core_per_byte = 1e-9 * a->core_cost,
                                 .hosts = (int)a->hosts,
                                 .step = isnan(a->step_ms) ? 0.0 : a->step_ms * 1e-3,
                                 .optimizer = a->optimizer_ms * 1e-3};
    return parse_flops(config, a, ranks, &machine->flops);
}

/* What a run would choose on this machine, and how the tables below say so. */
typedef struct choices {
    char groups[1024], parts[128]; /* empty: not chosen */
} choices;

/* Sets the groups and parts of `config` where a run chooses them, if a rank may take `memory`. */
static nd_status choose_as_a_run(nd_config *config, int ranks, const nd_plan_machine *machine,
                                 size_t memory, choices *chosen)
{
    const char *fixed = nd_plan_groups_fixed(config, config->hardware.target == ND_TARGET_CUDA,
                                             ranks % machine->hosts == 0);
    nd_plan_groups groups;
    nd_plan_parts parts;
    if (machine->hosts == 1 || config->dist.group_ranks > 0 || nd_config_has_rounds(config))
        return ND_OK;
    if (fixed) {
        snprintf(chosen->groups, sizeof chosen->groups, "1 of %d ranks: %s", ranks, fixed);
        return ND_OK;
    }
    ND_TRY(nd_plan_groups_predict(config, ranks, machine, &groups));
    const int best = nd_plan_groups_choose(&groups, memory);
    nd_plan_groups_describe(&groups, best, chosen->groups, sizeof chosen->groups);
    config->dist.group_ranks = groups.ranks[best];
    if (config->dist.part_kib > 0)
        return ND_OK;
    ND_TRY(nd_plan_parts_choose(config, ranks, machine, &parts));
    snprintf(chosen->parts, sizeof chosen->parts,
             parts.step < parts.before
                 ? "%lld KiB of long messages: %.4g ms a step, %.4g in the usual ones"
                 : "%lld KiB of long messages",
             (long long)parts.kib, parts.step * 1e3, parts.before * 1e3);
    return ND_OK;
}

static nd_status predict_time(const nd_config *config, const machine_arguments *a, int ranks,
                              const nd_plan_machine *machine, const choices *chosen)
{
    nd_plan_cost cost;
    ND_TRY(nd_plan_cost_predict(config, ranks, machine, &cost));
    if (chosen->groups[0])
        printf("groups           %s\n", chosen->groups);
    if (chosen->parts[0])
        printf("parts            %s\n", chosen->parts);
    if (machine->flops > 0.0)
        printf("rate a rank      %.3g FLOP/s\n", machine->flops);
    nd_plan_cost_print(&cost, stdout);
    if (a->groups)
        ND_TRY(print_fastest_groups(config, ranks, machine, &cost));
    if (a->simulate) {
        ND_TRY(nd_plan_cost_simulate(config, ranks, machine, &cost));
        nd_plan_cost_print(&cost, stdout);
    }
    return ND_OK;
}

static nd_status plan_and_print(const nd_config_arguments *source, int ranks, bool workspace,
                                size_t device_memory, const machine_arguments *given)
{
    const size_t memory = device_memory > 0 ? device_memory / 10 * 9 : SIZE_MAX;
    nd_plan_machine machine = {0};
    choices chosen = {0};
    nd_config config;
    nd_plan plan;
    ND_TRY(nd_config_arguments_load(source, &config));
    if (config.old_names[0])
        fprintf(stderr, "config: old names, still accepted: %s\n", config.old_names);
    ND_TRY(nd_config_check_model(&config));
    if (!isnan(given->bandwidth)) {
        ND_TRY(describe_machine(&config, given, ranks, &machine));
        ND_TRY(choose_as_a_run(&config, ranks, &machine, memory, &chosen));
    }
    nd_status status = nd_plan_create(&config, ranks, &plan);
    if (workspace)
        ND_IF_OK(nd_plan_measure_workspace(&config, &plan));
    if (status == ND_OK)
        nd_plan_print(&plan, &config, device_memory, stdout);
    if (!isnan(given->bandwidth))
        ND_IF_OK(predict_time(&config, given, ranks, &machine, &chosen));
    nd_plan_destroy(&plan);
    return status;
}

nd_status nd_cli_plan(int argc, char **argv)
{
    nd_config_arguments source = {0};
    const char *memory = NULL;
    bool workspace = false;
    int64_t ranks = 1;
    machine_arguments machine = unknown_machine;
    const nd_arg args[] = {
        {"--config", ND_ARG_TEXT, &source.config, "FILE",
         "a path, or the name of an installed config"},
        {"--set", ND_ARG_APPEND, &source.set, "SECTION.KEY=VALUE",
         "sets one key; may be repeated, and the last of a key counts"},
        {"--ranks", ND_ARG_INT, &ranks, "N", "number of ranks (1)"},
        {"--workspace", ND_ARG_FLAG, &workspace, NULL,
         "also measure the backend's workspace, by steps of one layer on this machine"},
        {"--device-memory", ND_ARG_TEXT, &memory, "SIZE", "check whether the run fits, e.g. 24GiB"},
        {"--bandwidth", ND_ARG_DOUBLE, &machine.bandwidth, "GBIT",
         "predict the time of a step; bandwidth of a host's link each way, Gbit/s"},
        {"--latency", ND_ARG_DOUBLE, &machine.latency, "US",
         "latency of a message between hosts, microseconds (50)"},
        {"--simulate", ND_ARG_FLAG, &machine.simulate, NULL,
         "also run the step's messages over simulated links, through the code that training runs"},
        {"--groups", ND_ARG_FLAG, &machine.groups, NULL,
         "also find the dist.group_ranks with the shortest predicted step"},
        {"--hosts", ND_ARG_INT, &machine.hosts, "H",
         "hosts that the ranks are spread over (one per rank)"},
        {"--local-bandwidth", ND_ARG_DOUBLE, &machine.local_bandwidth, "GBIT",
         "between two ranks of a host, Gbit/s (64)"},
        {"--local-latency", ND_ARG_DOUBLE, &machine.local_latency, "US",
         "latency of a message within a host, microseconds (2)"},
        {"--add-rate", ND_ARG_DOUBLE, &machine.add_rate, "GBYTE",
         "rate at which a rank adds gradients, GB/s (5)"},
        {"--core-cost", ND_ARG_DOUBLE, &machine.core_cost, "NS",
         "backward-pass time lost per byte sent meanwhile, nanoseconds (0)"},
        {"--flops", ND_ARG_TEXT, &machine.flops, "F",
         "FLOP/s of a rank in training, e.g. 2e14, or `measured` on this machine"},
        {"--step-ms", ND_ARG_DOUBLE, &machine.step_ms, "MS",
         "instead of --flops: the measured time of a step of this batch on one rank"},
        {"--optimizer-ms", ND_ARG_DOUBLE, &machine.optimizer_ms, "MS",
         "the part of --step-ms that does not grow with the batch (by operations)"},
    };
    const nd_command command = {"nanochat_dist plan --config FILE --ranks N [options]",
                                "Memory by category, wire bytes, FLOPs and the time of a step, "
                                "before a run starts.",
                                args, sizeof args / sizeof args[0]};
    size_t bytes = 0;
    ND_ARGS_PARSE(command, argc, argv, NULL);
    if (ranks < 1 || ranks > 1000000)
        return ND_FAIL(ND_ECONFIG, "--ranks: %lld is not from 1 to 1000000", (long long)ranks);
    if (memory)
        ND_TRY(parse_bytes(memory, &bytes));
    if (isnan(machine.bandwidth))
        ND_TRY(check_no_machine(&machine));
    if (machine.hosts == unknown_machine.hosts)
        machine.hosts = ranks;
    if (!isnan(machine.bandwidth))
        ND_TRY(check_machine(&machine, ranks));
    return plan_and_print(&source, (int)ranks, workspace, bytes, &machine);
}
