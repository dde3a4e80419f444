# Writes the commit that SOURCE is at to FILE, a C file, when it says something else: run at every
# build. cmake -DSOURCE=DIR -DFILE=FILE -P Commit.cmake
execute_process(COMMAND git -C ${SOURCE} describe --always --dirty --abbrev=12 --exclude=*
    OUTPUT_VARIABLE commit OUTPUT_STRIP_TRAILING_WHITESPACE ERROR_QUIET RESULT_VARIABLE failed)
execute_process(COMMAND git -C ${SOURCE} rev-parse --show-toplevel
    OUTPUT_VARIABLE top OUTPUT_STRIP_TRAILING_WHITESPACE ERROR_QUIET)
get_filename_component(top "${top}" REALPATH)
get_filename_component(source "${SOURCE}" REALPATH)
# A tree unpacked inside another project's checkout is not at that project's commit.
if(failed OR NOT top STREQUAL source)
    set(commit unknown)
endif()
set(text "extern const char nd_build_commit_text[];\nconst char nd_build_commit_text[] = \"${commit}\";\n")
if(EXISTS ${FILE})
    file(READ ${FILE} before)
endif()
if(NOT text STREQUAL before)
    file(WRITE ${FILE} "${text}")
endif()
