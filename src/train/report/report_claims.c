#include "train/report/report_claims.h"

#include "train/report/report_measures.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#define FIELD ND_REPORT_FIELD

static const double mib = 1024.0 * 1024.0;

/* A figure of `run`; `peer` is the run it is compared with. */
typedef double measure(const nd_report *report, const nd_report_run *run,
                       const nd_report_run *peer);
typedef void explanation(const nd_report *report, const nd_report_run *run,
                         const nd_report_run *peer, char *text, size_t size);

static double parameters_of_rank(const nd_report_run *run)
{
    return run->parameters > 0 ? (double)run->parameters / (run->ranks > 0 ? run->ranks : 1) : NAN;
}

static double saved(double now, double before)
{
    return 1.0 - now / before;
}

static double tokens_saved(const nd_report *report, const nd_report_run *run,
                           const nd_report_run *peer)
{
    (void)report;
    return nd_report_tokens_saved(run, peer, nd_report_last(peer, FIELD(val_loss)));
}

static void explain_tokens(const nd_report *report, const nd_report_run *run,
                           const nd_report_run *peer, char *text, size_t size)
{
    double mine = NAN, theirs = NAN;
    const double target = nd_report_last(peer, FIELD(val_loss));
    (void)report;
    nd_report_tokens_to_loss(run, target, &mine);
    nd_report_tokens_to_loss(peer, target, &theirs);
    const int used = snprintf(text, size,
                              "to the baseline's last held-out loss %.4f: baseline "
                              "%.3fM tokens, ",
                              target, theirs * 1e-6);
    if (isfinite(mine))
        snprintf(text + used, size - (size_t)used, "this %.3fM", mine * 1e-6);
    else
        snprintf(text + used, size - (size_t)used, "this ends at %.4f after %.3fM",
                 nd_report_last(run, FIELD(val_loss)), nd_report_last(run, FIELD(tokens)) * 1e-6);
}

static double optimizer_saved(const nd_report *report, const nd_report_run *run,
                              const nd_report_run *peer)
{
    return saved(nd_report_memory(report, run, "optimizer"),
                 nd_report_memory(report, peer, "optimizer"));
}

static void explain_state(const nd_report_run *run, char *text, size_t size)
{
    if (isfinite(run->state_bytes) && run->matrix_parameters > 0)
        snprintf(text, size,
                 "state alone, in the checkpoint, %.2f MiB of all ranks: %.3f B a matrix weight",
                 run->state_bytes / mib, run->matrix_state_bytes / (double)run->matrix_parameters);
    else
        snprintf(text, size, "no checkpoint tells the state alone");
}

static void explain_optimizer(const nd_report *report, const nd_report_run *run,
                              const nd_report_run *peer, char *text, size_t size)
{
    const double now = nd_report_memory(report, run, "optimizer");
    const double before = nd_report_memory(report, peer, "optimizer");
    char mine[160], theirs[160];
    explain_state(run, mine, sizeof mine);
    explain_state(peer, theirs, sizeof theirs);
    snprintf(
        text, size,
        "state and the scratch of an update, rank 0: %.2f → %.2f MiB (%.2f → %.2f B a parameter "
        "of its share). "
        "Baseline: %s; this: %s",
        before / mib, now / mib, before / parameters_of_rank(peer), now / parameters_of_rank(run),
        theirs, mine);
}

static double optimizer_saved_to_adamw(const nd_report *report, const nd_report_run *run,
                                       const nd_report_run *peer)
{
    (void)peer;
    return saved(nd_report_memory(report, run, "optimizer"), 8.0 * parameters_of_rank(run));
}

static void explain_adamw(const nd_report *report, const nd_report_run *run,
                          const nd_report_run *peer, char *text, size_t size)
{
    (void)peer;
    char state[160];
    explain_state(run, state, sizeof state);
    snprintf(text, size,
             "AdamW keeps two fp32 moments: 8 B × %.2fM parameters of rank 0 = %.2f MiB; measured "
             "%.2f MiB with the scratch of an update; %s",
             parameters_of_rank(run) * 1e-6, 8.0 * parameters_of_rank(run) / mib,
             nd_report_memory(report, run, "optimizer") / mib, state);
}

static double weight_bytes(const nd_report *report, const nd_report_run *run,
                           const nd_report_run *peer)
{
    (void)peer;
    const double codes = nd_report_memory(report, run, "codes");
    return (codes + nd_report_memory(report, run, "masters")) / (double)run->parameters;
}

static void explain_weights(const nd_report *report, const nd_report_run *run,
                            const nd_report_run *peer, char *text, size_t size)
{
    (void)peer;
    snprintf(text, size, "codes %.2f MiB and masters %.2f MiB of rank 0 for %.2fM parameters",
             nd_report_memory(report, run, "codes") / mib,
             nd_report_memory(report, run, "masters") / mib, (double)run->parameters * 1e-6);
}

static double activations_saved(const nd_report *report, const nd_report_run *run,
                                const nd_report_run *peer)
{
    return saved(nd_report_memory(report, run, "activations"),
                 nd_report_memory(report, peer, "activations"));
}

static void explain_activations(const nd_report *report, const nd_report_run *run,
                                const nd_report_run *peer, char *text, size_t size)
{
    const int used =
        snprintf(text, size, "%.2f → %.2f MiB", nd_report_memory(report, peer, "activations") / mib,
                 nd_report_memory(report, run, "activations") / mib);
    const double before = nd_report_memory(report, peer, "workspace");
    const double now = nd_report_memory(report, run, "workspace");
    if (isfinite(before) && isfinite(now))
        snprintf(text + used, size - (size_t)used,
                 "; beside them the backend's workspace, %.2f → %.2f MiB", before / mib, now / mib);
}

static double total_saved(const nd_report *report, const nd_report_run *run,
                          const nd_report_run *peer)
{
    return saved(nd_report_memory_total(report, run), nd_report_memory_total(report, peer));
}

static void explain_total(const nd_report *report, const nd_report_run *run,
                          const nd_report_run *peer, char *text, size_t size)
{
    snprintf(text, size,
             "all categories but loader and program: %.2f → %.2f MiB; peak RSS %.1f → %.1f MiB",
             nd_report_memory_total(report, peer) / mib, nd_report_memory_total(report, run) / mib,
             nd_report_largest(peer, FIELD(rss)) / mib, nd_report_largest(run, FIELD(rss)) / mib);
}

/* Peak of a run of a model of the claimed size. */
static double peak_gb_from(const nd_report_run *run, double parameters)
{
    return (double)run->parameters >= parameters ? nd_report_largest(run, FIELD(rss)) * 1e-9 : NAN;
}

static double peak_of_3b(const nd_report *report, const nd_report_run *run,
                         const nd_report_run *peer)
{
    (void)report, (void)peer;
    return peak_gb_from(run, 2.5e9);
}

static double peak_of_7b(const nd_report *report, const nd_report_run *run,
                         const nd_report_run *peer)
{
    (void)report, (void)peer;
    return peak_gb_from(run, 6.3e9);
}

static void explain_peak(const nd_report *report, const nd_report_run *run,
                         const nd_report_run *peer, char *text, size_t size)
{
    (void)report, (void)peer;
    snprintf(text, size, "peak RSS of rank 0, %.2fB parameters", (double)run->parameters * 1e-9);
}

static double step_time_saved(const nd_report *report, const nd_report_run *run,
                              const nd_report_run *peer)
{
    (void)report;
    return saved(nd_report_median(run, FIELD(step_ms)), nd_report_median(peer, FIELD(step_ms)));
}

static void explain_step_time(const nd_report *report, const nd_report_run *run,
                              const nd_report_run *peer, char *text, size_t size)
{
    (void)report;
    snprintf(text, size,
             "measured is the whole step, against `%s`: %.1f → %.1f ms, %.1f %% of the tokens kept",
             peer->name, nd_report_median(peer, FIELD(step_ms)),
             nd_report_median(run, FIELD(step_ms)),
             100.0 * nd_report_mean(run, FIELD(kept_fraction)));
}

static double throughput(const nd_report *report, const nd_report_run *run,
                         const nd_report_run *peer)
{
    (void)report;
    return nd_report_tokens_per_second(run) / nd_report_tokens_per_second(peer);
}

static void explain_throughput(const nd_report *report, const nd_report_run *run,
                               const nd_report_run *peer, char *text, size_t size)
{
    (void)report;
    snprintf(text, size, "median %.0f → %.0f tokens/s", nd_report_tokens_per_second(peer),
             nd_report_tokens_per_second(run));
}

static double computing(const nd_report *report, const nd_report_run *run,
                        const nd_report_run *peer)
{
    (void)report, (void)peer;
    return 1.0 - nd_report_share(run, FIELD(data_wait_ms), FIELD(step_ms));
}

static void explain_computing(const nd_report *report, const nd_report_run *run,
                              const nd_report_run *peer, char *text, size_t size)
{
    (void)report, (void)peer;
    snprintf(text, size, "1 − data wait / step time, all steps; collectives took %.2f %% of it",
             100.0 * nd_report_share(run, FIELD(comm_wait_ms), FIELD(step_ms)));
}

static const double norm_low = 0.5, norm_high = 5.0;

static double gradient_norms(const nd_report *report, const nd_report_run *run,
                             const nd_report_run *peer)
{
    (void)report, (void)peer;
    return nd_report_gradient_norms_within(run, norm_low, norm_high);
}

static void explain_gradient_norms(const nd_report *report, const nd_report_run *run,
                                   const nd_report_run *peer, char *text, size_t size)
{
    (void)report, (void)peer;
    snprintf(text, size,
             "part of the steps after warm-up within it; over all steps median %.3g, from %.3g to "
             "%.3g, before clipping",
             nd_report_median(run, FIELD(grad_norm)), nd_report_smallest(run, FIELD(grad_norm)),
             nd_report_largest(run, FIELD(grad_norm)));
}

static double loss_excess(const nd_report *report, const nd_report_run *run,
                          const nd_report_run *peer)
{
    (void)report;
    return nd_report_last(run, FIELD(val_loss)) / nd_report_last(peer, FIELD(val_loss)) - 1.0;
}

static void explain_loss(const nd_report *report, const nd_report_run *run,
                         const nd_report_run *peer, char *text, size_t size)
{
    (void)report;
    snprintf(text, size, "last held-out loss %.4f → %.4f after %.3fM and %.3fM tokens",
             nd_report_last(peer, FIELD(val_loss)), nd_report_last(run, FIELD(val_loss)),
             nd_report_last(peer, FIELD(tokens)) * 1e-6, nd_report_last(run, FIELD(tokens)) * 1e-6);
}

typedef enum value_form { SAVED, EXCESS, SHARE, RATIO, BYTES_A_PARAMETER, GIGABYTES } value_form;

#define OF(role) (1u << ND_REPORT_##role)
#define BUT_BASELINE (OF(MTP_ONLY) | OF(MUON_8BIT) | OF(GALORE2) | OF(FULL))
#define WITH_LOADER (OF(MUON_8BIT) | OF(GALORE2) | OF(FULL))

typedef struct claim_rule {
    const char *topic, *claimed;
    unsigned roles;      /* which configurations it is said of */
    nd_report_role peer; /* what they are compared with; ND_REPORT_OTHER: nothing */
    bool to_the_end;     /* both must have finished */
    value_form form;
    measure *measure;
    double low, high; /* holds within */
    explanation *explain;
    const char *lacking;   /* why, when the measure is NaN */
    const char *undecided; /* why runs cannot decide it whatever they measure; else NULL */
} claim_rule;

#define HELD_OUT "no held-out loss in the metrics of one of the two runs"
#define MEMORY "no memory of this category in the metrics of one of the runs"

static const claim_rule rules[] = {
    {"data efficiency", "15–20 % fewer tokens to equal held-out loss", OF(MTP_ONLY),
     ND_REPORT_BASELINE, true, SAVED, tokens_saved, 0.145, INFINITY, explain_tokens,
     "no curve of held-out loss in the metrics of one of the runs", NULL},
    {"optimizer memory, to the baseline", "−86 % (3B: 12 → 1.7 GB)", OF(MUON_8BIT),
     ND_REPORT_BASELINE, false, SAVED, optimizer_saved, 0.855, INFINITY, explain_optimizer, MEMORY,
     NULL},
    {"optimizer memory, to AdamW in fp32", "−86 %", OF(MUON_8BIT), ND_REPORT_OTHER, false, SAVED,
     optimizer_saved_to_adamw, 0.855, INFINITY, explain_adamw, MEMORY, NULL},
    {"optimizer memory, to the baseline", "−50 to −65 % (3B: 12 → 4–6 GB)", OF(GALORE2),
     ND_REPORT_BASELINE, false, SAVED, optimizer_saved, 0.495, INFINITY, explain_optimizer, MEMORY,
     NULL},
    {"optimizer memory, to AdamW in fp32", "−50 to −65 %", OF(GALORE2), ND_REPORT_OTHER, false,
     SAVED, optimizer_saved_to_adamw, 0.495, INFINITY, explain_adamw, MEMORY, NULL},
    {"optimizer memory, to the baseline", "≈ −95 % (3B: 12 → 0.6 GB)", OF(FULL), ND_REPORT_BASELINE,
     false, SAVED, optimizer_saved, 0.945, INFINITY, explain_optimizer, MEMORY, NULL},
    {"optimizer memory, to AdamW in fp32", "≈ −95 %", OF(FULL), ND_REPORT_OTHER, false, SAVED,
     optimizer_saved_to_adamw, 0.945, INFINITY, explain_adamw, MEMORY, NULL},
    {"weight memory", "2 B/parameter (3B: 6 GB)", OF(FULL), ND_REPORT_OTHER, false,
     BYTES_A_PARAMETER, weight_bytes, 0.0, 2.05, explain_weights, MEMORY, NULL},
    {"activation memory", "−25 % with checkpointing (3B: 8 → 6 GB)", OF(FULL), ND_REPORT_BASELINE,
     false, SAVED, activations_saved, 0.245, INFINITY, explain_activations, MEMORY, NULL},
    {"total memory", "−40 % (3B: 26 → 15.7 GB)", OF(MUON_8BIT), ND_REPORT_BASELINE, false, SAVED,
     total_saved, 0.395, INFINITY, explain_total, MEMORY, NULL},
    {"total memory", "−23 to −31 % (3B: 26 → 18–20 GB)", OF(GALORE2), ND_REPORT_BASELINE, false,
     SAVED, total_saved, 0.225, INFINITY, explain_total, MEMORY, NULL},
    {"total memory", "−52 % (3B: 26 → 12.6 GB)", OF(FULL), ND_REPORT_BASELINE, false, SAVED,
     total_saved, 0.515, INFINITY, explain_total, MEMORY, NULL},
    {"3B in 12.6 GB", "12.6 GB", OF(FULL), ND_REPORT_OTHER, false, GIGABYTES, peak_of_3b, 0.0,
     12.65, explain_peak,
     "needs a run of 3 billion parameters; `nanochat_dist plan` counts its bytes", NULL},
    {"7B on 24 GB", "24 GB", OF(FULL), ND_REPORT_OTHER, false, GIGABYTES, peak_of_7b, 0.0, 24.05,
     explain_peak, "needs a run of 7 billion parameters; `nanochat_dist plan` counts its bytes",
     NULL},
    {"Collider", "backward −35 %", OF(MUON_8BIT), ND_REPORT_MTP_ONLY, false, SAVED, step_time_saved,
     0.345, INFINITY, explain_step_time, "no step times in the metrics of one of the runs",
     "the metrics time whole steps, which 8-bit state changes too; `bench_collider` times the "
     "backward pass alone"},
    {"throughput", "maintained", BUT_BASELINE, ND_REPORT_BASELINE, false, RATIO, throughput, 0.95,
     INFINITY, explain_throughput, "no step times in the metrics of one of the runs", NULL},
    {"GPU utilisation", "> 90 % with the async loader", WITH_LOADER, ND_REPORT_OTHER, false, SHARE,
     NULL, 0.9, 1.0, NULL, "the metrics hold no utilisation of a device", NULL},
    {"computing, not waiting for data", "> 90 % with the async loader", WITH_LOADER,
     ND_REPORT_OTHER, false, SHARE, computing, 0.9, 1.0, explain_computing,
     "no data_wait_ms or step_ms in the metrics", NULL},
    {"gradient norm", "0.5–5", OF(BASELINE) | BUT_BASELINE, ND_REPORT_OTHER, false, SHARE,
     gradient_norms, 0.95, 1.0, explain_gradient_norms, "no grad_norm after warm-up in the metrics",
     NULL},
    {"held-out loss", "maintained", BUT_BASELINE, ND_REPORT_BASELINE, true, EXCESS, loss_excess,
     -INFINITY, 0.01, explain_loss, HELD_OUT, NULL},
};
enum { RULES = sizeof rules / sizeof rules[0] };

void nd_report_write_rules(FILE *out)
{
    fputs(
        "A claim holds when the median over the runs of its configuration does, each against the "
        "baseline of the\nsame seed (the first baseline where none has it). Claims in whole "
        "percent "
        "hold from half a percent below.\n*Maintained* is at least 95 % of the baseline's "
        "tokens/s, "
        "and a held-out loss at most 1 % above the\nbaseline's. The gradient norm holds when 95 % "
        "of "
        "the steps after warm-up lie within. Tokens to equal loss\nare read off the curve of "
        "held-out loss over tokens, linear between evaluations, at the first crossing, the\n"
        "baseline's own included. With a schedule that decays at the end of the run, the loss "
        "falls "
        "most there, for\nevery run at the same tokens: two runs of equal length can hardly be far "
        "apart in tokens at the baseline's\nlast loss, and the table of other losses tells more. "
        "Memory is that of rank 0, the largest of every category\nover the run.\n",
        out);
}

const char *nd_verdict_name(nd_verdict verdict)
{
    static const char *const names[] = {"pass", "**fail**", "not measurable"};
    return names[verdict];
}

bool nd_report_has_claims(const nd_report *report)
{
    int found[ND_REPORT_ROLES] = {0};
    for (int i = 0; i < report->count; i++)
        found[report->runs[i].role]++;
    int others = 0;
    for (int role = ND_REPORT_MTP_ONLY; role < ND_REPORT_ROLES; role++)
        others += found[role] > 0;
    return found[ND_REPORT_BASELINE] > 0 && others > 0;
}

const nd_report_run *nd_report_peer(const nd_report *report, const nd_report_run *run,
                                    nd_report_role role)
{
    const nd_report_run *first = NULL;
    for (int i = 0; i < report->count; i++) {
        const nd_report_run *other = &report->runs[i];
        if (other->role != role)
            continue;
        if (run->config && other->config &&
            run->config->training.seed == other->config->training.seed)
            return other;
        if (!first)
            first = other;
    }
    return first;
}

static int format_value(char *text, size_t size, value_form form, double value)
{
    if (isinf(value))
        return snprintf(text, size, "never reached");
    const char *less = value > 0.0 ? "−" : "", *more = value > 0.0 ? "+" : "";
    switch (form) {
    case SAVED:
        return snprintf(text, size, "%s%.1f %%", value < 0.0 ? "+" : less, 100.0 * fabs(value));
    case EXCESS:
        return snprintf(text, size, "%s%.2f %%", value < 0.0 ? "−" : more, 100.0 * fabs(value));
    case SHARE:
        return snprintf(text, size, "%.2f %%", 100.0 * value);
    case RATIO:
        return snprintf(text, size, "× %.3f", value);
    case BYTES_A_PARAMETER:
        return snprintf(text, size, "%.2f B/parameter", value);
    case GIGABYTES:
        break;
    }
    return snprintf(text, size, "%.2f GB", value);
}

static void undecided(nd_report_claim *claim, const char *format, const char *what)
{
    claim->verdict = ND_VERDICT_NOT_MEASURABLE;
    snprintf(claim->details, sizeof claim->details, format, what);
}

/* To one percent. */
static bool equally_long(const nd_report_run *run, const nd_report_run *peer)
{
    const double mine = nd_report_last(run, FIELD(tokens));
    const double theirs = nd_report_last(peer, FIELD(tokens));
    return !(fabs(mine - theirs) > 0.01 * theirs);
}

/* Why this pair of runs cannot be used; NULL when it can. */
static const char *unusable(const claim_rule *rule, const nd_report_run *run,
                            const nd_report_run *peer)
{
    if (run->count == 0)
        return "its run left no metrics";
    if (rule->peer != ND_REPORT_OTHER && !peer)
        return "there is no run to compare with";
    if (peer && peer->count == 0)
        return "the run to compare with left no metrics";
    if (rule->to_the_end && !run->finished)
        return "its run did not finish";
    if (rule->to_the_end && peer && !peer->finished)
        return "the run to compare with did not finish";
    if (rule->measure == loss_excess && peer && !equally_long(run, peer))
        return "it and the run to compare with trained on different numbers of tokens";
    return NULL;
}

static void judge(const nd_report *report, const claim_rule *rule, nd_report_role role,
                  nd_report_claim *claim)
{
    double values[report->count];
    size_t count = 0, left_out = 0, used;
    const nd_report_run *first = NULL, *first_peer = NULL;
    const char *reason = NULL;
    memset(claim, 0, sizeof *claim);
    *claim = (nd_report_claim){rule->topic, rule->claimed, role, ND_VERDICT_PASS, NAN, "–", ""};
    for (int i = 0; i < report->count; i++) {
        const nd_report_run *run = &report->runs[i];
        if (run->role != role)
            continue;
        const nd_report_run *peer =
            rule->peer == ND_REPORT_OTHER ? NULL : nd_report_peer(report, run, rule->peer);
        const char *why = unusable(rule, run, peer);
        const double value = why || !rule->measure ? NAN : rule->measure(report, run, peer);
        if (isnan(value)) {
            reason = why ? why : rule->lacking;
            left_out++;
            continue;
        }
        if (count == 0) {
            first = run;
            first_peer = peer;
        }
        values[count++] = value;
    }
    if (count == 0 && !reason) {
        undecided(claim, "no run of `%s` among these", nd_report_role_name(role));
        return;
    }
    if (count == 0) {
        undecided(claim, "%s", reason);
        return;
    }
    claim->value = nd_report_median_of(values, count);
    used = (size_t)format_value(claim->measured, sizeof claim->measured, rule->form, claim->value);
    if (count > 1) {
        char low[32], high[32];
        format_value(low, sizeof low, rule->form, values[0]);
        format_value(high, sizeof high, rule->form, values[count - 1]);
        snprintf(claim->measured + used, sizeof claim->measured - used, ", median of %zu (%s … %s)",
                 count, low, high);
    }
    claim->verdict =
        claim->value >= rule->low && claim->value <= rule->high ? ND_VERDICT_PASS : ND_VERDICT_FAIL;
    rule->explain(report, first, first_peer, claim->details, sizeof claim->details);
    used = strlen(claim->details);
    if (count > 1)
        used += (size_t)snprintf(claim->details + used, sizeof claim->details - used, " (`%s`)",
                                 first->name);
    if (left_out > 0)
        used += (size_t)snprintf(claim->details + used, sizeof claim->details - used,
                                 "; %zu left out: %s", left_out, reason);
    if (rule->undecided) {
        claim->verdict = ND_VERDICT_NOT_MEASURABLE;
        snprintf(claim->details + used, sizeof claim->details - used, "; %s", rule->undecided);
    }
}

int nd_report_claims(const nd_report *report, nd_report_claim claims[ND_REPORT_CLAIMS_MAX])
{
    int count = 0;
    for (int r = 0; r < RULES; r++)
        for (int role = ND_REPORT_BASELINE; role < ND_REPORT_ROLES; role++)
            if (rules[r].roles >> role & 1u && count < ND_REPORT_CLAIMS_MAX)
                judge(report, &rules[r], (nd_report_role)role, &claims[count++]);
    return count;
}
