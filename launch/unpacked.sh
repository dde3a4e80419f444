# Debian packages that are unpacked into a directory instead of installed, and what finds them
# there; to be sourced. Needs no root and touches nothing of the system.

# unpack_packages ROOT FILE.deb...: ROOT holds these and no others; a later call finds them there.
unpack_packages() {
    local root=$1 names package name
    shift
    names=$(printf '%s\n' "${@##*/}")
    [ "$(cat "$root/complete" 2>/dev/null)" != "$names" ] || return 0
    rm -rf "$root" && mkdir -p "$root" || return 1
    for package in "$@"; do
        dpkg -x "$package" "$root" || return 1
    done
    # Only the installation of a package makes this name.
    for name in mpirun.openmpi prterun orterun; do
        [ ! -e "$root/usr/bin/$name" ] || ln -sf "$name" "$root/usr/bin/mpirun"
    done
    printf '%s\n' "$names" >"$root/complete"
}

# unpacked_environment ROOT: prints the exports with which programs from there run.
unpacked_environment() {
    local root=$1 lib system
    lib=$root/usr/lib/$(${CC:-cc} -dumpmachine)
    system=$root/lib/$(${CC:-cc} -dumpmachine) # some packages have their libraries there
    cat <<END
export PATH=$root/usr/bin:\$PATH
export LD_LIBRARY_PATH=$lib/openblas-serial:$system\${LD_LIBRARY_PATH:+:\$LD_LIBRARY_PATH}
export LD_LIBRARY_PATH=$lib:$lib/openmpi/lib:$lib/hdf5/serial:\$LD_LIBRARY_PATH
END
    # Plugins for networks that the machine has no libraries for are no errors.
    [ ! -d "$lib/openmpi" ] || cat <<END
export OPAL_PREFIX=$root/usr PMIX_INSTALL_PREFIX=$root/usr PRTE_PREFIX=$root/usr
export OMPI_MCA_mca_base_component_show_load_errors=0 PMIX_MCA_pcompress_base_silence_warning=1
END
}

# use_unpacked ROOT: sets the environment, and adds what CMake needs to cmake_arguments.
use_unpacked() {
    local root=$1 lib mpi
    lib=$root/usr/lib/$(${CC:-cc} -dumpmachine)
    mpi=$lib/openmpi
    eval "$(unpacked_environment "$root")"
    export PKG_CONFIG_PATH=$lib/pkgconfig:$root/usr/share/pkgconfig${PKG_CONFIG_PATH:+:$PKG_CONFIG_PATH}
    export PKG_CONFIG_SYSROOT_DIR=$root
    cmake_arguments+=(
        "-DCMAKE_PREFIX_PATH=$root/usr"
        "-DCMAKE_LIBRARY_PATH=$lib;$lib/hdf5/serial;$lib/openblas-serial"
        "-DCMAKE_INCLUDE_PATH=$root/usr/include;$root/usr/include/hdf5/serial;$root/usr/include/$(${CC:-cc} -dumpmachine)"
        "-DCMAKE_C_FLAGS=-isystem $root/usr/include -isystem $root/usr/include/$(${CC:-cc} -dumpmachine)"
        "-DCMAKE_CXX_FLAGS=-isystem $root/usr/include"
        "-DCMAKE_EXE_LINKER_FLAGS=-Wl,--allow-shlib-undefined -L$lib")
    [ ! -d "$root/usr/include/openssl" ] || cmake_arguments+=("-DOPENSSL_ROOT_DIR=$root/usr")
    [ ! -d "$lib/hdf5" ] || cmake_arguments+=(
        -DHDF5_C_COMPILER_EXECUTABLE= "-DHDF5_hdf5_LIBRARY_RELEASE=$lib/hdf5/serial/libhdf5.so"
        "-DHDF5_C_INCLUDE_DIR=$root/usr/include/hdf5/serial")
    [ ! -d "$mpi" ] || cmake_arguments+=(
        -DMPI_SKIP_COMPILER_WRAPPER=ON -DMPI_C_LIB_NAMES=mpi
        "-DMPI_mpi_LIBRARY=$mpi/lib/libmpi.so"
        "-DMPI_C_HEADER_DIR=$mpi/include" -DMPI_C_ADDITIONAL_INCLUDE_DIRS=)
}
