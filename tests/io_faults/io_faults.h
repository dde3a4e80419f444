/* A disk that fails, for programs that are started with this library in LD_PRELOAD.
 *
 * System calls that change or read files below one directory are numbered from 1. From call `at`
 * on, or at call `at` alone, they fail:
 *   enospc  every call from `at` on that needs room fails with ENOSPC: writes, new files, links
 *   eio     call `at` fails with EIO
 *   short   call `at`, when it is a write, writes half of what it should
 *   nomove  renameat2 number `at` into the directory fails with EIO
 *   kill    call `at` is not made: the process kills itself with SIGKILL
 *   nolock  no call fails, but there are no file locks anywhere: flock fails with ENOLCK
 * or they fail whatever `at` is, as on file systems that lack something:
 *   nodirsync   fsync of a directory: EINVAL      nosymlink  symlink: EPERM
 *   noexchange  renameat2 with a flag: EINVAL     nolisting  opendir: ESTALE
 *   apart       renameat2 into the directory from outside: EXDEV
 * A program sets this up by itself with nd_io_faults_arm, or its starter by environment:
 *   ND_IO_FAULT=KIND:AT:DIRECTORY, for rank ND_IO_RANK of Open MPI when that is set. */
#pragma once

/* Starts to count again. `kind` NULL: nothing fails. */
void nd_io_faults_arm(const char *kind, long at, const char *directory);

/* Calls counted since then, and how many of them failed or were cut. */
long nd_io_faults_seen(void);
long nd_io_faults_hit(void);

/* What call was the first to fail: "pwrite rank_0000.h5"; "" when none was. */
const char *nd_io_faults_first(void);
