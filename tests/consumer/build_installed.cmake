# Installs the library of ${build} below ${work} and builds a copy of the consumer against it, which
# includes every installed header: one that needs a header that is not installed shows here.
file(REMOVE_RECURSE "${work}")
foreach(component IN ITEMS library dev torch)
  execute_process(
    COMMAND "${CMAKE_COMMAND}" --install "${build}" --prefix "${work}/prefix" --component ${component}
    OUTPUT_QUIET COMMAND_ERROR_IS_FATAL ANY)
endforeach()
file(COPY "${CMAKE_CURRENT_LIST_DIR}/CMakeLists.txt" "${CMAKE_CURRENT_LIST_DIR}/main.cc"
  DESTINATION "${work}/source")
file(GLOB_RECURSE headers RELATIVE "${work}/prefix/include" "${work}/prefix/include/*.h")
list(FILTER headers EXCLUDE REGEX "^bilevel/(mpi|torch)/")
set(includes "")
foreach(header IN LISTS headers)
  string(APPEND includes "#include \"${header}\"\n")
endforeach()
file(READ "${work}/source/main.cc" main)
file(WRITE "${work}/source/main.cc" "${includes}${main}")
function(build_and_test)
  execute_process(
    COMMAND "${ctest}" --build-and-test "${work}/source" "${work}/build"
      --build-generator "${generator}" --build-options "-DCMAKE_PREFIX_PATH=${work}/prefix"
      "-DCMAKE_CXX_COMPILER=${compiler}" "-DCMAKE_CXX_FLAGS=${flags}" --test-command consumer
    COMMAND_ERROR_IS_FATAL ANY)
endfunction()
build_and_test()

# The same with each component that was built.
file(READ "${work}/source/CMakeLists.txt" core)
function(build_and_test_component name main)
  if(NOT EXISTS "${work}/prefix/include/bilevel/${name}")
    return()
  endif()
  string(REPLACE "0.1 REQUIRED" "0.1 REQUIRED COMPONENTS ${name}" list "${core}")
  string(REPLACE "bilevel::bilevel" "bilevel::${name}" list "${list}")
  file(WRITE "${work}/source/CMakeLists.txt" "${list}")
  file(WRITE "${work}/source/main.cc" "${main}")
  build_and_test()
endfunction()
build_and_test_component(mpi "#include \"bilevel/mpi/ranks.h\"
int main(int argc, char** argv) {
  bilevel::mpi::Ranks ranks(&argc, &argv);  // Of one process that no mpirun has started.
  return ranks.size() == 1 && ranks.IsMine(7) ? 0 : 1;
}
")
build_and_test_component(torch "#include \"bilevel/torch/torch_objective.h\"
int main() {
  const bilevel::TorchObjective square(
      bilevel::TorchBlocks{{2}},
      [](const std::vector<torch::Tensor>& blocks) { return blocks[0].square().sum(); });
  const double x[] = {3.0, 4.0}, *blocks[] = {x};
  double value = 0.0, gradient[2], *gradients[] = {gradient};
  return square.Evaluate(blocks, bilevel::Batch::All(), &value, gradients) && value == 25.0 &&
         gradient[1] == 8.0 ? 0 : 1;
}
")
