/* Runs the step that train/plan/cost_model.h predicts with the real collectives in a simulated job
 * (dist/simulation/simulation.h), in which computation only advances time. Tensors and links are
 * scaled down so that the parts of messages are as small as possible; all ranks share the tensors'
 * memory. */
#pragma once

#include "train/plan/cost_model.h"

/* Fills what nd_cost_predict does, except `busy` and `least_updates`; messages do not slow down
 * overlapping passes. Errors: those of nd_simulation_run. */
nd_status nd_simulated_step(const nd_cost_machine *machine, const nd_cost_work *work,
                            nd_cost *cost);
