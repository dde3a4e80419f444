/* Fault injection for tests, at named points. Only the program nanochat_dist_faulty, which the
 * tests build, contains them (ND_FAULT_POINTS); elsewhere they compile to nothing.
 *
 * The environment variable ND_FAULT lists the faults, separated by commas:
 *   kill@POINT:step=S:rank=R      SIGKILL when rank R reaches POINT in step S; also stop@
 *                                 (SIGSTOP), slow@ and slower@ (50 and 200 ms of sleep)
 *   clock@processor               phases are timed by processor time, sleep and waits for ranks, so
 *                                 that they do not depend on the load of the machine
 *   flip@POINT:step=S:rank=R      flips one bit of the value at POINT
 *   fail@POINT:step=S:rank=R      an error of this rank alone at POINT
 *   nan@POINT:step=S:rank=R       sets one value at POINT to NaN
 *   nan@VALUE:samples=A-B         VALUE of micro-batches that contain a sample of A..B is NaN
 *   spike@VALUE:samples=A-B       ... is larger by 100 per token */
#pragma once

#include "core/base/clock.h"
#include "dist/comm.h"

#if ND_FAULT_POINTS
/* nd_seconds, or with clock@processor the processor time of this thread. Not for timing waits. */
double nd_fault_seconds(const nd_comm *comm);
/* The step is comm->step. */
void nd_fault_point(const nd_comm *comm, const char *point);
/* For points of a save, which lasts beyond the step it belongs to. */
void nd_fault_point_of(int rank, int64_t step, const char *point);
bool nd_fault_requested(const nd_comm *comm, const char *kind, const char *point);
double nd_fault_value(const char *name, int64_t first_sample, int64_t samples, double value,
                      double spike);
#else
static inline double nd_fault_seconds(const nd_comm *comm)
{
    (void)comm;
    return nd_seconds();
}
static inline void nd_fault_point(const nd_comm *comm, const char *point)
{
    (void)comm, (void)point;
}
static inline void nd_fault_point_of(int rank, int64_t step, const char *point)
{
    (void)rank, (void)step, (void)point;
}
static inline bool nd_fault_requested(const nd_comm *comm, const char *kind, const char *point)
{
    (void)comm, (void)kind, (void)point;
    return false;
}
static inline double nd_fault_value(const char *name, int64_t first_sample, int64_t samples,
                                    double value, double spike)
{
    (void)name, (void)first_sample, (void)samples, (void)spike;
    return value;
}
#endif
