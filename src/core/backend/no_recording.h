/* The slots of a backend that makes no recordings. */
#pragma once

#include "core/backend/backend.h"

/* Fills the slots of recordings (core/backend/backend.h): none can be made, and nothing moves. */
void nd_no_recording_fill(nd_backend_ops *ops);
