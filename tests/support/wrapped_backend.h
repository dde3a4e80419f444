/* Backends that stand in front of another and change where memory lies.
 *
 * remote: its memory is at addresses that nothing can touch, as a device's is. Host code that reads
 * or writes such memory dies, and an op that is given host memory fails and names itself. So a run
 * on it proves that nothing but ops, upload and download reaches the backend's memory.
 *
 * mirror: takes host memory and computes elsewhere: every op uploads what it is given, computes on
 * the device, and downloads what it wrote. So tests written for host memory run on a device as they
 * are. Every argument gets memory of its own size (arguments that overlap share it, as they did),
 * with a margin behind it that is checked afterwards. */
#pragma once

#include "core/backend/backend.h"

/* Both own `inner` from here on, also when they fail. */
nd_status nd_remote_backend_create(nd_backend *inner, nd_backend **backend);
nd_status nd_mirror_backend_create(nd_backend *inner, nd_backend **backend);

/* How often the user of a remote backend has waited for it so far, by download or synchronize. */
int64_t nd_remote_backend_waits(const nd_backend *backend);
