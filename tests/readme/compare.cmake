# Runs ${program} and compares what it prints with the file ${expected}.
if(NOT DEFINED program)
  message(FATAL_ERROR "README.md holds no program")
endif()
execute_process(COMMAND "${program}" OUTPUT_VARIABLE output COMMAND_ERROR_IS_FATAL ANY)
file(READ "${expected}" promised)
if(NOT output STREQUAL promised)
  message(FATAL_ERROR "README.md promises\n${promised}\nbut the program prints\n${output}")
endif()
