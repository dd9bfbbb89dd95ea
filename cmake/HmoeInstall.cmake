# SPDX-License-Identifier: MIT
# Installs the headers and the package that find_package(hmoe) reads.
include(CMakePackageConfigHelpers)
include(GNUInstallDirs)

set(hmoe_package_dir "${CMAKE_INSTALL_DATADIR}/cmake/hmoe")

# One export set per component: a component whose package is missing must not break the others.
foreach(target hmoe hmoe_eigen hmoe_simd hmoe_openmp hmoe_tbb hmoe_cuda hmoe_mpi hmoe_nccl hmoe_io)
  set(more_headers)
  if(target STREQUAL "hmoe_cuda")
    set(more_headers FILE_SET device_headers)
  endif()
  install(TARGETS ${target} EXPORT ${target}-targets FILE_SET HEADERS ${more_headers})
  install(EXPORT ${target}-targets NAMESPACE hmoe:: DESTINATION "${hmoe_package_dir}")
endforeach()

configure_package_config_file(cmake/hmoe-config.cmake.in "${PROJECT_BINARY_DIR}/hmoe-config.cmake"
                              INSTALL_DESTINATION "${hmoe_package_dir}" NO_SET_AND_CHECK_MACRO)
# Before 1.0 a minor version may break its users.
write_basic_package_version_file("${PROJECT_BINARY_DIR}/hmoe-config-version.cmake"
                                 COMPATIBILITY SameMinorVersion ARCH_INDEPENDENT)
install(FILES "${PROJECT_BINARY_DIR}/hmoe-config.cmake" "${PROJECT_BINARY_DIR}/hmoe-config-version.cmake" cmake/HmoeIsa.cmake
              cmake/HmoeCuda.cmake cmake/FindNCCL.cmake
        DESTINATION "${hmoe_package_dir}")
install(FILES LICENSE TYPE DOC)
