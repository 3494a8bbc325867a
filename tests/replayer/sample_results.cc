// Prints the sample results as JSON: of one trace, or with "fleet" of two.

#include <cstdio>
#include <string>
#include <vector>

#include "replayer/export/json.h"
#include "tests/replayer/sample_results.h"

int main(int argc, char** argv) {
  using namespace heaptape;
  std::vector<ReplayReport> reports = {SampleReport("traces/guard.tape", 1)};
  if (argc > 1 && std::string(argv[1]) == "fleet") reports.push_back(SampleReport("traces/exit.tape", 2));
  const auto json = ToJson(reports, {});
  if (!json.ok()) return 1;
  std::fputs(json->c_str(), stdout);
  return 0;
}
