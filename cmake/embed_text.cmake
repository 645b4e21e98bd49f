# plx_embed_text(SOURCE HEADER NAME): writes a C header with the bytes of a text file as `static const char NAME[]`,
# without a NUL at the end; the build is configured anew when the file changes.
function(plx_embed_text source header name)
  file(READ ${source} bytes HEX)
  string(REGEX REPLACE "([0-9a-f][0-9a-f])" "0x\\1," bytes "${bytes}")
  string(REGEX REPLACE "((0x..,){20})" "\\1\n" bytes "${bytes}")
  file(CONFIGURE OUTPUT ${header} CONTENT "static const char ${name}[] = {\n${bytes}};\n")
  set_property(DIRECTORY APPEND PROPERTY CMAKE_CONFIGURE_DEPENDS ${source})
endfunction()
