// The figures of every run in Prometheus' text format, for dashboards and the node exporter's folder.

#ifndef HEAPTAPE_REPLAYER_EXPORT_PROMETHEUS_H_
#define HEAPTAPE_REPLAYER_EXPORT_PROMETHEUS_H_

#include <string>
#include <vector>

#include "replayer/results.h"

namespace heaptape {

std::string ToPrometheus(const std::vector<ReplayReport>& reports);

}  // namespace heaptape

#endif  // HEAPTAPE_REPLAYER_EXPORT_PROMETHEUS_H_
