/* The slots of a backend that makes no recordings. */
#pragma once

#include "core/backend/backend.h"

/* Fills the recording slots of `ops`: `record` reports that no recording can be made. */
void nd_no_recording_fill(nd_backend_ops *ops);
