#include "replayer/results.h"

namespace heaptape {

const char* VerdictName(Verdict verdict) {
  switch (verdict) {
    case Verdict::kStable:
      return "stable";
    case Verdict::kGrowing:
      return "growing";
    case Verdict::kBloating:
      return "bloating";
    case Verdict::kSettling:
      return "settling";
    case Verdict::kFailed:
      return "failed";
  }
  return "failed";
}

}  // namespace heaptape
