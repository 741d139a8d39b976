# The CUDA kernels and the program that proves and measures them, where nvcc is; never part of the addon, never
# of `all`:
#
#   cmake -S . -B build/core -G Ninja && cmake --build build/core --target ingot_gpu
#   build/core/ingot_gpu_check            (needs a GPU; says so and ends with status 77 without one)
if(NOT INGOT_NVCC OR INGOT_SANITIZE OR INGOT_FUZZ)
  message(STATUS "ingot_gpu_check: not built here (it wants nvcc, and no sanitizer of the CPU's)")
  return()
endif()
message(STATUS "ingot_gpu_check: can be built with ${INGOT_NVCC} (target ingot_gpu)")

set(INGOT_GPU ${CMAKE_CURRENT_SOURCE_DIR}/native/gpu)
set(INGOT_GPU_ARCHITECTURES "-gencode=arch=compute_90,code=sm_90" CACHE STRING "Code that nvcc makes")
set(INGOT_GPU_OBJECTS)
foreach(name decode_fast decode_any crc64 check_main check_decode check_sum bench)
  set(object ${CMAKE_CURRENT_BINARY_DIR}/gpu_${name}.o)
  add_custom_command(OUTPUT ${object}
    COMMAND ${INGOT_NVCC} -std=c++20 -O3 ${INGOT_GPU_ARCHITECTURES} -Xcompiler -Wall,-Wextra
      -I${INGOT_GPU} -I${CMAKE_CURRENT_SOURCE_DIR}/${INGOT_DEVICE} -I${CMAKE_CURRENT_SOURCE_DIR}/${INGOT_CODEC} -I${CMAKE_CURRENT_SOURCE_DIR}/${INGOT_CORE}
      -c ${INGOT_GPU}/${name}.cu -o ${object}
    DEPENDS ${INGOT_GPU}/${name}.cu ${INGOT_GPU}/ingot_gpu.h ${INGOT_GPU}/rans32_device.cuh ${INGOT_GPU}/check_support.h
      ${INGOT_DEVICE}/gpu_jobs.h ${INGOT_DEVICE}/crc64_constants.h
      ${INGOT_CODEC}/stream.h ${INGOT_CODEC}/rans32_lane.h
    VERBATIM)
  list(APPEND INGOT_GPU_OBJECTS ${object})
endforeach()
set(INGOT_GPU_PROGRAM ${CMAKE_CURRENT_BINARY_DIR}/ingot_gpu_check)
add_custom_command(OUTPUT ${INGOT_GPU_PROGRAM}
  COMMAND ${INGOT_NVCC} -cudart static ${INGOT_GPU_OBJECTS} $<TARGET_FILE:ingot_core> $<TARGET_FILE:ingot_codec>
    ${INGOT_LIBURING} ${INGOT_LZ4} ${INGOT_ZSTD} -o ${INGOT_GPU_PROGRAM}
  DEPENDS ${INGOT_GPU_OBJECTS} ingot_core ingot_codec
  VERBATIM)
add_custom_target(ingot_gpu DEPENDS ${INGOT_GPU_PROGRAM})
