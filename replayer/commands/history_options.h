// What `heaptape bisect` and `heaptape sweep` have in common: their options, and commits made measurable.

#ifndef HEAPTAPE_REPLAYER_COMMANDS_HISTORY_OPTIONS_H_
#define HEAPTAPE_REPLAYER_COMMANDS_HISTORY_OPTIONS_H_

#include <atomic>
#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "CLI/CLI.hpp"
#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "allocators/git.h"
#include "replayer/bisect/history.h"
#include "replayer/bisect/history_report.h"
#include "replayer/bisect/measure.h"
#include "replayer/commands/progress.h"
#include "replayer/replay.h"

namespace heaptape::commands {

// How one trace is replayed, for every command that judges by a metric.
struct JudgeOptions {
  std::string trace, metric = "steady", threshold;
  std::uint32_t seeds = 1;
  ReplayOptions replay;
};
void AddJudgeOptions(CLI::App& command, JudgeOptions& options);

struct HistoryOptions {
  JudgeOptions judge;
  std::string family, source, build, library, configure;
  int jobs = 0;
  bool retry_skipped = false;
  std::string format = "table", output, chart, issue;
  bool force = false;
};
void AddHistoryOptions(CLI::App& command, HistoryOptions& options);

// A folder for work, removed with everything in it at the end.
class WorkFolder {
 public:
  static absl::StatusOr<WorkFolder> Make();
  WorkFolder(WorkFolder&& other) noexcept : path_(std::move(other.path_)) { other.path_.clear(); }
  WorkFolder& operator=(WorkFolder&&) = delete;
  ~WorkFolder();
  const std::string& path() const { return path_; }

 private:
  explicit WorkFolder(std::string path) : path_(std::move(path)) {}
  std::string path_;
};

// Everything a walk over history needs, made from the options.
class HistorySession {
 public:
  static absl::StatusOr<std::unique_ptr<HistorySession>> Open(const HistoryOptions& options, const std::atomic<bool>& cancelled);
  ~HistorySession();

  const GitMirror& mirror() const { return *mirror_; }
  CommitMeasurer& measurer() { return *measurer_; }
  // Metric, threshold and the talk on stderr; ends and folder are the caller's.
  BisectOptions walk() const;
  // Trace, machine and command; what was found is the caller's.
  HistoryReport report() const;

 private:
  HistorySession() = default;

  HistoryOptions options_;
  const std::atomic<bool>* cancelled_ = nullptr;
  Metric metric_ = Metric::kSteady;
  Threshold threshold_;
  ReplayReport trace_;
  std::optional<GitMirror> mirror_;
  std::unique_ptr<ProgressBoard> board_;
  std::unique_ptr<ReplayMeasurer> measurer_;   // uses the rest
};

// Prints the report in the chosen format and writes the files that were asked for.
absl::Status Deliver(const HistoryReport& report, const HistoryOptions& options);

// As Fail(), but an interruption says that the same command goes on from there.
int FailOrInterrupted(const absl::Status& status);

}  // namespace heaptape::commands

#endif  // HEAPTAPE_REPLAYER_COMMANDS_HISTORY_OPTIONS_H_
