/* The slots of a backend that makes no recordings. */
#ifndef ND_CORE_BACKEND_NO_RECORDING_H
#define ND_CORE_BACKEND_NO_RECORDING_H

#include "core/backend/backend.h"

/* Fills the slots of recordings (core/backend/backend.h): none can be made, and nothing moves. */
void nd_no_recording_fill(nd_backend_ops *ops);

#endif
