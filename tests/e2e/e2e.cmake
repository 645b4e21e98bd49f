# End-to-end tests: each script runs the program as a user would. usage: SCRIPT PROGRAM [ARGUMENT...]
if(TARGET parallax)
  function(plx_e2e name label)
    add_test(NAME e2e_${name} COMMAND ${ARGN} WORKING_DIRECTORY ${CMAKE_CURRENT_BINARY_DIR})
    set_tests_properties(e2e_${name} PROPERTIES LABELS "${label}" SKIP_RETURN_CODE 77 TIMEOUT 1800
                         ENVIRONMENT OMP_WAIT_POLICY=passive)
  endfunction()
  foreach(name chat convert cycle damage equal finetune fp8 help launchers log overfit ranks refuse signal tasks
               tokenizer)
    plx_e2e(${name} e2e bash ${PROJECT_SOURCE_DIR}/tests/e2e/${name}.sh $<TARGET_FILE:parallax>)
  endforeach()
  plx_e2e(parity e2e bash ${PROJECT_SOURCE_DIR}/tests/e2e/parity.sh $<TARGET_FILE:parallax> ${PLX_SHARED_DATA})
  plx_e2e(transformers e2e bash ${PROJECT_SOURCE_DIR}/tests/e2e/transformers.sh $<TARGET_FILE:parallax>
          ${PROJECT_SOURCE_DIR})
  plx_e2e(docs e2e bash ${PROJECT_SOURCE_DIR}/tests/e2e/docs.sh $<TARGET_FILE:parallax> ${PROJECT_SOURCE_DIR})
  plx_e2e(ranks_gpu gpu bash ${PROJECT_SOURCE_DIR}/tests/gpu/ranks.sh $<TARGET_FILE:parallax>)
  plx_e2e(lost_gpu gpu bash ${PROJECT_SOURCE_DIR}/tests/gpu/lost.sh $<TARGET_FILE:parallax>)
  plx_e2e(commands_gpu gpu bash ${PROJECT_SOURCE_DIR}/tests/gpu/commands.sh $<TARGET_FILE:parallax>)
  plx_e2e(sanitize_gpu gpu bash ${PROJECT_SOURCE_DIR}/tests/gpu/sanitize.sh ${PROJECT_BINARY_DIR})
  plx_e2e(kill e2e bash ${PROJECT_SOURCE_DIR}/tests/e2e/kill.sh $<TARGET_FILE:parallax> 10)
  plx_e2e(convert_large long bash ${PROJECT_SOURCE_DIR}/tests/e2e/convert_large.sh $<TARGET_FILE:parallax>)
  plx_e2e(network long bash ${PROJECT_SOURCE_DIR}/tests/e2e/network.sh $<TARGET_FILE:parallax>)
  plx_e2e(kill_long long bash ${PROJECT_SOURCE_DIR}/tests/e2e/kill.sh $<TARGET_FILE:parallax> 200)
endif()
