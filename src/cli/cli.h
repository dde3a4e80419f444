/* One function per subcommand: parses its own arguments (argv[0] is the subcommand's name), does
 * the work, and returns a status; main prints the messages of errors. */
#pragma once

#include "core/base/error.h"
#include "dist/comm.h"

#include <stdbool.h>
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

/* Ends a command that ran over ranks: an error that only this rank knows is printed with the rank
 * and aborts the whole job with its exit code; a shared one is printed by rank 0. Destroys `comm`.
 * Returns `status`. */
nd_status nd_cli_shutdown(nd_comm *comm, nd_status status);

/* --help or -h; --version or -V. */
bool nd_cli_is_help(const char *word);
bool nd_cli_is_version(const char *word);

/* What `--version` prints: version, commit, how the program was built, and its libraries. */
void nd_cli_print_version(FILE *out);
/* Check that all output so far was written: a full or closed standard output is an error. The
 * program calls nd_cli_close_output at the end of every command; commands with long output call
 * nd_cli_flush_output meanwhile. Errors: ND_EIO. */
nd_status nd_cli_close_output(void);
nd_status nd_cli_flush_output(void);

/* Discards output that could not be written: for a training run, which also has its log. */
void nd_cli_discard_output(void);

/* Prints this thread's error to standard error, with `rank` unless that is negative. */
void nd_cli_print_error(int rank);
