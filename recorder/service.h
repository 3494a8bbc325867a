// Records a systemd service: a drop-in that preloads the recorder, and the AppArmor rule that lets it write.
//
// Planning reads the unit as the system has it and writes nothing; what would be written can be shown first.

#ifndef HEAPTAPE_RECORDER_SERVICE_H_
#define HEAPTAPE_RECORDER_SERVICE_H_

#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "recorder/raw_event.h"

namespace heaptape {

struct ServiceOptions {
  std::string unit;          // "tor@default", with or without ".service"
  std::string preload_path;  // of libheaptape.so, readable for the service
  RecorderOptions recorder;
  std::string root;          // stands before every path of the system; empty but in tests
};

struct ServicePlan {
  std::string unit_path;      // the file the plan was made from
  std::string drop_in_path;
  std::string drop_in;
  std::string apparmor_path;  // a profile's local additions; empty where the unit names no profile
  std::string apparmor_rules; // a block of lines with a beginning and an end of its own
  std::vector<std::string> next_commands;  // to make it effective
  std::string warning;        // why the unit will run unrecorded as it is; empty where nothing is known against it
};

// NotFound where there is no such unit, FailedPrecondition where it starts no program.
absl::StatusOr<ServicePlan> PlanService(const ServiceOptions& options);

// Writes both; what an earlier one wrote is replaced. Errors name the file.
absl::Status InstallService(const ServicePlan& plan);
// Takes both away and leaves everything else of those files as it was.
absl::Status RemoveService(const ServicePlan& plan);

}  // namespace heaptape

#endif  // HEAPTAPE_RECORDER_SERVICE_H_
