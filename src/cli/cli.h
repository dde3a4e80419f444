/* One function a subcommand: parses its own arguments (argv[0] is the subcommand's name), does the
 * work, and returns a status; messages of errors are printed by main. */
#ifndef ND_CLI_CLI_H
#define ND_CLI_CLI_H

#include "core/error.h"

nd_status nd_cli_train(int argc, char **argv);
nd_status nd_cli_tokenizer(int argc, char **argv);
nd_status nd_cli_pack(int argc, char **argv);
nd_status nd_cli_eval(int argc, char **argv);
nd_status nd_cli_sample(int argc, char **argv);
nd_status nd_cli_grad(int argc, char **argv);
nd_status nd_cli_info(int argc, char **argv);

#endif
