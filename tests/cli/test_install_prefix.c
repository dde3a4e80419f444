/* launch/install_prefix.sh with stand-ins for the package manager, the build and mpirun. */
#include "support/run_files.h"
#include "support/support.h"

TestSuite(install_prefix, .init = nd_test_run_setup, .fini = nd_test_run_teardown);

/* `install`: into $D/prefix; the packages in the file `present` are there without being unpacked.
 * Unpacked ones are files in $root; `calls` has what was called. */
#define SETUP                                                                                      \
    "mkdir bin; cd bin; for t in gcc g++ cc c++ mpirun dpkg cmake apt-get; do "                    \
    "  echo '#!/bin/bash' > $t; chmod +x $t; done; echo 'echo some-machine' | tee -a gcc >> cc;"   \
    "cat >> apt-get <<'END'\n"                                                                     \
    "for o; do case $o in Dir::State::lists=*) l=${o#*=};; esac; done\n"                           \
    "while [ $# -gt 0 ]; do case $1 in -o) shift;; -*) ;; *) break;; esac; shift; done\n"          \
    "echo apt-get $1 >> $D/calls; [ ! -e $D/offline ] || [ $1 = install ] || exit 100\n"           \
    "case $1 in update) touch $l/x_Packages;; download) shift; touch ${@/%/_1.deb};;\n"            \
    "install) shift; printf 'Inst %s (1 x)\\n' $* | grep -vwf $D/present;; esac\nEND\n"            \
    "echo 'touch $3/$(basename $2 _1.deb)' >> dpkg;"                                               \
    "echo 'echo cmake CC=$CC $* >> $D/calls; [ ! -e $D/broken ]' >> cmake; cd ..;"                 \
    "touch present; export D PATH=$D/bin:/usr/bin:/bin CC= CXX=; unset HDF5_ROOT LOADEDMODULES;"   \
    "root=prefix/packages/root;"                                                                   \
    "install() { : > calls; " ND_SOURCE_DIR "/launch/install_prefix.sh prefix > log 2>&1; };"

static void run(const char *script)
{
    nd_test_run_scripts(SETUP, script);
}

Test(install_prefix, a_second_run_unpacks_what_is_missing_then_and_nothing_else)
{
    run("echo libzstd-dev > present; install || exit 1; test -e $root/ninja-build || exit 2;"
        "test ! -e $root/libzstd-dev || exit 3; echo ninja-build > present; install || exit 4;"
        "test -e $root/libzstd-dev || exit 5; test ! -e $root/ninja-build");
}

Test(install_prefix, a_second_run_downloads_nothing_and_needs_no_network)
{
    run("install || exit 1; touch offline; install || exit 2; ! grep -q download calls || exit 3;"
        "test -e $root/ninja-build");
}

Test(install_prefix, takes_nothing_for_the_systems_that_an_earlier_run_has_put_on_the_path)
{
    run("install || exit 1; mkdir -p $root/usr/bin; printf '#!/bin/sh\\n' > $root/usr/bin/mpirun;"
        "chmod +x $root/usr/bin/mpirun; . prefix/env.sh; type mpirun | grep -q $root || exit 2;"
        "sed -i 's/^case $1 in/echo $PATH $LD_LIBRARY_PATH $OPAL_PREFIX >> $D\\/seen; &/' "
        "bin/apt-get;"
        "OPAL_PREFIX=$D/$root/usr install || exit 3; ! grep packages/root seen");
}

Test(install_prefix, without_a_network_the_first_run_says_so)
{
    run("touch offline; install && exit 1; grep -q 'is there a network' log");
}

Test(install_prefix, takes_the_gcc_of_a_module_that_brings_no_cc)
{
    run("install || exit 1; grep -q 'CC= -S' calls || exit 2;"
        "mkdir gnu; mv bin/gcc bin/g++ gnu; export PATH=$D/gnu:$PATH;"
        "install || exit 3; grep -q 'CC=gcc -S' calls");
}

Test(install_prefix, its_environment_loads_the_modules_that_it_was_built_with)
{
    run("export LOADEDMODULES=gcc/12:hdf5/1; install || exit 1;"
        "module() { echo $* >> loaded; }; LOADEDMODULES=gcc/12; . prefix/env.sh;"
        "test \"$(cat loaded)\" = 'load hdf5/1' || exit 2;"
        "case $PATH in $D/prefix/bin:*) ;; *) exit 3;; esac");
}

Test(install_prefix, a_build_that_fails_leaves_the_environment_of_the_last)
{
    run("install || exit 1; cp prefix/env.sh env; touch broken; install && exit 2;"
        "cmp env prefix/env.sh");
}

Test(install_prefix, refuses_a_prefix_with_a_space_before_it_makes_anything)
{
    run(ND_SOURCE_DIR "/launch/install_prefix.sh 'a b/c' > log 2>&1 && exit 1;"
                      "grep -q 'has a space' log && test ! -e 'a b'");
}
