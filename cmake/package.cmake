# libfusedrnn, the C ABI, as other projects find it: the target fusedrnn::fusedrnn of add_subdirectory and of
# find_package(fusedrnn CONFIG), and fusedrnn.pc. It compiles nothing: its objects are those of fusedrnn_core.

# A struct that changes makes another library of it, and nothing else does.
file(STRINGS csrc/include/fusedrnn/fusedrnn.h FUSEDRNN_ABI REGEX "^#define FUSEDRNN_ABI_VERSION [0-9]+$")
string(REGEX MATCH "[0-9]+$" FUSEDRNN_ABI "${FUSEDRNN_ABI}")

if(FUSEDRNN_SHARED)
  add_library(fusedrnn SHARED ${FUSEDRNN_OBJECTS})
  target_link_libraries(fusedrnn PRIVATE fusedrnn_never_unloaded Threads::Threads ${CMAKE_DL_LIBS})
  fusedrnn_export_c_abi(fusedrnn)
else()
  # It asks of what it is linked into what a library of its own would bring: C++ in a project of C, and never
  # to be unloaded.
  set(FUSEDRNN_CXX_LIBRARIES ${CMAKE_CXX_IMPLICIT_LINK_LIBRARIES})
  list(REMOVE_ITEM FUSEDRNN_CXX_LIBRARIES ${CMAKE_C_IMPLICIT_LINK_LIBRARIES})
  add_library(fusedrnn STATIC ${FUSEDRNN_OBJECTS})
  target_link_libraries(fusedrnn PUBLIC Threads::Threads ${CMAKE_DL_LIBS} ${FUSEDRNN_CXX_LIBRARIES})
  get_target_property(FUSEDRNN_LINK_OPTIONS fusedrnn_never_unloaded INTERFACE_LINK_OPTIONS)
  if(FUSEDRNN_LINK_OPTIONS)
    target_link_options(fusedrnn INTERFACE ${FUSEDRNN_LINK_OPTIONS})
  endif()
endif()
add_library(fusedrnn::fusedrnn ALIAS fusedrnn)
target_include_directories(fusedrnn INTERFACE "$<BUILD_INTERFACE:${PROJECT_SOURCE_DIR}/csrc/include>")

# A wheel has no symbolic links, so one file, by the name that programs load.
include(GNUInstallDirs)
if(DEFINED SKBUILD)
  set(CMAKE_INSTALL_LIBDIR fusedrnn) # beside the CUDA library
  set(CMAKE_INSTALL_INCLUDEDIR fusedrnn/include)
  set(FUSEDRNN_CMAKE_DIR fusedrnn/lib/cmake/fusedrnn)
  set(FUSEDRNN_PKGCONFIG_DIR fusedrnn/lib/pkgconfig)
  set_target_properties(fusedrnn PROPERTIES VERSION ${FUSEDRNN_ABI} SOVERSION ${FUSEDRNN_ABI})
  set(namelink NAMELINK_SKIP)
else()
  set(FUSEDRNN_CMAKE_DIR ${CMAKE_INSTALL_LIBDIR}/cmake/fusedrnn)
  set(FUSEDRNN_PKGCONFIG_DIR ${CMAKE_INSTALL_LIBDIR}/pkgconfig)
  set_target_properties(fusedrnn PROPERTIES VERSION ${FUSEDRNN_ABI}.${PROJECT_VERSION} SOVERSION ${FUSEDRNN_ABI})
  set(namelink "")
endif()
if(NOT FUSEDRNN_INSTALL)
  return()
endif()

install(TARGETS fusedrnn EXPORT fusedrnn
        LIBRARY DESTINATION ${CMAKE_INSTALL_LIBDIR} ${namelink}
        ARCHIVE DESTINATION ${CMAKE_INSTALL_LIBDIR}
        INCLUDES DESTINATION ${CMAKE_INSTALL_INCLUDEDIR})
install(DIRECTORY csrc/include/ DESTINATION ${CMAKE_INSTALL_INCLUDEDIR})

include(CMakePackageConfigHelpers)
set(generated "${PROJECT_BINARY_DIR}/package")
configure_package_config_file(cmake/fusedrnn-config.cmake.in "${generated}/fusedrnn-config.cmake"
                              INSTALL_DESTINATION ${FUSEDRNN_CMAKE_DIR}
                              NO_SET_AND_CHECK_MACRO)
write_basic_package_version_file("${generated}/fusedrnn-config-version.cmake" COMPATIBILITY SameMinorVersion)
install(EXPORT fusedrnn NAMESPACE fusedrnn:: FILE fusedrnn-targets.cmake DESTINATION ${FUSEDRNN_CMAKE_DIR})
install(FILES "${generated}/fusedrnn-config.cmake" "${generated}/fusedrnn-config-version.cmake"
        DESTINATION ${FUSEDRNN_CMAKE_DIR})

# Relative to its own folder, so that the tree can be moved. Each may be an absolute path.
foreach(folder LIBDIR INCLUDEDIR)
  set(path "${CMAKE_INSTALL_${folder}}")
  set(base "${FUSEDRNN_PKGCONFIG_DIR}")
  cmake_path(ABSOLUTE_PATH path BASE_DIRECTORY "${CMAKE_INSTALL_PREFIX}")
  cmake_path(ABSOLUTE_PATH base BASE_DIRECTORY "${CMAKE_INSTALL_PREFIX}")
  cmake_path(RELATIVE_PATH path BASE_DIRECTORY "${base}" OUTPUT_VARIABLE FUSEDRNN_PC_${folder})
endforeach()
set(FUSEDRNN_PC_LIBS -lfusedrnn)
if(NOT FUSEDRNN_SHARED)
  list(TRANSFORM FUSEDRNN_CXX_LIBRARIES PREPEND -l)
  string(REPLACE "LINKER:" "-Wl," link_options "${FUSEDRNN_LINK_OPTIONS}")
  list(APPEND FUSEDRNN_PC_LIBS ${CMAKE_THREAD_LIBS_INIT} ${FUSEDRNN_CXX_LIBRARIES})
  foreach(library IN LISTS CMAKE_DL_LIBS)
    list(APPEND FUSEDRNN_PC_LIBS -l${library})
  endforeach()
  list(APPEND FUSEDRNN_PC_LIBS ${link_options})
elseif(namelink)
  set(FUSEDRNN_PC_LIBS -l:${CMAKE_SHARED_LIBRARY_PREFIX}fusedrnn${CMAKE_SHARED_LIBRARY_SUFFIX}.${FUSEDRNN_ABI})
endif()
list(JOIN FUSEDRNN_PC_LIBS " " FUSEDRNN_PC_LIBS)
configure_file(cmake/fusedrnn.pc.in "${generated}/fusedrnn.pc" @ONLY)
install(FILES "${generated}/fusedrnn.pc" DESTINATION ${FUSEDRNN_PKGCONFIG_DIR})
