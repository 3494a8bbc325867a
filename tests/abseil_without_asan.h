// Included ahead of every C++ source that ASan instruments: Abseil's headers are to be compiled as Debian's library of it was,
// without ASan. Else its containers have another layout in them than in the library, and poison slots that the library then
// moves without lifting that.
#pragma once

#include "absl/base/config.h"

#undef ABSL_HAVE_ADDRESS_SANITIZER
