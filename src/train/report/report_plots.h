/* Pictures of a report: data files and gnuplot scripts, and SVG made of them where gnuplot is. */
#ifndef ND_TRAIN_REPORT_REPORT_PLOTS_H
#define ND_TRAIN_REPORT_REPORT_PLOTS_H

#include "train/report/report.h"

enum { ND_REPORT_PLOTS = 4 };

typedef struct nd_report_plot {
    const char *name;  /* NAME.gp, NAME.svg */
    const char *title; /* in words, for the text */
    bool drawn;
} nd_report_plot;

/* Writes data and scripts into `directory` and runs gnuplot there. A picture that cannot be drawn is
 * no error: `drawn` is false and `problem` says why. Errors: ND_EIO. */
nd_status nd_report_draw(const nd_report *report, const char *directory,
                         nd_report_plot plots[ND_REPORT_PLOTS], char *problem, size_t size);

#endif
