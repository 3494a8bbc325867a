// The worker is linked with a static libstdc++ and starts under any C library that is replayed against. Where that libstdc++
// was built with glibc 2.38 or later it asks for C23's strtoul, which older C libraries lack, to read a tunable of its
// exceptions' reserve. Decimal digits are all that it has to read here.

extern "C" unsigned long __isoc23_strtoul(const char* text, char** end, int) {
  unsigned long value = 0;
  while (*text >= '0' && *text <= '9') value = value * 10 + static_cast<unsigned long>(*text++ - '0');
  if (end != nullptr) *end = const_cast<char*>(text);
  return value;
}
