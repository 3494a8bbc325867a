// Has AddressSanitizer in it.
#include <stdlib.h>

int main() { free(malloc(100)); }
