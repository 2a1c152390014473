# Installs the library of ${build} below ${work} and builds a copy of the consumer against it, which
# includes every installed header: one that needs a header that is not installed shows here.
file(REMOVE_RECURSE "${work}")
execute_process(COMMAND "${CMAKE_COMMAND}" --install "${build}" --prefix "${work}/prefix"
  OUTPUT_QUIET COMMAND_ERROR_IS_FATAL ANY)
file(COPY "${CMAKE_CURRENT_LIST_DIR}/CMakeLists.txt" "${CMAKE_CURRENT_LIST_DIR}/main.cc"
  DESTINATION "${work}/source")
file(GLOB_RECURSE headers RELATIVE "${work}/prefix/include" "${work}/prefix/include/*.h")
set(includes "")
foreach(header IN LISTS headers)
  string(APPEND includes "#include \"${header}\"\n")
endforeach()
file(READ "${work}/source/main.cc" main)
file(WRITE "${work}/source/main.cc" "${includes}${main}")
execute_process(
  COMMAND "${ctest}" --build-and-test "${work}/source" "${work}/build"
    --build-generator "${generator}" --build-options "-DCMAKE_PREFIX_PATH=${work}/prefix"
    "-DCMAKE_CXX_COMPILER=${compiler}" "-DCMAKE_CXX_FLAGS=${flags}" --test-command consumer
  COMMAND_ERROR_IS_FATAL ANY)
