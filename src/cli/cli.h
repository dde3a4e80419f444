/* One function a subcommand: parses its own arguments (argv[0] is the subcommand's name), does the
 * work, and returns a status; messages of errors are printed by main. */
#pragma once

#include "core/base/error.h"
#include "dist/comm.h"

#include <stdio.h>

nd_status nd_cli_train(int argc, char **argv);
nd_status nd_cli_tokenizer(int argc, char **argv);
nd_status nd_cli_pack(int argc, char **argv);
nd_status nd_cli_eval(int argc, char **argv);
nd_status nd_cli_sample(int argc, char **argv);
nd_status nd_cli_grad(int argc, char **argv);
nd_status nd_cli_info(int argc, char **argv);
nd_status nd_cli_export(int argc, char **argv);
nd_status nd_cli_import(int argc, char **argv);
nd_status nd_cli_plan(int argc, char **argv);
nd_status nd_cli_report(int argc, char **argv);

/* The end of a command that ran over ranks: an error that only this rank knows is printed with the
 * rank and takes the whole job down with its exit code; one that all share is left to rank 0.
 * Releases `comm`. Returns `status`. */
nd_status nd_cli_shutdown(nd_comm *comm, nd_status status);

/* What `--version` prints: version, commit, how the program was built, and its libraries. */
void nd_cli_print_version(FILE *out);
/* Checks that all output was written: a full or closed standard output is an error of every
 * command, told here once for all. ND_EIO after what `nd_cli_flush_output` reports too, which long
 * outputs call on their way. */
nd_status nd_cli_close_output(void);
nd_status nd_cli_flush_output(void);

/* For a training run, whose terminal is a convenience beside its log: forgets what did
 * not arrive. */
void nd_cli_discard_output(void);

/* Prints this thread's error to standard error. `rank` < 0 outside a job of ranks. */
void nd_cli_print_error(int rank);
