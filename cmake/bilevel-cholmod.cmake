# Defines bilevel::cholmod where SuiteSparse's CHOLMOD is installed. Used by the build and, because a
# static bilevel leaves the linking to its consumer, by the installed package.
find_path(BILEVEL_CHOLMOD_INCLUDE_DIR cholmod.h PATH_SUFFIXES suitesparse)
find_library(BILEVEL_CHOLMOD_LIBRARY cholmod)
mark_as_advanced(BILEVEL_CHOLMOD_INCLUDE_DIR BILEVEL_CHOLMOD_LIBRARY)
if(BILEVEL_CHOLMOD_INCLUDE_DIR AND BILEVEL_CHOLMOD_LIBRARY AND NOT TARGET bilevel::cholmod)
  add_library(bilevel::cholmod UNKNOWN IMPORTED)
  set_target_properties(bilevel::cholmod PROPERTIES
    IMPORTED_LOCATION "${BILEVEL_CHOLMOD_LIBRARY}"
    INTERFACE_INCLUDE_DIRECTORIES "${BILEVEL_CHOLMOD_INCLUDE_DIR}")
endif()
