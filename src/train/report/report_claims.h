/* The suite's claims beside what its five configurations measured here.
 *
 * A claim is decided by the median over the runs of its configuration, each against the baseline of
 * the same seed (or the first baseline where no seed is shared). It is "not measurable" only with the
 * reason: what a run lacks, or what no run of this kind can tell. */
#ifndef ND_TRAIN_REPORT_REPORT_CLAIMS_H
#define ND_TRAIN_REPORT_REPORT_CLAIMS_H

#include "train/report/report.h"

enum { ND_REPORT_CLAIMS_MAX = 48 };

typedef enum nd_verdict { ND_VERDICT_PASS, ND_VERDICT_FAIL, ND_VERDICT_NOT_MEASURABLE } nd_verdict;

typedef struct nd_report_claim {
    const char *topic;
    const char *claimed;
    nd_report_role role;
    nd_verdict verdict;
    double value;       /* the median; NaN when nothing was measured */
    char measured[128]; /* the same in words */
    char details[640];  /* the figures it comes from, or why it cannot be decided */
} nd_report_claim;

/* Whether the runs hold the baseline and at least one other configuration of the suite. */
bool nd_report_has_claims(const nd_report *report);

/* Fills `claims` and returns how many there are. */
int nd_report_claims(const nd_report *report, nd_report_claim claims[ND_REPORT_CLAIMS_MAX]);

/* "pass" ... */
const char *nd_verdict_name(nd_verdict verdict);

/* The baseline that `run` is compared with; NULL when there is none. */
const nd_report_run *nd_report_peer(const nd_report *report, const nd_report_run *run,
                                    nd_report_role role);

/* The rules that a reader must know to judge the verdicts, as Markdown. */
void nd_report_write_rules(FILE *out);

#endif
