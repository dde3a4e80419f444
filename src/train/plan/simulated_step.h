/* The step that train/plan/cost_model.h predicts, done by the real collectives on a simulated job
 * (dist/simulation.h): nothing is computed, time passes instead. Tensors are scaled down, and the links with them,
 * so that a part of a message is as small as it can be; all ranks share their memory. */
#pragma once

#include "train/plan/cost_model.h"

/* Fills what nd_cost_predict does but for `busy` and `idlest`; messages beside the passes take nothing from them.
 * Errors: those of nd_simulation_run. */
nd_status nd_simulated_step(const nd_cost_machine *machine, const nd_cost_work *work,
                            nd_cost *cost);
