# Debian's policy on what is staged, before it becomes a package: manuals and changelogs are packed,
# without a time stamp.
set(staged "${CPACK_TEMPORARY_INSTALL_DIRECTORY}")
file(GLOB files "${staged}/*/usr/share/man/man*/*.[1-9]" "${staged}/*/usr/share/doc/*/changelog")
foreach(file IN LISTS files)
  execute_process(COMMAND gzip -9nf "${file}" COMMAND_ERROR_IS_FATAL ANY)
endforeach()
