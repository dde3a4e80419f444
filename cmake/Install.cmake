install(TARGETS nanochat_dist RUNTIME DESTINATION ${CMAKE_INSTALL_BINDIR})
install(DIRECTORY configs/ DESTINATION ${CMAKE_INSTALL_DATADIR}/nanochat_dist/configs)
install(FILES src/train/report/report.py src/train/report/runs.py src/train/report/claims.py
    src/train/report/chart.py DESTINATION ${CMAKE_INSTALL_DATADIR}/nanochat_dist/report)
install(PROGRAMS launch/run.sh DESTINATION ${CMAKE_INSTALL_DATADIR}/nanochat_dist/launch)
install(FILES launch/shared.sh DESTINATION ${CMAKE_INSTALL_DATADIR}/nanochat_dist/launch)
install(DIRECTORY launch/slurm DESTINATION ${CMAKE_INSTALL_DATADIR}/nanochat_dist/launch)
install(FILES docs/nanochat_dist.1 DESTINATION ${CMAKE_INSTALL_MANDIR}/man1)
# bash-completion loads the file that is named like the command.
install(FILES launch/completion/nanochat_dist.bash
    DESTINATION ${CMAKE_INSTALL_DATADIR}/bash-completion/completions RENAME nanochat_dist)
