# Directories that the installation makes are open to all users, as its files are: CMake makes those
# with what the umask leaves of any permissions asked for.
set(data ${CMAKE_INSTALL_DATADIR}/nanochat_dist)
set(completions ${CMAKE_INSTALL_DATADIR}/bash-completion/completions)
install(CODE "set(directories ${CMAKE_INSTALL_BINDIR} ${data}/report ${data}/launch
    ${CMAKE_INSTALL_MANDIR}/man1 ${completions})")
install(CODE [[
foreach(directory IN LISTS directories)
    cmake_path(ABSOLUTE_PATH directory BASE_DIRECTORY "${CMAKE_INSTALL_PREFIX}")
    get_filename_component(path "$ENV{DESTDIR}${directory}" ABSOLUTE)
    while(NOT EXISTS "${path}")
        list(PREPEND missing "${path}")
        get_filename_component(path "${path}" DIRECTORY)
    endwhile()
    foreach(path IN LISTS missing)
        file(MAKE_DIRECTORY "${path}")
        file(CHMOD "${path}" PERMISSIONS OWNER_READ OWNER_WRITE OWNER_EXECUTE
            GROUP_READ GROUP_EXECUTE WORLD_READ WORLD_EXECUTE)
    endforeach()
    set(missing)
endforeach()]])
install(TARGETS nanochat_dist RUNTIME DESTINATION ${CMAKE_INSTALL_BINDIR})
install(DIRECTORY configs/ DESTINATION ${data}/configs)
install(FILES src/train/report/report.py src/train/report/runs.py src/train/report/claims.py
    src/train/report/chart.py DESTINATION ${data}/report)
install(PROGRAMS launch/run.sh DESTINATION ${data}/launch)
install(FILES launch/shared.sh DESTINATION ${data}/launch)
install(DIRECTORY launch/slurm DESTINATION ${data}/launch)
install(FILES docs/nanochat_dist.1 DESTINATION ${CMAKE_INSTALL_MANDIR}/man1)
# bash-completion loads the file that is named like the command.
install(FILES launch/completion/nanochat_dist.bash
    DESTINATION ${completions} RENAME nanochat_dist)
