# The CUDA kernels as fat binaries inside the core, where nvcc is; without it the core is built whole, decodes coded
# chunks on the CPU, and says so (`ingot doctor`). -DINGOT_CUDA=OFF leaves them out although nvcc is there.
option(INGOT_CUDA "Compile the CUDA kernels where nvcc is found" ON)
find_program(INGOT_NVCC nvcc HINTS ENV CUDA_PATH PATHS /usr/local/cuda/bin PATH_SUFFIXES bin)
if(NOT INGOT_CUDA OR NOT INGOT_NVCC OR INGOT_SANITIZE OR INGOT_FUZZ)
  message(STATUS "CUDA kernels: not built here (no nvcc, or switched off)")
  return()
endif()
message(STATUS "CUDA kernels: by ${INGOT_NVCC}")

set(INGOT_FATBINS ${CMAKE_CURRENT_BINARY_DIR}/kernels)
file(MAKE_DIRECTORY ${INGOT_FATBINS})
set(INGOT_FATBIN_FILES)
set(here ${CMAKE_CURRENT_SOURCE_DIR})
foreach(name decode_fast decode_any crc64 xor)
  set(output ${INGOT_FATBINS}/${name}.fatbin)
  add_custom_command(OUTPUT ${output}
    COMMAND ${INGOT_NVCC} -std=c++20 -O3 -fatbin -I${here}/native/gpu -I${here}/native/src/codec
      -I${here}/native/src/core -I${here}/native/src/device
      -gencode=arch=compute_80,code=sm_80 -gencode=arch=compute_90,code=sm_90
      -gencode=arch=compute_100,code=[sm_100,compute_100] -gencode=arch=compute_80,code=compute_80
      ${here}/native/gpu/${name}.cu -o ${output}
    DEPENDS native/gpu/${name}.cu native/gpu/ingot_gpu.h native/gpu/rans32_device.cuh native/src/device/gpu_jobs.h
      native/src/device/crc64_constants.h native/src/codec/stream.h native/src/codec/rans32_lane.h
    VERBATIM)
  list(APPEND INGOT_FATBIN_FILES ${output})
endforeach()
set_source_files_properties(native/src/device/kernels.cc PROPERTIES OBJECT_DEPENDS "${INGOT_FATBIN_FILES}"
  COMPILE_DEFINITIONS "INGOT_FATBINS=\"${INGOT_FATBINS}\";INGOT_FATBIN_ARCHITECTURES=\"sm_80 sm_90 sm_100 PTX\"")
