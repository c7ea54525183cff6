// Reads configuration files: TOML with one table per section of RunOptions.
#ifndef PANTHERA_LAUNCHER_CONFIG_FILE_H_
#define PANTHERA_LAUNCHER_CONFIG_FILE_H_

#include <span>
#include <string>

#include "absl/status/status.h"

#include "launcher/run_options.h"
#include "runtime/comm/host_group.h"

namespace panthera {

// Sets `options` to the defaults overwritten by the file at `path` and then by `overrides`, each
// "section.key=value"; of two that set the same key the later one wins. A value is written as in
// TOML; strings need no quotes. An entry of a list is named by its index from 0
// ("data.train[0].path=other.bin"), a whole list by its value ("data.validation=[]").
//
// The error has one line for every mistake in the file and the overrides (a syntax error hides
// those after it), in order:
//   configs/a.toml:12: unknown key `optim.lerning_rate`; did you mean `learning_rate`?
//   --set model.layers=0: `model.layers` = 0 is out of range (1 to 4096)
// Unknown keys and sections, duplicates, wrong types (an integer will do for a real number), values
// out of range, unknown choices, and keys without which there is no valid value are mistakes.
// `options` is untouched on error. What one value demands of another is RunOptions::Finish's to
// check.
absl::Status LoadConfig(const std::string& path, std::span<const std::string> overrides,
                        RunOptions& options);

// As LoadConfig for the text of a file, which errors call `name`.
absl::Status ParseConfig(const std::string& text, const std::string& name,
                         std::span<const std::string> overrides, RunOptions& options);

// As LoadConfig for all ranks of a job: rank 0 alone reads the file, so that a file that changes
// meanwhile, or that other hosts see late, cannot give ranks different options. `overrides` must be
// the same on all. Collective; every rank gets the same status.
absl::Status LoadSharedConfig(HostGroup& host, const std::string& path,
                              std::span<const std::string> overrides, RunOptions& options);

}  // namespace panthera

#endif  // PANTHERA_LAUNCHER_CONFIG_FILE_H_
