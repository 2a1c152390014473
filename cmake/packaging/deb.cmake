# What `cpack -G DEB` makes: libbilevel0.1, libbilevel-dev, bilevel-tune and libbilevel-doc.
# cmake/packaging/deb.sh configures and builds for it.
include(GNUInstallDirs)
set(packages library dev tools doc)
set(soname "${PROJECT_VERSION_MAJOR}.${PROJECT_VERSION_MINOR}")
set(CPACK_DEBIAN_LIBRARY_PACKAGE_NAME "libbilevel${soname}")
set(CPACK_DEBIAN_DEV_PACKAGE_NAME libbilevel-dev)
set(CPACK_DEBIAN_TOOLS_PACKAGE_NAME bilevel-tune)
set(CPACK_DEBIAN_DOC_PACKAGE_NAME libbilevel-doc)
set(CPACK_DEBIAN_LIBRARY_PACKAGE_SECTION libs)
set(CPACK_DEBIAN_DEV_PACKAGE_SECTION libdevel)
set(CPACK_DEBIAN_TOOLS_PACKAGE_SECTION science)
set(CPACK_DEBIAN_DOC_PACKAGE_SECTION doc)
set(CPACK_DEBIAN_DOC_PACKAGE_ARCHITECTURE all)

set(about "An estimation problem has settings that are set by hand: noise levels,
weights, scales of robust losses, priors. ceres-bilevel learns them with exact
derivatives through the estimation, from ground truth or held-out data.
.
This package has the")
set(CPACK_COMPONENT_LIBRARY_DESCRIPTION "${about} shared library.")
set(CPACK_COMPONENT_DEV_DESCRIPTION "${about} headers and the CMake package.")
set(CPACK_COMPONENT_TOOLS_DESCRIPTION "${about} command bilevel-tune, which learns from
files: pose graphs, bundle adjustments, ranges, pose streams, corners.")
set(CPACK_COMPONENT_DOC_DESCRIPTION "${about} documentation and programs to copy from.")

set(same_version "${CPACK_DEBIAN_LIBRARY_PACKAGE_NAME} (= ${PROJECT_VERSION})")
set(CPACK_DEBIAN_DEV_PACKAGE_DEPENDS "${same_version}, libceres-dev (>= 2.1), libeigen3-dev (>= 3.3)")
set(CPACK_DEBIAN_DEV_PACKAGE_SUGGESTS libbilevel-doc)
set(CPACK_DEBIAN_TOOLS_PACKAGE_DEPENDS "${same_version}")
set(CPACK_DEBIAN_TOOLS_PACKAGE_SUGGESTS gnuplot)
file(WRITE "${PROJECT_BINARY_DIR}/packaging/triggers" "activate-noawait ldconfig\n")
set(CPACK_DEBIAN_LIBRARY_PACKAGE_CONTROL_EXTRA "${PROJECT_BINARY_DIR}/packaging/triggers")
set(CPACK_DEBIAN_PACKAGE_GENERATE_SHLIBS ON)
set(CPACK_DEBIAN_LIBRARY_PACKAGE_SHLIBDEPS ON)
set(CPACK_DEBIAN_TOOLS_PACKAGE_SHLIBDEPS ON)
set(CPACK_DEBIAN_PACKAGE_SHLIBDEPS_PRIVATE_DIRS "${PROJECT_BINARY_DIR}/bilevel")

set(CPACK_PACKAGE_NAME bilevel)
set(CPACK_PACKAGE_CONTACT "The ceres-bilevel authors <maintainers@ceres-bilevel.example>")
set(CPACK_DEBIAN_PACKAGE_PRIORITY optional)
set(CPACK_DEBIAN_FILE_NAME DEB-DEFAULT)
set(CPACK_DEB_COMPONENT_INSTALL ON)
set(CPACK_COMPONENTS_GROUPING IGNORE)
set(CPACK_COMPONENTS_ALL ${packages})
set(CPACK_STRIP_FILES ON)
set(CPACK_PRE_BUILD_SCRIPTS "${CMAKE_CURRENT_LIST_DIR}/deb_stage.cmake")

# Each package's own folder of documents.
string(TIMESTAMP date "%a, %d %b %Y %H:%M:%S +0000" UTC)  # SOURCE_DATE_EPOCH's, where it is set.
configure_file("${CMAKE_CURRENT_LIST_DIR}/changelog.in" "${PROJECT_BINARY_DIR}/packaging/changelog" @ONLY)
file(READ "${PROJECT_SOURCE_DIR}/LICENSE" license)
string(REGEX REPLACE "^[^\n]*\n\n[^\n]*\n\n" "" license "${license}")
string(REGEX REPLACE "\n\n" "\n.\n" license "${license}")
string(REGEX REPLACE "\n$" "" license "${license}")
string(REPLACE "\n" "\n " license "${license}")
configure_file("${CMAKE_CURRENT_LIST_DIR}/copyright.in" "${PROJECT_BINARY_DIR}/packaging/copyright" @ONLY)
foreach(package IN LISTS packages)
  string(TOUPPER "${package}" key)
  set(folder "${CMAKE_INSTALL_DATADIR}/doc/${CPACK_DEBIAN_${key}_PACKAGE_NAME}")
  install(FILES "${PROJECT_BINARY_DIR}/packaging/copyright" "${PROJECT_BINARY_DIR}/packaging/changelog"
    DESTINATION "${folder}" COMPONENT ${package} EXCLUDE_FROM_ALL)
endforeach()
file(WRITE "${PROJECT_BINARY_DIR}/packaging/overrides"
  "# CPack writes these scripts; the trigger alone would do, and both do no harm.\n"
  "maintscript-calls-ldconfig\n")
install(FILES "${PROJECT_BINARY_DIR}/packaging/overrides" COMPONENT library EXCLUDE_FROM_ALL
  DESTINATION "${CMAKE_INSTALL_DATADIR}/lintian/overrides"
  RENAME "${CPACK_DEBIAN_LIBRARY_PACKAGE_NAME}")
install(FILES "${PROJECT_SOURCE_DIR}/README.md" "${PROJECT_SOURCE_DIR}/CHANGELOG.md"
  DESTINATION "${folder}" COMPONENT doc EXCLUDE_FROM_ALL)
install(FILES "${PROJECT_SOURCE_DIR}/bilevel/methods/README.md"
  RENAME methods.md DESTINATION "${folder}" COMPONENT doc EXCLUDE_FROM_ALL)
file(GLOB programs "${PROJECT_SOURCE_DIR}/examples/[0-9]*.cc")
install(FILES ${programs} DESTINATION "${folder}/examples" COMPONENT doc EXCLUDE_FROM_ALL)

include(CPack)
