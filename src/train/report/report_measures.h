/* Figures taken from the metrics of runs. All are NaN where the metrics do not hold them. */
#ifndef ND_TRAIN_REPORT_REPORT_MEASURES_H
#define ND_TRAIN_REPORT_REPORT_MEASURES_H

#include "train/report/report.h"

/* Median of finite values; `values` is sorted. */
double nd_report_median_of(double *values, size_t count);

/* Offset of a member of nd_report_step, for the functions below. */
#define ND_REPORT_FIELD(member) offsetof(nd_report_step, member)

/* Over the run's steps, of the finite values of one field. */
double nd_report_median(const nd_report_run *run, size_t field);
double nd_report_mean(const nd_report_run *run, size_t field);
double nd_report_largest(const nd_report_run *run, size_t field);
double nd_report_smallest(const nd_report_run *run, size_t field);
double nd_report_last(const nd_report_run *run, size_t field); /* the last finite one */

/* Median over the steps of their tokens by their time; tokens_per_sec in the metrics is smoothed, and its
 * median is that of the past. */
double nd_report_tokens_per_second(const nd_report_run *run);

/* Sum of one field over the sum of another, over steps that have both: a share of time. */
double nd_report_share(const nd_report_run *run, size_t part, size_t whole);

/* Bytes of a memory category, and of all of them but those named otherwise than what a run computes
 * with (program, loader). */
double nd_report_memory(const nd_report *report, const nd_report_run *run, const char *category);
double nd_report_memory_total(const nd_report *report, const nd_report_run *run);

typedef enum nd_report_crossing {
    ND_CROSSING_FOUND,
    ND_CROSSING_AT_FIRST, /* the first evaluation is there already: *tokens is an upper bound */
    ND_CROSSING_NEVER,    /* *tokens is infinite */
    ND_CROSSING_NO_CURVE  /* no evaluation at all; *tokens is NaN */
} nd_report_crossing;

/* Tokens after which the held-out loss first is `target` or less, linear between evaluations. */
nd_report_crossing nd_report_tokens_to_loss(const nd_report_run *run, double target,
                                            double *tokens);

/* Held-out loss after so many tokens, linear between evaluations; NaN before the first and after the
 * last. */
double nd_report_loss_at(const nd_report_run *run, double tokens);

/* 1 - tokens(run) / tokens(baseline) to the held-out loss `target`; minus infinity when `run` never
 * reaches it, NaN when the baseline does not or has reached it at its first evaluation already. */
double nd_report_tokens_saved(const nd_report_run *run, const nd_report_run *baseline,
                              double target);

/* Part of the steps after warm-up with a gradient norm from `low` to `high`. */
double nd_report_gradient_norms_within(const nd_report_run *run, double low, double high);

#endif
